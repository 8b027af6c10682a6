"""What is left of a folder that was removed: its manifest, so that lineage outlives bytes."""

from __future__ import annotations

from tidewheel.store import Store

REMOVED = "removed"  # folder of the records in the store, one folder a kind


def manifest_of(store: Store, kind: str, digest: str) -> bytes | None:
    """The manifest of a folder, or of one that was removed; None where neither is known."""
    found = store.manifest(kind, digest)
    if found is not None:
        return found
    kept = store.get(_name(kind, digest))
    return kept.encode() if kept is not None else None


def remove(store: Store, kind: str, digest: str) -> bool:
    """Remove a folder and keep its manifest as a record; whether it could have been loaded before. Safe to repeat."""
    manifest = store.manifest(kind, digest)
    if manifest is not None:
        store.put(_name(kind, digest), manifest.decode())
    store.remove(kind, digest)
    return manifest is not None


def _name(kind: str, digest: str) -> str:
    return f"{REMOVED}/{kind}/{digest}.json"
