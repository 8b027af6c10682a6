"""More than one bundle, and stores with assignments of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.conftest import TinyRun
from tidewheel.contracts.assignment import Assignment, Share, name_of
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.ranker.bundle import BUNDLES
from tidewheel.store import Store

RECIPE = "quickstart"
Publish = Callable[[Store, str], str]
Assign = Callable[..., Assignment]


@pytest.fixture(scope="session")
def publish(tiny_run: TinyRun) -> Publish:
    """(store, name) -> digest of the tiny bundle under another name: other bytes, the same scores."""

    def published(store: Store, name: str) -> str:
        folder = store.staging("bundle")
        shutil.copytree(tiny_run.bundle.folder, folder, dirs_exist_ok=True)
        manifest = tiny_run.bundle.manifest.model_copy(update={"name": name})
        digest, _ = store.publish(BUNDLES, folder, BundleManifest.model_validate(manifest.model_dump(by_alias=True)))
        return digest

    return published


@pytest.fixture(scope="session")
def assign() -> Assign:
    """(store, number, digest=share, ...) -> the assignment, written into the store."""

    def assigned(store: Store, number: int, shares: dict[str, float], salt: int = 3) -> Assignment:
        found = Assignment(
            recipe=RECIPE,
            number=number,
            salt=salt,
            shares=tuple(Share(bundle=bundle, share=share) for bundle, share in shares.items()),
        )
        assert store.create(name_of(RECIPE, number), found.to_json())
        return found

    return assigned


@pytest.fixture(scope="module")
def shelf(publish: Publish, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, tuple[str, str, str]]:
    """A store with three bundles, without an assignment."""
    store = Store.open(str(tmp_path_factory.mktemp("shelf") / "store"))
    return store, (publish(store, "first"), publish(store, "second"), publish(store, "third"))
