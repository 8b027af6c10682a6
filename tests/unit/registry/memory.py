"""A registry in memory, and a store and a registry whose process is killed before a write."""

from __future__ import annotations

from collections.abc import Mapping

from tidewheel.registry import Registry
from tidewheel.store.local import LocalStore


class MemoryRegistry:
    """`dies_at` names the verb that fails."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] = {}
        self.pointers: dict[str, str] = {}
        self.dies_at = ""

    def register(self, bundle: str, tags: Mapping[str, str]) -> str:
        self._maybe_die("register")
        self.known.setdefault(bundle, {}).update(tags)
        return str(list(self.known).index(bundle) + 1)

    def versions(self) -> dict[str, dict[str, str]]:
        self._maybe_die("versions")
        return {bundle: dict(tags) for bundle, tags in self.known.items()}

    def aliases(self) -> dict[str, str]:
        self._maybe_die("aliases")
        return dict(self.pointers)

    def point(self, alias: str, bundle: str | None) -> None:
        self._maybe_die("point")
        if bundle is None:
            del self.pointers[alias]
        else:
            assert bundle in self.known
            self.pointers[alias] = bundle

    def _maybe_die(self, verb: str) -> None:
        if verb == self.dies_at:
            raise ConnectionError("registry is down")


class Killed(BaseException):
    """The process is gone: nobody catches this."""


class Fuse:
    """Blows before the write after so many, wherever that goes."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def burn(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


class DyingStore(LocalStore):
    fuse: Fuse

    def create(self, name: str, text: str) -> bool:
        self.fuse.burn()
        return super().create(name, text)

    def put(self, name: str, text: str) -> None:
        self.fuse.burn()
        super().put(name, text)


class DyingRegistry:
    """Any registry, killed by the same fuse."""

    def __init__(self, registry: Registry, fuse: Fuse) -> None:
        self._registry, self._fuse = registry, fuse

    def register(self, bundle: str, tags: Mapping[str, str]) -> str:
        self._fuse.burn()
        return self._registry.register(bundle, tags)

    def versions(self) -> dict[str, dict[str, str]]:
        return self._registry.versions()

    def aliases(self) -> dict[str, str]:
        return self._registry.aliases()

    def point(self, alias: str, bundle: str | None) -> None:
        self._fuse.burn()
        self._registry.point(alias, bundle)
