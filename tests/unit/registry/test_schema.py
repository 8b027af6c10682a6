"""The registered features in a real store: numbered, created once, only ever added to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidewheel.contracts.schema import FeatureSpec, feature_digest
from tidewheel.errors import ConfigError, ContractError
from tidewheel.registry.schema import SchemaHistory, recipes
from tidewheel.store import Store

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def feature(number: int, name: str, **more: object) -> FeatureSpec:
    return FeatureSpec.model_validate({"id": number, "name": name, "kind": "numeric", "entity": "user"} | more)


A, B = feature(1, "a"), feature(2, "b")


@pytest.fixture
def history(tmp_path: Path) -> SchemaHistory:
    return SchemaHistory(Store.open(str(tmp_path)), "shop")


def register(history: SchemaHistory, *features: FeatureSpec, reason: str = "why") -> None:
    history.register(features, reason=reason, by="run-1", clock=lambda: NOON)


def test_a_record_says_who_when_and_why(history: SchemaHistory, tmp_path: Path) -> None:
    register(history, A, B, reason="first features")

    record = json.loads((tmp_path / "schema" / "shop" / "000001.json").read_text())
    assert record["schema"] == "tidewheel/schema/v1"
    assert [record[key] for key in ("number", "recipe", "by", "reason")] == [1, "shop", "run-1", "first features"]
    assert datetime.fromisoformat(record["time"]) == NOON
    assert record["feature_digest"] == feature_digest((A, B))
    assert recipes(Store.open(str(tmp_path))) == ["shop"]


def test_the_same_features_are_registered_once(history: SchemaHistory) -> None:
    register(history, A)
    register(history, A)

    assert len(history.records()) == 1


def test_a_deprecated_feature_that_left_the_recipe_stays_registered(history: SchemaHistory) -> None:
    gone = feature(2, "b", deprecated=True)
    register(history, A, B)
    register(history, A, gone)
    register(history, A, feature(3, "c"))

    assert history.records()[-1].features == (A, gone, feature(3, "c"))


def test_what_is_refused_is_not_written(history: SchemaHistory) -> None:
    register(history, A, B)

    with pytest.raises(ConfigError, match=r"recipe shop: id 2 belongs to b .* next free is 3"):
        register(history, A, feature(2, "c"))

    assert len(history.records()) == 1


def at_once(count: int, work: Callable[[int], None]) -> None:
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_many_that_register_the_same_at_once_one_writes(history: SchemaHistory) -> None:
    at_once(8, lambda number: register(history, A, B))

    assert len(history.records()) == 1


def test_of_many_that_want_one_id_for_different_features_one_wins_and_the_others_are_told(history: SchemaHistory) -> None:
    register(history, A)
    told: list[str] = []

    def work(number: int) -> None:
        try:
            register(history, A, feature(2, f"b{number}"))
        except ConfigError as error:
            told.append(str(error))

    at_once(8, work)

    winner = history.records()[-1].features[-1].name
    assert len(history.records()) == 2
    assert len(told) == 7
    assert all(f"id 2 belongs to {winner}" in message for message in told)


def test_a_writer_that_died_before_its_record_was_whole_leaves_the_old_ones(history: SchemaHistory, tmp_path: Path) -> None:
    register(history, A)
    (tmp_path / "schema" / "shop" / ".partial-dead").write_text('{"schema": "tide')

    register(history, A, B)

    assert [len(record.features) for record in history.records()] == [1, 2]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "000001.json").unlink(), r"000001\.json is missing"),
        (
            lambda folder: edit(folder / "000002.json", '"name": "b"', '"name": "c"'),
            r"000002\.json does not match its feature_d",
        ),
        (lambda folder: (folder / "000002.json").write_text((folder / "000001.json").read_text()), "holds entry 1"),
        (lambda folder: edit(folder / "000002.json", '"id": 4', '"id": 5'), r"000002\.json does not follow"),
        (lambda folder: edit(folder / "000002.json", '"name": "d"', '"name": "e"'), r"000002\.json does not follow"),
    ],
)
def test_nothing_is_decided_on_a_damaged_history(history: SchemaHistory, tmp_path: Path, damage, message: str) -> None:
    dead = feature(4, "d", deprecated=True)
    register(history, A, dead)
    register(history, A, B)
    damage(tmp_path / "schema" / "shop")

    with pytest.raises(ContractError, match=message):
        history.plan((A, B))


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
