"""Following the assignments of a store, look by look, with real bundles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.serving.conftest import RECIPE, Assign, Publish
from tidewheel.contracts.assignment import name_of
from tidewheel.errors import ConfigError, ContractError
from tidewheel.ranker.bundle import BUNDLES, load_bundle
from tidewheel.serving.app import ServingApp
from tidewheel.serving.following import Following
from tidewheel.serving.versions import Opening, Table, Version
from tidewheel.store import Store

Shelf = tuple[Store, tuple[str, str, str]]


@pytest.fixture
def place(shelf: Shelf, tmp_path: Path) -> Shelf:
    """A store of its own with the three bundles."""
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "store" / BUNDLES).symlink_to(Path(shelf[0].location(BUNDLES)))
    return store, shelf[1]


def begun(store: Store, max_versions: int = 3, fallback: Callable[[], Version] | None = None) -> tuple[Following, ServingApp]:
    """One who follows, and the app that serves what it finds; its thread is not started."""
    following = Following(store, RECIPE, Opening(), max_versions)
    app = ServingApp(following.first(fallback))
    following._install, following._metrics = app.install, app.metrics
    return following, app


def test_it_begins_with_the_newest_assignment_and_takes_over_the_next(place: Shelf, assign: Assign) -> None:
    store, (first, second, _) = place
    assign(store, 2, {first: 1.0})
    following, app = begun(store)
    assert list(app.table.versions) == [first]
    assert not following.advance()

    assign(store, 10, {first: 0.4, second: 0.6})
    kept = app.table.versions[first]
    assert following.advance()
    assert list(app.table.versions) == [second, first]
    assert app.table.versions[first] is kept, "what serves already is not opened again"
    assert (app.metrics.assignment_number, app.metrics.swaps) == (10, 1)


def test_before_the_first_assignment_the_fallback_serves_and_is_left_for_it(place: Shelf, assign: Assign) -> None:
    store, (first, second, _) = place
    with pytest.raises(ConfigError, match="has no assignments/quickstart"):
        begun(store)
    following, app = begun(store, fallback=lambda: Version(load_bundle(store, first), Opening()))
    assert app.table.shares == {first: 1.0}
    assert not following.advance()
    assign(store, 1, {second: 1.0})
    assert following.advance()
    assert app.table.shares == {second: 1.0}


def test_a_bundle_that_cannot_be_loaded_leaves_what_serves_and_is_told_once(
    place: Shelf, assign: Assign, capsys: pytest.CaptureFixture[str]
) -> None:
    store, (first, second, _) = place
    assign(store, 1, {first: 1.0})
    following, app = begun(store)
    assign(store, 2, {second: 0.5, "7" * 64: 0.5})
    assert [following.advance() for _ in range(8)] == [False] * 8

    assert app.table.shares == {first: 1.0}
    assert app.metrics.assignment_number == 1
    assert app.metrics.load_failures == 3, "tried at looks 1, 3 and 7: it waits twice as long each time"
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("tidewheel serving: assignment 2: ")
    assert told[0].endswith(f"({first[:12]} serves on)")

    assign(store, 3, {second: 1.0})
    assert following.advance(), "the next assignment is not kept waiting"
    assert app.table.shares == {second: 1.0}


def test_more_bundles_than_the_server_may_hold_are_not_opened(
    place: Shelf, assign: Assign, capsys: pytest.CaptureFixture[str]
) -> None:
    store, (first, second, third) = place
    assign(store, 1, {first: 1.0})
    following, app = begun(store, max_versions=2)
    assign(store, 2, {first: 0.5, second: 0.25, third: 0.25})
    assert not following.advance()
    assert app.table.shares == {first: 1.0}
    assert "names 3 bundles; this server holds 2: raise --max-versions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "000002.json"),
        ('{"schema": "tidewheel/assignment/v1"}', "000002.json: "),
        ("other", "is assignment 9 of quickstart"),
    ],
)
def test_a_damaged_record_changes_nothing(
    place: Shelf, assign: Assign, capsys: pytest.CaptureFixture[str], record: str, message: str
) -> None:
    store, (first, second, _) = place
    assign(store, 1, {first: 1.0})
    following, app = begun(store)
    if record == "other":
        record = assign(store, 9, {second: 1.0}).to_json()
        (Path(store.url) / name_of(RECIPE, 9)).unlink()
    store.create(name_of(RECIPE, 2), record)
    assert not following.advance()
    assert app.table.shares == {first: 1.0}
    assert message in capsys.readouterr().err


def test_a_server_that_must_begin_with_a_broken_assignment_says_so(place: Shelf, assign: Assign) -> None:
    store, (first, *_) = place
    assign(store, 1, {"7" * 64: 1.0})
    with pytest.raises(ContractError, match="7777777"):
        begun(store)
    _, app = begun(store, fallback=lambda: Version(load_bundle(store, first), Opening()))
    assert app.table.shares == {first: 1.0}


def test_what_serves_no_more_is_not_held(place: Shelf, assign: Assign, publish: Publish) -> None:
    store, (first, second, _) = place
    assign(store, 1, {first: 1.0})
    following, app = begun(store)
    opened: list[weakref.ref[Version]] = [weakref.ref(app.table.main)]
    for number in range(2, 22):
        assign(store, number, {(first, second)[number % 2]: 1.0})
        assert following.advance()
        opened.append(weakref.ref(app.table.main))
    gc.collect()
    assert len([version for version in opened if version() is not None]) == 1
    assert set(app.metrics.versions) == set(app.table.versions)


def test_an_empty_table_is_never_installed(place: Shelf, assign: Assign) -> None:
    """The records may vanish: what serves goes on."""
    store, (first, *_) = place
    assign(store, 1, {first: 1.0})
    following, app = begun(store)
    (Path(store.url) / name_of(RECIPE, 1)).unlink()
    assert not following.advance()
    assert app.table.shares == {first: 1.0}
    assert isinstance(app.table, Table)
