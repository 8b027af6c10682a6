"""The resampled log is the real one's users over again, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MIDNIGHT = 1_651_017_600_000  # 2022-04-27T00:00:00Z
# user, video, milliseconds after midnight, click; user 7's second row is there twice, user 9 crosses midnight
LOG = [
    (7, 1, 5_000, 1),
    (7, 2, 65_000, 0),
    (7, 2, 65_000, 0),
    (8, 1, 70_000, 1),
    (8, 3, 3_600_000, 0),
    (9, 3, -1, 0),
    (9, 2, 0, 1),
]
AGE = {7: "new", 8: "old", 9: "older", 10: "never seen"}


@pytest.fixture(scope="module")
def resample() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "resample.py"
    spec = importlib.util.spec_from_file_location("bench_resample", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    users, videos, after, clicks = zip(*LOG, strict=True)
    log = {
        "user_id": pa.array(users, pa.int32()),
        "video_id": pa.array(videos, pa.int32()),
        "time_ms": pa.array([MIDNIGHT + x for x in after], pa.int64()),
        "is_click": pa.array(clicks, pa.int8()),
    }
    pq.write_table(pa.table(log), folder / "log_standard_20220425_20220505.parquet")
    pq.write_table(
        pa.table({"user_id": list(AGE), "register_days_range": list(AGE.values())}), folder / "user_features.parquet"
    )
    pq.write_table(pa.table({"video_id": [1, 2, 3]}), folder / "video_features_basic.parquet")
    return folder


@pytest.fixture(scope="module")
def log(resample: ModuleType, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "log"
    resample.resample(data, 700, out, seed=3)
    return out


def rows(log: Path) -> list[dict]:
    return [row for path in sorted(log.glob("log_*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_copy_has_the_features_and_all_the_rows_of_one_real_user_within_their_minutes(log: Path) -> None:
    age = {row["user_id"]: row["register_days_range"] for row in pq.read_table(log / "user_features.parquet").to_pylist()}
    source = {range_: user for user, range_ in AGE.items()}
    found: dict[int, Counter] = {user: Counter() for user in age}
    for row in rows(log):
        found[row["user_id"]][row["video_id"], row["time_ms"] // 60_000, row["is_click"]] += 1
    for copy, impressions in found.items():
        real = source[age[copy]]
        assert impressions == Counter((x[1], (MIDNIGHT + x[2]) // 60_000, x[3]) for x in LOG if x[0] == real)


def test_a_repeated_row_stays_a_repeat_in_every_copy(log: Path) -> None:
    repeats = Counter((row["user_id"], row["video_id"], row["time_ms"]) for row in rows(log))
    age = {row["user_id"]: row["register_days_range"] for row in pq.read_table(log / "user_features.parquet").to_pylist()}
    assert sorted(user for (user, *_), count in repeats.items() if count == 2) == sorted(x for x in age if age[x] == "new")
    assert max(repeats.values()) == 2


def test_copies_of_a_user_are_not_aligned(log: Path) -> None:
    milliseconds = Counter(row["time_ms"] for row in rows(log) if row["video_id"] == 1)
    assert max(milliseconds.values()) < 5


def test_a_file_holds_one_utc_day_in_the_order_of_time(log: Path) -> None:
    names = {"log_standard_20220426.parquet": 26, "log_standard_20220427.parquet": 27}
    assert {path.name for path in log.glob("log_*.parquet")} == set(names)
    for name, day in names.items():
        times = pq.read_table(log / name)["time_ms"].to_pylist()
        assert {datetime.fromtimestamp(time / 1000, UTC).day for time in times} == {day}
        assert times == sorted(times)


def test_about_as_many_rows_come_out_as_were_asked_for(log: Path) -> None:
    # 300 users of 1 to 3 rows: the standard deviation of their sum is under 10.
    assert 650 <= len(rows(log)) <= 750


def test_equal_arguments_give_equal_bytes_and_another_seed_other_ones(
    resample: ModuleType, data: Path, log: Path, tmp_path: Path
) -> None:
    for name, seed in (("again", 3), ("other", 4)):
        resample.resample(data, 700, tmp_path / name, seed)
    first, again, other = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (log, tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert first != other


def test_batches_cut_between_minutes_change_no_row(resample: ModuleType, data: Path, log: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "ROW_GROUP", 50)
        resample.resample(data, 700, tmp_path / "cut", seed=3)
    assert rows(tmp_path / "cut") == rows(log)


def test_malformed_rows_are_about_the_share_asked_for_and_nothing_else_changes(
    resample: ModuleType, data: Path, log: Path, tmp_path: Path
) -> None:
    resample.resample(data, 700, tmp_path / "spoiled", seed=3, malformed=0.25)
    spoiled = rows(tmp_path / "spoiled")
    # 700 rows at 0.25: five standard deviations are 57 rows.
    assert 118 <= sum(row["is_click"] == 2 for row in spoiled) <= 232
    assert [row | {"is_click": None} for row in spoiled] == [row | {"is_click": None} for row in rows(log)]
