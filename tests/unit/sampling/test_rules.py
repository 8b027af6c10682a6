from __future__ import annotations

import pyarrow as pa
import pytest

from tidewheel.contracts.recipe import SampleConfig, SliceRate
from tidewheel.errors import ConfigError
from tidewheel.sampling.loader import keep_rates, select
from tidewheel.sampling.rules import calibration_salt

LABELS = ("click", "like")


def rows(**columns: list) -> pa.Table:
    count = len(next(iter(columns.values())))
    base = {"row_key": list(range(count)), "inclusion_probability": [1.0] * count}
    base |= {"label_click": [0] * count, "label_like": [0] * count}
    return pa.table(base | columns)


def test_a_row_with_several_positive_labels_is_kept_with_the_highest_of_their_rates() -> None:
    config = SampleConfig(negative_rate=0.1, label_rates={"click": 0.3, "like": 0.7})
    table = rows(label_click=[0, 1, 0, 1], label_like=[0, 0, 1, 1])
    assert keep_rates(table, config, LABELS).tolist() == [0.1, 0.3, 0.7, 0.7]


def test_a_label_without_a_rate_is_always_kept() -> None:
    config = SampleConfig(negative_rate=0.1, label_rates={"click": 0.3})
    assert keep_rates(rows(label_click=[1, 1], label_like=[0, 1]), config, LABELS).tolist() == [0.3, 1.0]


def test_the_first_slice_that_a_negative_row_is_in_gives_its_rate() -> None:
    slices = (
        SliceRate(column="tab", values=(1, 2), negative_rate=0.5),
        SliceRate(column="surface", values=("feed",), negative_rate=0.25),
    )
    table = rows(tab=[1, 3, None, 2], surface=["feed", "feed", "search", None], label_click=[0, 0, 0, 1])
    assert keep_rates(table, SampleConfig(negative_rate=0.1, slices=slices), LABELS).tolist() == [0.5, 0.25, 0.1, 1.0]


def test_text_values_match_integer_columns_and_integers_match_text() -> None:
    slices = (
        SliceRate(column="tab", values=("1", "none"), negative_rate=0.5),
        SliceRate(column="tag", values=(7,), negative_rate=0.25),
    )
    table = rows(tab=[1, 2], tag=["x", "7"])
    assert keep_rates(table, SampleConfig(slices=slices), LABELS).tolist() == [0.5, 0.25]


def test_an_unknown_slice_column_is_named() -> None:
    config = SampleConfig(slices=(SliceRate(column="tabb", values=(1,), negative_rate=0.5),))
    with pytest.raises(ConfigError, match=r"no column tabb .* expected one of .*label_click"):
        select(rows(row_key=[1]), config, LABELS)


def test_the_weight_is_one_over_inclusion_times_rate() -> None:
    table = rows(inclusion_probability=[0.25, 0.5], label_click=[1, 1])
    kept = select(table, SampleConfig(label_rates={"click": 1.0}), LABELS)
    assert kept["weight"].to_pylist() == [4.0, 2.0]


def test_the_salt_of_calibration_stays_a_64_bit_integer() -> None:
    for salt in (0, 2**63 - 1, -(2**63)):
        assert -(2**63) <= calibration_salt(salt) < 2**63
        assert calibration_salt(salt) != salt
