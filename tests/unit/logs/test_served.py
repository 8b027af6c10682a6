"""What servers wrote of the candidates that they scored, as it is read back."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.errors import ContractError
from tidewheel.logs.adapter import Days
from tidewheel.logs.served import served_candidates

DAYS = Days(date(2026, 1, 5), date(2026, 1, 7))


def line(request: str, item: int, hour: int, **more: object) -> dict[str, object]:
    return {"request_id": request, "item_id": item, "served_time": datetime(2026, 1, 5, hour, tzinfo=UTC), **more}


def write(log: Path, day: str, lines: list[dict[str, object]], is_complete: bool = True) -> Path:
    folder = log / "backend" / f"date={day}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{len(list(folder.glob('*.parquet')))}.parquet"
    pq.write_table(pa.Table.from_pylist(lines), path)
    if is_complete:
        (folder / "_SUCCESS").touch()
    return path


def test_the_last_line_of_a_candidate_counts_wherever_it_lies(tmp_path):
    write(tmp_path, "2026-01-06", [line("a", 1, 9, bundle="old", score_click=0.1)])
    write(
        tmp_path,
        "2026-01-05",
        [line("a", 1, 10, bundle="new", score_click=0.2), line("a", 2, 8, bundle="new", score_click=0.3)],
    )
    found = served_candidates(tmp_path, DAYS, "click", ()).select(["request_id", "item_id", "bundle", "score_click"])
    assert sorted(found.to_pylist(), key=lambda row: row["item_id"]) == [
        {"request_id": "a", "item_id": 1, "bundle": "new", "score_click": 0.2},
        {"request_id": "a", "item_id": 2, "bundle": "new", "score_click": 0.3},
    ]


def test_days_that_are_not_complete_or_not_asked_for_are_not_read(tmp_path):
    write(tmp_path, "2026-01-05", [line("a", 1, 1, bundle="b", score_click=0.1)])
    write(tmp_path, "2026-01-06", [line("a", 2, 1, bundle="b", score_click=0.1)], is_complete=False)
    write(tmp_path, "2026-01-07", [line("a", 3, 1, bundle="b", score_click=0.1)])
    assert served_candidates(tmp_path, DAYS, "click", ())["item_id"].to_pylist() == [1]


def test_features_are_read_where_all_files_have_them(tmp_path):
    """A file of a server that did not write it down yet says nothing of it; null would be another thing."""
    write(tmp_path, "2026-01-05", [line("a", 1, 1, bundle="b", score_click=0.1, item_click_rate=None, user_click_rate=0.1)])
    write(tmp_path, "2026-01-05", [line("a", 2, 2, bundle="b", score_click=0.1, item_click_rate=0.5)])
    found = served_candidates(tmp_path, DAYS, "click", ("item_click_rate", "user_click_rate", "author_click_rate"))
    assert found["item_click_rate"].to_pylist() == [None, 0.5]
    assert {"user_click_rate", "author_click_rate"}.isdisjoint(found.column_names)


@pytest.mark.parametrize(("given", "missing"), [({"bundle": "b"}, "score_click"), ({"score_click": 0.1}, "bundle")])
def test_a_log_without_scores_or_bundles_is_named(tmp_path, given, missing):
    write(tmp_path, "2026-01-05", [line("a", 1, 1, **given)])
    with pytest.raises(ContractError, match=missing):
        served_candidates(tmp_path, DAYS, "click", ())


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path, "2026-01-05", [line("a", 1, 1, bundle="b", score_click=0.1)])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ContractError, match=r"part-0\.parquet.*restore"):
        served_candidates(tmp_path, DAYS, "click", ())


def test_no_day_at_all_is_named(tmp_path):
    (tmp_path / "backend").mkdir()
    with pytest.raises(ContractError, match="no complete day"):
        served_candidates(tmp_path, DAYS, "click", ())
