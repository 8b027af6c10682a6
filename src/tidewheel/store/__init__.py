"""Content-addressed store over fsspec, and the home folder that holds it."""

from tidewheel.store.home import Home
from tidewheel.store.store import MANIFEST, FolderManifest, Store

__all__ = ["MANIFEST", "FolderManifest", "Home", "Store"]
