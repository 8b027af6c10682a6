"""Whatever is wrong with what a user gives: one clear line, the right exit code, nothing changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.command import KUAIRAND, QUICKSTART, Ended, settings, tidewheel

PARQUET = """
name: shop
source:
  kind: parquet
  columns: {request_id: request, user_id: user, item_id: item, author_id: owner, event_time: ts}
  labels: {click: clicked}
  outcomes: [watch_seconds]
window: {days: 2, first_end: 2026-01-03}
labels: [{name: click}]
features:
  - {id: 1, name: user_id, kind: hashed, entity: user, num_buckets: 64}
  - {id: 2, name: item_id, kind: hashed, entity: item, num_buckets: 64}
  - {id: 3, name: price, kind: numeric, entity: item}
ingest: {max_quarantine_share: 0.1, counters: {labels: [click]}}
deploy: {steps: [{share: 0.5, min_requests: 10, max_requests: 100}]}
"""


def log_of(rows: int = 400, positives: bool = True) -> pa.Table:
    start = 1_767_225_600_000_000  # 2026-01-01 UTC, microseconds
    numbers = list(range(rows))
    return pa.table(
        {
            "request": [f"r{number // 4}" for number in numbers],
            "user": [number % 17 for number in numbers],
            "item": [number % 29 for number in numbers],
            "owner": [number % 5 for number in numbers],
            "ts": pa.array([start + number * 400_000_000 for number in numbers], pa.timestamp("us", tz="UTC")),
            "clicked": pa.array([int(positives and number % 3 == 0) for number in numbers], pa.int8()),
            "price": [float(number % 7) for number in numbers],
            "watch_seconds": [float(number % 3) for number in numbers],
        }
    )


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a recipe, `shop.yaml`, and a log, `log/`."""
    (tmp_path / "log").mkdir()
    (tmp_path / "shop.yaml").write_text(PARQUET)
    pq.write_table(log_of(), tmp_path / "log" / "part-0.parquet")
    return tmp_path


def run(shop: Path, *arguments: str) -> Ended:
    return tidewheel("run", "--recipe", shop / "shop.yaml", "--data", shop / "log", *arguments, home=shop / "home")


def assert_refused(ended: Ended, home: Path, code: int, *words: str) -> None:
    """One line that says it all, no traceback, and a ledger that was not touched."""
    said = ended.err + ended.out
    assert ended.code == code, said
    for word in words:
        assert word in said
    assert "Traceback" not in said
    assert not list(home.glob("store/ledger/*"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("trian.epochs=1", ("trian", "Did you mean train?")),
        ("sample.negative_rate=1.4", ("sample.negative_rate", "(0, 1]", "1.4")),
        ("window.days=week", ("window.days", "week")),
    ],
)
def test_a_recipe_at_fault_names_the_place(shop: Path, setting: str, words: tuple[str, ...]) -> None:
    assert_refused(run(shop, "--set", setting), shop / "home", 2, *words)


def test_a_data_folder_that_is_not_there(shop: Path) -> None:
    ended = tidewheel("run", "--recipe", KUAIRAND, "--data", shop / "absent", home=shop / "home")

    assert_refused(ended, shop / "home", 2, "absent", "--data")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "home"
    blocked.write_text("a file is in the way")

    ended = tidewheel("run", "--recipe", QUICKSTART, home=blocked)

    assert_refused(ended, tmp_path, 2, str(blocked), "--home")


VERBS = ["status", "history", "explain", "rollback --reason x", "resume --reason x", "reconcile", "gc", "serve"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_home_that_is_not_there(tmp_path: Path, verb: str) -> None:
    assert_refused(tidewheel(*verb.split(), home=tmp_path / "absent"), tmp_path, 2, "absent", "--home")


def test_usage_faults_are_one_line(tmp_path: Path) -> None:
    ended = tidewheel("run", "--recip", "x", home=tmp_path)

    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1


def test_with_json_an_error_is_a_document_too(shop: Path) -> None:
    ended = run(shop, "--json", "--set", "window.days=week")

    assert ended.document["error"]["kind"] == "ConfigError"


def test_an_outcome_as_a_feature_is_refused_by_name(shop: Path) -> None:
    text = (shop / "shop.yaml").read_text().replace("name: price", "name: watch_seconds")
    (shop / "shop.yaml").write_text(text)

    assert_refused(run(shop), shop / "home", 2, "watch_seconds", "outcome")


def test_a_leak_of_the_real_log_is_refused_by_name(shop: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "leak.yaml"
    recipe.write_text(KUAIRAND.read_text().replace("name: duration_ms", "name: play_duration"))

    ended = tidewheel("run", "--recipe", recipe, "--data", shop / "log", home=shop / "home")

    assert_refused(ended, shop / "home", 2, "play_duration", "future")


def test_a_missing_column(shop: Path) -> None:
    pq.write_table(log_of().drop_columns(["clicked"]), shop / "log" / "part-0.parquet")

    assert_refused(run(shop), shop / "home", 3, "clicked", "part-0.parquet")


def test_a_truncated_file(shop: Path) -> None:
    path = shop / "log" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-100])

    assert_refused(run(shop), shop / "home", 3, "part-0.parquet")


def test_a_window_without_impressions(shop: Path) -> None:
    assert_refused(run(shop, "--window-end", "2027-01-01"), shop / "home", 3, "2026-12-30", "2026-01-01")


def test_a_window_without_positives(shop: Path) -> None:
    pq.write_table(log_of(positives=False), shop / "log" / "part-0.parquet")

    assert_refused(run(shop), shop / "home", 3, "click", "positive")


def test_too_many_malformed_rows(shop: Path) -> None:
    table = log_of()
    clicked = pa.array([7 if number % 4 == 0 else number % 2 for number in range(table.num_rows)], pa.int8())
    place = table.column_names.index("clicked")
    pq.write_table(table.set_column(place, "clicked", clicked), shop / "log" / "part-0.parquet")

    assert_refused(run(shop), shop / "home", 3, "quarantine")


def test_an_empty_data_folder(shop: Path) -> None:
    shutil.rmtree(shop / "log")
    (shop / "log").mkdir()

    assert_refused(run(shop), shop / "home", 3, "log")


def test_debug_shows_where(shop: Path) -> None:
    ended = run(shop, "--set", "window.days=week", "--debug")

    assert "Traceback" in ended.err


def test_require_turns_another_ending_into_four(shop: Path) -> None:
    ended = run(shop, "--require", "promotd")

    assert_refused(ended, shop / "home", 2, "promotd", "promoted")


def test_simulate_needs_the_world(shop: Path) -> None:
    ended = tidewheel("simulate", "--recipe", KUAIRAND, *settings("source.path=."), home=shop / "home")

    assert_refused(ended, shop / "home", 2, "world")
