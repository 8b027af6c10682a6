"""Content-addressed store over fsspec: a local folder or an S3 bucket."""

from tidewheel.store.store import FolderManifest, Store

__all__ = ["FolderManifest", "Store"]
