"""Content-addressed store over fsspec, and the home folder that holds it."""

from tidewheel.store.home import Home
from tidewheel.store.store import MANIFEST, Store
from tidewheel.store.verification import Verification

__all__ = ["MANIFEST", "Home", "Store", "Verification"]
