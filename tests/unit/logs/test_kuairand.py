"""The adapter on a small log with KuaiRand's columns and traps; on the real log where it is at hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.window import Window
from tidewheel.errors import ContractError
from tidewheel.logs import ingest
from tidewheel.logs.adapter import LogFile
from tidewheel.logs.files import check_files

REPOSITORY = Path(__file__).parents[3]
REAL = REPOSITORY.parent / "shared" / "data" / "kuairand_pure_std"
RECIPE = Recipe.model_validate(yaml.safe_load((REPOSITORY / "recipes" / "kuairand.yaml").read_text(encoding="utf-8")))
ACTIONS = ("click", "like", "follow", "comment", "forward", "hate", "profile_enter", "rand")
OUTCOMES = (*(f"is_{action}" for action in ACTIONS), "long_view", "play_time_ms")


def write(folder: Path, rows: list[dict], video_ids: tuple[int, ...] = (1, 2)) -> Path:
    folder.mkdir()
    defaults = dict.fromkeys(OUTCOMES, 0) | {"tab": 1, "duration_ms": 9000, "date": 0, "hourmin": 0}
    pd.DataFrame([defaults | row for row in rows]).to_parquet(folder / "log_standard_x.parquet")
    users = {name.name: ["a", "b"] for name in RECIPE.features if name.name.endswith(("_range", "_degree"))}
    pd.DataFrame({"user_id": [10, 11], **users}).to_parquet(folder / "user_features.parquet")
    count = len(video_ids)
    pd.DataFrame(
        {
            "video_id": video_ids,
            "author_id": [7] * count,
            "video_type": ["NORMAL"] * count,
            "upload_dt": ["2022-04-24"] * count,
            "upload_type": ["Web"] * count,
            "music_type": [9.0] * count,
            "tag": ["39"] * count,
        }
    ).to_parquet(folder / "video_features_basic.parquet")
    return folder


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def run(spark, folder: Path, out: Path, end: str = "2022-05-04"):
    out.mkdir()
    window = Window.ending(datetime.fromisoformat(end).replace(tzinfo=UTC), RECIPE.window.days)
    result = ingest(spark, RECIPE.source, RECIPE.labels, RECIPE.features, RECIPE.ingest, window, out, folder)
    return result, pd.read_parquet(out / "impressions")


ALL_POSITIVE = {"is_click": 1, "long_view": 1, "is_like": 1, "is_profile_enter": 1}


def test_requests_are_a_users_hour_and_traps_are_cleaned(spark, tmp_path: Path) -> None:
    rows = [
        {"user_id": 10, "video_id": 1, "time_ms": at("2022-04-25T13:59:59.999"), "duration_ms": 0, **ALL_POSITIVE},
        {"user_id": 11, "video_id": 2, "time_ms": at("2022-05-03T23:00:00"), "play_time_ms": 5},
        {"user_id": 11, "video_id": 2, "time_ms": at("2022-05-03T23:00:00"), "play_time_ms": 6},
    ]
    result, got = run(spark, write(tmp_path / "log", rows), tmp_path / "out")
    got = got.sort_values("event_time")
    assert got.request_id.tolist() == ["u10-458581", "u11-458783"]
    assert got.hour.tolist() == [13, 23]
    assert got.item_age_days.tolist() == [1.0, 9.0]
    assert got.duration_ms.isna().tolist() == [True, False]
    assert got.author_id.tolist() == [7, 7]
    assert got.user_active_degree.tolist() == ["a", "b"]
    assert got.music_type.tolist() == [9, 9]
    assert got.event_time.iloc[0] == pd.Timestamp("2022-04-25T13:59:59.999", tz="UTC")
    # The repeat differs in an outcome that is no canonical column: it is the same impression, logged twice.
    assert result.statistics["exact_duplicates"] == 1
    assert not got.is_randomized.any()


def test_a_video_without_features_has_no_author_and_is_quarantined(spark, tmp_path: Path) -> None:
    time = at("2022-05-03T12:00:00")
    rows = [{"user_id": 10, "video_id": 1, "time_ms": time + number, **ALL_POSITIVE} for number in range(40)]
    result, _ = run(spark, write(tmp_path / "log", [*rows, rows[0] | {"video_id": 99}]), tmp_path / "out")
    assert result.statistics["quarantined.no_author_id"] == 1
    assert result.rows == 40


def test_a_feature_table_with_a_repeated_key_is_refused(spark, tmp_path: Path) -> None:
    rows = [{"user_id": 10, "video_id": 1, "time_ms": at("2022-05-03T12:00:00")}]
    folder = write(tmp_path / "log", rows, video_ids=(1, 1))
    with pytest.raises(ContractError, match=r"video_features_basic\.parquet: video_id repeats in 1 rows"):
        run(spark, folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("keys", "want_repeats"), [([3, 8, 1, 8, 9, 3, 8], 3), ([-2, -2, 5], 1), ([4, 1, 2, 3], 0), (["a", "b", "a"], 1), ([], 0)]
)
def test_repeated_keys_are_counted_also_where_only_a_share_is_looked_at(tmp_path, monkeypatch, keys, want_repeats) -> None:
    monkeypatch.setattr("tidewheel.logs.files.KEYS_AT_ONCE", 2)
    path = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": pa.array(keys, pa.int64() if keys == [] else None)}), path, row_group_size=2)
    file = LogFile(path, frozenset({"user_id"}), unique="user_id")
    if want_repeats:
        with pytest.raises(ContractError, match=f"user_id repeats in {want_repeats} rows"):
            check_files([file])
    else:
        assert check_files([file]) == {path: len(keys)}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real log is not here")
def test_the_real_log_is_read_with_its_known_counts(spark, tmp_path: Path) -> None:
    result, got = run(spark, REAL, tmp_path / "out")
    log = pd.read_parquet(REAL / "log_standard_20220425_20220505.parquet")
    days = pd.to_datetime(log.time_ms, unit="ms").dt.date
    log = log[(days >= date(2022, 4, 25)) & (days < date(2022, 5, 4))]
    identity = ["user_id", "video_id", "time_ms"]
    content = [*identity, "is_click", "long_view", "is_like", "is_profile_enter", "tab", "duration_ms"]
    distinct = log.drop_duplicates(content)
    assert result.statistics["rows_read"] == len(log)
    assert result.statistics["exact_duplicates"] == len(log) - len(distinct)
    assert result.statistics["conflicting_duplicates"] == distinct.duplicated(identity).sum()
    assert result.statistics["quarantined"] == 0
    assert result.rows == len(got) == len(distinct.drop_duplicates(identity))
    assert got.row_key.is_unique
