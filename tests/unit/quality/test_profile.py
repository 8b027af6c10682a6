import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.quality.profile import MAX_CATEGORICAL_VALUES, profile, profile_on

PRICE = FeatureSpec(id=1, name="price", kind=FeatureKind.NUMERIC, entity=Entity.ITEM)
TAB = FeatureSpec(id=2, name="tab", kind=FeatureKind.VOCABULARY, entity=Entity.CONTEXT)


def test_weights_and_not_rows_make_the_shares():
    table = pa.table(
        {"tab": ["a", "a", "b", None], "weight": [1.0, 1.0, 6.0, 2.0], "label_click": pa.array([1, 0, 1, 0], pa.int8())}
    )
    found = profile(table, [TAB], ["click"])
    assert found.categorical_values["tab"] == ("b", "a")
    assert found.shares["tab"] == pytest.approx((0.6, 0.2, 0.0, 0.2))
    assert found.label_rates["click"] == pytest.approx(0.7)
    assert found.effective_rows == pytest.approx(100 / 42)


def test_numeric_bins_end_at_the_weighted_deciles_and_the_last_is_for_null():
    table = pa.table({"price": pa.array([*range(1, 101), None], pa.float64()), "weight": [1.0] * 101})
    found = profile(table, [PRICE], [])
    assert found.numeric_edges["price"] == (10, 20, 30, 40, 50, 60, 70, 80, 90)
    assert found.shares["price"] == pytest.approx((9 / 101, *[10 / 101] * 8, 11 / 101, 1 / 101))


def test_a_constant_feature_has_one_edge():
    found = profile(pa.table({"price": [3.0] * 5, "weight": [1.0] * 5}), [PRICE], [])
    assert found.numeric_edges["price"] == (3.0,)
    assert found.shares["price"] == (0.0, 1.0, 0.0)


def test_values_beyond_the_heaviest_share_one_bin():
    names = [f"v{i:03}" for i in range(MAX_CATEGORICAL_VALUES + 10)]
    weight = [2.0] * MAX_CATEGORICAL_VALUES + [1.0] * 10
    found = profile(pa.table({"tab": names, "weight": weight}), [TAB], [])
    assert set(found.categorical_values["tab"]) == set(names[:MAX_CATEGORICAL_VALUES])
    assert found.shares["tab"][-2] == pytest.approx(10 / sum(weight))


def test_integers_and_their_text_are_the_same_value_in_both_profiles():
    old = profile(pa.table({"tab": [1, 1, 2], "weight": [1.0] * 3}), [TAB], [])
    new = profile_on(pa.table({"tab": ["1", "2", "3"], "weight": [1.0] * 3}), old, [])
    assert new.shares["tab"] == pytest.approx((1 / 3, 1 / 3, 1 / 3, 0))


def test_what_cannot_be_counted_is_left_out_and_never_raises():
    table = pa.table({"price": ["x", None, "2"], "weight": [float("nan"), -1.0, float("inf")]})
    found = profile(table, [PRICE, TAB], ["click"])
    assert found.shares == {}
    assert found.label_rates == {}
    assert found.effective_rows == 0
    assert profile(pa.table({}), [PRICE], ["click"]).rows == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats()), st.floats(0.1, 10)), min_size=1, max_size=60),
)
def test_shares_sum_to_one_and_a_profile_on_its_own_table_is_itself(rows):
    table = pa.table({"price": pa.array([r[0] for r in rows], pa.float64()), "weight": [r[1] for r in rows]})
    found = profile(table, [PRICE], [])
    again = profile_on(table, found, [])
    assert sum(found.shares["price"]) == pytest.approx(1.0)
    assert again.shares["price"] == pytest.approx(found.shares["price"])
    assert np.all(np.diff(found.numeric_edges["price"]) > 0)


def test_of_a_sequence_the_length_is_profiled():
    clicks = FeatureSpec(id=3, name="clicks", kind=FeatureKind.SEQUENCE, entity=Entity.USER, of="item_id", length=9)
    lists = pa.array([[7], [7, 8], [], None], pa.list_(pa.int64()))
    old = profile(pa.table({"clicks": lists, "weight": [1.0, 1.0, 1.0, 7.0]}), [clicks], [])
    assert old.numeric_edges["clicks"] == (0.0, 1.0, 2.0)
    assert old.shares["clicks"] == pytest.approx((0.0, 0.1, 0.1, 0.1, 0.7))
    new = profile_on(pa.table({"clicks": lists.slice(0, 3)}), old, [])
    assert new.shares["clicks"] == pytest.approx((0.0, 1 / 3, 1 / 3, 1 / 3, 0.0))
