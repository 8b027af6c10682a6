from tidewheel.quality.drift import drift, psi
from tidewheel.quality.profile import profile, profile_on
from tidewheel.quality.validate import validate

__all__ = ["drift", "profile", "profile_on", "psi", "validate"]
