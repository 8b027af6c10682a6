"""Encoding: raw columns to ids and numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tidewheel.contracts.schema import DType, Entity, FeatureKind, FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.ranker.columns import Coded, columns_of
from tidewheel.ranker.encoding import Encoders, splitmix64, transformed
from tidewheel.ranker.fitting import Fitting, fit

USER = FeatureSpec(id=1, name="user_id", kind=FeatureKind.HASHED, entity=Entity.USER, num_buckets=16)
SURFACE = FeatureSpec(id=2, name="surface", kind=FeatureKind.VOCABULARY, entity=Entity.CONTEXT)
AGE = FeatureSpec(id=3, name="age", kind=FeatureKind.NUMERIC, entity=Entity.ITEM, transform="log1p")
RATE = FeatureSpec(id=4, name="rate", kind=FeatureKind.NUMERIC, entity=Entity.ITEM)
FEATURES = (USER, SURFACE, AGE, RATE)


def columns(**changed: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "user_id": np.array([1, 2, 3, 4]),
        "surface": np.array(["home", "search", None, "home"], dtype=object),
        "age": np.array([0.0, 1.0, 3.0, np.nan]),
        "rate": np.array([1.0, 2.0, 3.0, 4.0]),
    } | changed


def encoders() -> Encoders:
    return fit(columns(), np.array([1.0, 1.0, 1.0, 3.0]), FEATURES)


def test_splitmix64_gives_the_published_sequence():
    # The first outputs of the generator seeded with 0, whose state advances by the golden gamma each step.
    gamma = 0x9E3779B97F4A7C15
    states = np.array([0, gamma], dtype=np.uint64).view(np.int64)
    assert [hex(v) for v in splitmix64(states).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_moments_are_weighted_and_skip_nulls():
    moments = encoders().moments
    assert moments["rate"].mean == pytest.approx((1 + 2 + 3 + 3 * 4) / 6)
    logs = np.log1p([0.0, 1.0, 3.0])
    assert moments["age"].mean == pytest.approx(logs.mean())
    assert moments["age"].deviation == pytest.approx(logs.std())
    assert (moments["age"].has_nulls, moments["rate"].has_nulls) == (True, False)


def test_numbers_are_standardized_and_nulls_are_zero_with_an_indicator():
    numbers = encoders().encode(columns()).numbers
    logs = np.log1p([0.0, 1.0, 3.0])
    np.testing.assert_allclose(numbers[:3, 0], (logs - logs.mean()) / logs.std(), rtol=1e-6)
    assert numbers[3, 0] == 0.0
    np.testing.assert_array_equal(numbers[:, 2], [0, 0, 0, 1])
    assert numbers.dtype == np.float32


def test_extreme_and_infinite_numbers_stay_bounded():
    numbers = encoders().encode(columns(rate=np.array([1e30, -1e30, np.inf, np.nan]))).numbers
    np.testing.assert_array_equal(numbers[:, 1], [6, -6, 0, 0])


def test_unseen_and_null_values_of_a_vocabulary_are_zero():
    ids = encoders().encode(columns(surface=np.array(["search", "feed", None, "home"], dtype=object))).ids
    assert ids[:, 1].tolist() == [2, 0, 0, 1]


def test_an_integer_vocabulary_reads_the_same_from_integers_floats_and_text():
    tab = FeatureSpec(id=9, name="tab", kind=FeatureKind.VOCABULARY, entity=Entity.CONTEXT)
    fitted = fit({"tab": np.array([10, 9, 9])}, np.ones(3), [tab])
    for same in (np.array([9, 10, 3]), np.array([9.0, 10.0, np.nan]), np.array(["9", "10", None], dtype=object)):
        few = fitted.encode({"tab": same}).ids[:, 0]
        many = fitted.encode({"tab": np.tile(same, 100)}).ids[:3, 0]
        assert few.tolist() == many.tolist() == [2, 1, 0]


def test_null_ids_have_an_id_of_their_own():
    ids = encoders().encode(columns(user_id=np.array([1, None, 3, 4], dtype=object))).ids
    assert ids[1, 0] == 0
    assert (np.delete(ids[:, 0], 1) > 0).all()


@given(arrays(np.int64, st.integers(1, 50)))
def test_every_id_is_below_the_size_of_its_feature(values: np.ndarray):
    fitted = fit({"user_id": values}, np.ones(len(values)), [USER])
    ids = fitted.encode({"user_id": values}).ids[:, 0]
    assert ids.min() >= 1
    assert ids.max() < fitted.sizes[0] == 17


def test_length_one_columns_hold_for_all_rows():
    once = encoders().encode(columns(user_id=np.array([7]), surface=np.array(["home"], dtype=object)))
    repeated = encoders().encode(columns(user_id=np.full(4, 7), surface=np.array(["home"] * 4, dtype=object)))
    np.testing.assert_array_equal(once.ids, repeated.ids)
    np.testing.assert_array_equal(once.numbers, repeated.numbers)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ContractError, match="rate has 3 values"):
        encoders().encode(columns(rate=np.array([1.0, 2.0, 3.0])))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": np.array(["a", "b", "c", "d"], dtype=object)}, "feature rate is numeric"),
        ({"user_id": np.array(["a", "b", "c", "d"], dtype=object)}, "feature user_id is hashed"),
        ({"user_id": np.array([0.5, 1, 2, 3])}, "feature user_id is hashed"),
    ],
)
def test_values_of_a_wrong_type_name_the_feature(changed: dict[str, np.ndarray], message: str):
    with pytest.raises(ContractError, match=message):
        encoders().encode(columns(**changed))


def test_a_numeric_feature_without_any_value_is_refused():
    with pytest.raises(ContractError, match="rate: no training row has a value"):
        fit(columns(rate=np.full(4, np.nan)), np.ones(4), FEATURES)


def test_encoders_read_back_encode_the_same(tmp_path):
    fitted = encoders()
    again = Encoders.read(fitted.write(tmp_path / "encoders.json"))
    np.testing.assert_array_equal(fitted.encode(columns()).ids, again.encode(columns()).ids)
    np.testing.assert_array_equal(fitted.encode(columns()).numbers, again.encode(columns()).numbers)


def test_an_arrow_table_gives_raw_columns_with_its_nulls():
    table = pa.table(
        {"user_id": pa.array([1, None, 3]), "surface": ["a", None, "b"], "age": [1, 2, None], "rate": [0.5, None, 1.0]}
    )
    found = columns_of(table, FEATURES)
    assert found["user_id"].tolist() == [1, None, 3]
    assert np.asarray(found["surface"]).tolist() == ["a", None, "b"]
    assert found["age"].dtype == np.float64
    assert np.isnan(found["rate"][1])
    with pytest.raises(ContractError, match="column rate is missing"):
        columns_of(table.drop_columns(["rate"]), FEATURES)


def test_a_coded_column_means_what_its_values_mean():
    plain = columns()
    values = plain["surface"]
    names = sorted(set(values.tolist()), key=str)
    coded = Coded(np.array([names.index(value) for value in values.tolist()]), names)
    assert np.concatenate([coded, coded[:2]]).tolist() == [*values, *values[:2]]
    np.testing.assert_array_equal(encoders().encode({**plain, "surface": coded}).ids, encoders().encode(plain).ids)


@pytest.mark.parametrize("parts", [1, 7])
def test_encoders_learned_in_parts_are_those_of_all_rows(parts):
    random = np.random.default_rng(3)
    table = pa.table(
        {
            "user_id": random.integers(0, 50, 700),
            "surface": random.choice(np.array(["a", "b", None], dtype=object), 700),
            "age": random.integers(0, 9, 700),
            "rate": pa.array(random.normal(1e6, 1.0, 700), mask=random.random(700) < 0.1),
        }
    )
    weights = random.choice([1.0, 4.0], 700)
    fitting = Fitting(FEATURES)
    for at in range(parts):
        part = slice(at * 700 // parts, (at + 1) * 700 // parts)
        fitting.add(columns_of(table.slice(part.start, part.stop - part.start), FEATURES), weights[part])
    found = fitting.done()
    rate = table["rate"].to_numpy()
    known = ~np.isnan(rate)
    mean = np.average(rate[known], weights=weights[known])
    assert found.vocabularies["surface"] == ("a", "b")
    assert found.moments["rate"].has_nulls
    assert found.moments["rate"].mean == pytest.approx(mean, rel=1e-13)
    deviation = np.sqrt(np.average((rate[known] - mean) ** 2, weights=weights[known]))
    assert found.moments["rate"].deviation == pytest.approx(deviation, rel=1e-7)


@pytest.mark.parametrize(
    ("dtype", "value", "want"),
    [
        ("int32", 2.0**31, np.nan),
        ("int64", 2.5, np.nan),
        ("int64", 3.0, 3.0),
        ("float32", 1e39, np.nan),
        ("float64", 1e39, 1e39),
    ],
)
def test_a_served_number_that_does_not_fit_in_its_type_is_null_as_ingest_made_it(dtype: str, value: float, want: float):
    spec = FeatureSpec(id=1, name="x", kind=FeatureKind.NUMERIC, entity=Entity.ITEM, dtype=DType(dtype))
    np.testing.assert_array_equal(transformed(spec, np.array([value])), [want])


def test_a_served_id_that_does_not_fit_in_its_type_is_null():
    spec = FeatureSpec(id=1, name="x", kind=FeatureKind.HASHED, entity=Entity.ITEM, num_buckets=8, dtype=DType.INT32)
    encoded = fit({"x": np.array([1])}, np.ones(1), (spec,)).encode({"x": np.array([5, 2**31, -(2**31)])})
    assert (encoded.ids[:, 0] > 0).tolist() == [True, False, True]


def test_whole_numbers_beyond_what_a_float_can_say_are_still_read():
    spec = FeatureSpec(id=1, name="x", kind=FeatureKind.NUMERIC, entity=Entity.ITEM, dtype=DType.INT64)
    assert columns_of(pa.table({"x": [2**60 + 1, None]}), (spec,))["x"].tolist()[0] == 2.0**60


def test_without_some_features_the_columns_of_the_others_are_those_of_the_whole():
    whole = encoders()
    encoded = whole.encode(columns())
    for dropped in (["user_id"], ["surface", "rate"], ["age"], []):
        own = whole.without(dropped)
        assert [feature.name for feature in own.features] == [f.name for f in FEATURES if f.name not in dropped]
        ids = [at for at, name in enumerate(("user_id", "surface")) if name not in dropped]
        numbers = [at for at, name in enumerate(("age", "rate", "age")) if name not in dropped]  # the last is age's indicator
        alone = own.encode({name: values for name, values in columns().items() if name not in dropped})
        np.testing.assert_array_equal(alone.ids, encoded.ids[:, ids])
        np.testing.assert_array_equal(alone.numbers, encoded.numbers[:, numbers])
        assert (own.sizes, own.num_numbers) == (tuple(whole.sizes[at] for at in ids), len(numbers))


def test_without_a_feature_nothing_of_it_is_kept():
    own = encoders().without(["surface", "age"])
    assert (own.vocabularies, list(own.moments), own.indicators) == ({}, ["rate"], ())


# --- sequences ----------------------------------------------------------------------------------------------------------

ITEM = FeatureSpec(id=5, name="item_id", kind=FeatureKind.HASHED, entity=Entity.ITEM, num_buckets=16)


def recent(number: int, name: str, length: int) -> FeatureSpec:
    return FeatureSpec(
        id=number, name=name, kind=FeatureKind.SEQUENCE, entity=Entity.USER, of="item_id", label="click", length=length
    )


CLICKS, LIKES = recent(6, "clicks", 3), recent(7, "likes", 2)
WITH_SEQUENCES = (CLICKS, USER, SURFACE, LIKES, ITEM, AGE, RATE)


def with_sequences(**changed: np.ndarray) -> dict[str, np.ndarray]:
    lists = {
        "item_id": np.array([7, 8, 9, 7]),
        "clicks": np.array([[7, 8, 9], [8, 0, 0], [0, 0, 0], [9, 7, 0]]),
        "clicks_age_hours": np.array([[0, 1, 47], [5, -1, -1], [-1, -1, -1], [2, 3, -1]]),
        "likes": np.array([[9, 8], [0, 0], [9, 0], [0, 0]]),
        "likes_age_hours": np.array([[4, 6], [-1, -1], [0, -1], [-1, -1]]),
    }
    return columns(**(lists | changed))


def sequence_encoders() -> Encoders:
    return fit(with_sequences(), np.array([1.0, 1.0, 1.0, 3.0]), WITH_SEQUENCES)


def test_items_of_a_sequence_are_encoded_as_candidates_are_and_ages_as_logarithms():
    fitted = sequence_encoders()
    encoded = fitted.encode(with_sequences())
    clicks, likes = fitted.sequences
    of = dict(zip([7, 8, 9], encoded.ids[:3, 2].tolist(), strict=True))  # item_id is the third categorical feature
    assert clicks.of == likes.of == 2
    ids = encoded.ids[:, clicks.first_id : clicks.first_id + clicks.length]
    assert ids.tolist() == [[of[7], of[8], of[9]], [of[8], 0, 0], [0, 0, 0], [of[9], of[7], 0]]
    ages = encoded.numbers[:, clicks.first_number : clicks.first_number + clicks.length]
    want = np.log1p([[0, 1, 47], [5, 0, 0], [0, 0, 0], [2, 3, 0]])
    np.testing.assert_allclose(ages, want, rtol=1e-6)
    assert encoded.ids[:, likes.first_id :].tolist() == [[of[9], of[8]], [0, 0], [of[9], 0], [0, 0]]


def test_what_stands_before_the_sequences_is_what_it_is_without_them():
    plain = (USER, SURFACE, ITEM, AGE, RATE)
    without = fit(with_sequences(), np.array([1.0, 1.0, 1.0, 3.0]), plain)
    fitted = sequence_encoders()
    assert (fitted.sizes, fitted.num_numbers) == (without.sizes, without.num_numbers) == ((17, 3, 17), 3)
    assert (fitted.widths, without.widths) == ((3 + 5, 3 + 5), (3, 3))
    want, got = without.encode(with_sequences()), fitted.encode(with_sequences())
    np.testing.assert_array_equal(got.ids[:, :3], want.ids)
    np.testing.assert_array_equal(got.numbers[:, :3], want.numbers)


def test_a_users_sequence_may_come_once_and_shorter_than_its_feature():
    once = with_sequences(clicks=np.array([[8, 9]]), clicks_age_hours=np.array([[5, 6]]))
    padded = with_sequences(clicks=np.tile([8, 9, 0], (4, 1)), clicks_age_hours=np.tile([5, 6, -1], (4, 1)))
    nothing = {"clicks": np.empty((1, 0), np.int64), "clicks_age_hours": np.empty((1, 0), np.int64)}
    fitted = sequence_encoders()
    for name in ("ids", "numbers"):
        np.testing.assert_array_equal(getattr(fitted.encode(once), name), getattr(fitted.encode(padded), name))
    place = fitted.sequences[0]
    assert not fitted.encode(with_sequences(**nothing)).ids[:, place.first_id : place.first_id + 3].any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clicks": np.zeros((4, 4), np.int64), "clicks_age_hours": np.zeros((4, 4), np.int64)}, r"items \(4, 4\).* at most 3"),
        ({"clicks": np.zeros((4, 2), np.int64)}, r"items \(4, 2\) and ages \(4, 3\); expected one shape"),
        ({"clicks": np.zeros(4, np.int64)}, r"items \(4,\)"),
        ({"clicks_age_hours": np.zeros((4, 3))}, "int64 items and float64 ages; expected whole numbers"),
        ({"clicks": np.zeros((2, 3), np.int64), "clicks_age_hours": np.zeros((2, 3), np.int64)}, "item_id has 4"),
    ],
)
def test_a_sequence_of_another_shape_is_refused(changed: dict[str, np.ndarray], message: str):
    with pytest.raises(ContractError, match=message):
        sequence_encoders().encode(with_sequences(**changed))


def test_the_lists_of_a_table_become_padded_columns():
    table = pa.table(
        {
            "clicks": pa.array([[7, 8], None, [], [9, 7, 8]], pa.list_(pa.int64())),
            "clicks_age_hours": pa.array([[0, 30], None, [], [1, 2, 3]], pa.list_(pa.int32())),
        }
    )
    table = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    found = columns_of(table, (CLICKS,))
    assert found["clicks"].tolist() == [[7, 8, 0], [0, 0, 0], [0, 0, 0], [9, 7, 8]]
    assert found["clicks_age_hours"].tolist() == [[0, 30, -1], [-1, -1, -1], [-1, -1, -1], [1, 2, 3]]


@pytest.mark.parametrize(
    ("items", "ages", "message"),
    [
        ([[1, 2, 3, 4]], [[1, 2, 3, 4]], "clicks: a list of 4 items, expected at most 3"),
        ([[1, 2]], [[1]], "clicks: some lists have not as many items as ages"),
    ],
)
def test_lists_that_are_no_sequence_are_refused(items: list, ages: list, message: str):
    with pytest.raises(ContractError, match=message):
        columns_of(pa.table({"clicks": items, "clicks_age_hours": ages}), (CLICKS,))


def test_a_sequence_without_the_feature_that_it_is_of_is_refused():
    with pytest.raises(ContractError, match="clicks is of item_id; expected a hashed feature among"):
        fit(with_sequences(), np.ones(4), (CLICKS, USER))


def test_encoders_with_sequences_read_back_encode_the_same(tmp_path):
    fitted = sequence_encoders()
    again = Encoders.read(fitted.write(tmp_path / "encoders.json"))
    np.testing.assert_array_equal(fitted.encode(with_sequences()).ids, again.encode(with_sequences()).ids)
