from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.contracts.recipe import CounterConfig, KuaiRandSource, LabelConfig, ParquetSource, WorldSource
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ConfigError, ContractError
from tidewheel.logs import check_features, time_span
from tidewheel.logs.adapter import Request
from tidewheel.logs.sources import still_readable

REAL = Path(__file__).parents[4] / "shared" / "data" / "kuairand_pure_std"
KUAIRAND = KuaiRandSource(kind="kuairand")
WORLD = WorldSource(kind="world", start=datetime(2026, 1, 5, tzinfo=UTC))
PARQUET = ParquetSource(
    kind="parquet",
    columns={"user_id": "u", "item_id": "i", "event_time": "t"},
    labels={"click": "clicked"},
    outcomes=("dwell",),
    future=("monthly",),
)
CLICK = LabelConfig(name="click")


def numeric(name: str) -> FeatureSpec:
    return FeatureSpec(id=7, name=name, kind=FeatureKind.NUMERIC, entity=Entity.ITEM)


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        (KUAIRAND, "play_time_ms", "measured after the impression"),
        (KUAIRAND, "profile_stay_time", "measured after the impression"),
        (KUAIRAND, "comment_stay_time", "measured after the impression"),
        (KUAIRAND, "play_duration", "looks into the future"),
        (KUAIRAND, "is_click", "is an outcome"),
        (KUAIRAND, "label_like", "is an outcome"),
        (KUAIRAND, "time_ms", "use hour"),
        (WORLD, "label_click", "is an outcome"),
        (WORLD, "position", "decided by the ranking"),
        (WORLD, "bundle", "the version that ranked"),
        (WORLD, "inclusion_probability", "depends on the outcome"),
        (PARQUET, "clicked", "is an outcome"),
        (PARQUET, "dwell", "is an outcome"),
        (PARQUET, "monthly", "looks into the future"),
        (PARQUET, "t", "moment of the impression"),
    ],
)
def test_outcomes_and_the_future_cannot_become_features(source, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"features: {name} cannot be a feature: it .*{reason}.*remove feature 7"):
        check_features(source, [numeric(name)], [CLICK])


@pytest.mark.skipif(not REAL.is_dir(), reason="KuaiRand is not beside this checkout (../shared/data/kuairand_pure_std)")
def test_every_column_of_the_future_table_is_refused() -> None:
    for name in set(pq.read_schema(REAL / "video_features_statistic.parquet").names) - {"video_id"}:
        with pytest.raises(ConfigError, match="looks into the future"):
            check_features(KUAIRAND, [numeric(name)], [CLICK])


def test_an_unknown_feature_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"features: item_age is unknown to source world; .*Did you mean item_age_days\?"):
        check_features(WORLD, [numeric("item_age")], [CLICK])


def test_an_unknown_label_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"labels: hide is unknown to source world; expected one of click, like, long_view"):
        check_features(WORLD, [], [LabelConfig(name="hide")])


def test_counters_are_features_only_for_counted_labels() -> None:
    features, counters = [numeric("author_like_rate")], CounterConfig(labels=("click",))
    check_features(WORLD, [numeric("author_click_rate"), numeric("user_impressions")], [CLICK], counters)
    with pytest.raises(ConfigError, match="author_like_rate is unknown"):
        check_features(WORLD, features, [CLICK, LabelConfig(name="like")], counters)


def test_a_parquet_source_without_its_time_is_refused() -> None:
    source = PARQUET.model_copy(update={"columns": {"user_id": "u", "item_id": "i"}})
    with pytest.raises(ConfigError, match=r"source\.columns lacks event_time"):
        check_features(source, [], [CLICK])


def test_checking_features_imports_no_engine() -> None:
    program = "import sys, tidewheel.logs; print([m for m in ('pyspark', 'pysail', 'pandas', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_time_span_comes_from_file_statistics(tmp_path: Path) -> None:
    for number, days in enumerate(([3, 1], [2, 9])):
        times = pa.array([datetime(2026, 1, day, 5) for day in days], pa.timestamp("us"))
        pq.write_table(pa.table({"t": times}), tmp_path / f"{number}.parquet")
    assert time_span(PARQUET, tmp_path) == (datetime(2026, 1, 1, 5, tzinfo=UTC), datetime(2026, 1, 9, 5, tzinfo=UTC))


def test_a_folder_without_files_has_no_time_span(tmp_path: Path) -> None:
    assert time_span(PARQUET, tmp_path) is None


def test_a_missing_folder_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data folder .*nowhere: not found; .* --data"):
        time_span(KUAIRAND, tmp_path / "nowhere")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"t": [1, 2, 3]}), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ContractError, match=r"log\.parquet: not a whole Parquet file"):
        time_span(PARQUET, tmp_path)


def test_of_what_only_production_takes_the_log_may_lack_anything(tmp_path: Path) -> None:
    """What the model itself takes is refused as ever; the newest file says what the log still writes."""
    for day, extra in ((1, {"old": [1.0]}), (2, {"new": [2.0]})):
        moment = datetime(2026, 1, day, tzinfo=UTC)
        pq.write_table(pa.table({"u": [1], "i": [1], "t": [moment], "clicked": [1], **extra}), tmp_path / f"{day}.parquet")
    more = [numeric(name) for name in ("old", "new", "dwell", "never")]
    request = Request(PARQUET, tmp_path, None, ("click",), tuple(feature.name for feature in more))
    counters = CounterConfig(labels=("click",))

    kept = still_readable([numeric("own")], more, PARQUET, [CLICK], counters, request)
    without_a_log = still_readable([numeric("own")], more, PARQUET, [CLICK], counters, None)

    assert [feature.name for feature in kept] == ["own", "new"]
    assert [feature.name for feature in without_a_log] == ["own", "old", "new", "never"]
    with pytest.raises(ConfigError, match="dwell cannot be a feature"):
        still_readable([numeric("dwell")], more, PARQUET, [CLICK], counters, request)
