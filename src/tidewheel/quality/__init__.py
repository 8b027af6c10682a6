from tidewheel.quality.distance import psi
from tidewheel.quality.drift import drift
from tidewheel.quality.profile import profile, profile_on
from tidewheel.quality.rows import ParquetRows, Rows
from tidewheel.quality.validate import Past, validate

__all__ = ["ParquetRows", "Past", "Rows", "drift", "profile", "profile_on", "psi", "validate"]
