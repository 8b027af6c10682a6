"""What may become of registered features: one life an id, whatever is asked for in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schema import DTYPES, FeatureKind, FeatureSpec, active, feature_digest
from tidewheel.contracts.schema_changes import plan


def feature(number: int, name: str, kind: str = "numeric", entity: str = "user", **more: object) -> FeatureSpec:
    of_kind: dict[str, dict[str, object]] = {"hashed": {"num_buckets": 64}, "sequence": {"of": "item_id", "length": 20}}
    buckets = of_kind.get(kind, {})
    return FeatureSpec.model_validate({"id": number, "name": name, "kind": kind, "entity": entity} | buckets | more)


def changed(before: FeatureSpec, **more: object) -> FeatureSpec:
    return FeatureSpec.model_validate(before.model_dump() | more)


USER = feature(1, "user_id", "hashed", dtype="int32")
PRICE = feature(2, "price", dtype="float32")
TAG = feature(3, "tag", "vocabulary", entity="item")
OLD = feature(4, "old", "vocabulary", deprecated=True)
REGISTERED = (USER, PRICE, TAG, OLD)


def without(*gone: FeatureSpec) -> tuple[FeatureSpec, ...]:
    return tuple(f for f in REGISTERED if f not in gone)


@pytest.mark.parametrize(
    ("wanted", "want"),
    [
        (REGISTERED, []),
        (without(OLD), []),  # a deprecated feature may leave the recipe
        ((*REGISTERED, feature(9, "new")), [("added", 9)]),
        ((*REGISTERED, feature(9, "new", deprecated=True)), [("added", 9)]),
        ((*without(TAG), changed(TAG, deprecated=True)), [("deprecated", 3)]),
        ((*without(PRICE), changed(PRICE, dtype="float64")), [("widened", 2)]),
        ((*without(USER), changed(USER, dtype="int64")), [("widened", 1)]),
        ((*without(PRICE), changed(PRICE, dtype="float64", deprecated=True)), [("widened", 2), ("deprecated", 2)]),
        # the remedy for a change of meaning: the old id is deprecated, the column goes on under a new one
        (
            (*without(USER), changed(USER, deprecated=True), changed(USER, id=9, num_buckets=8)),
            [("deprecated", 1), ("added", 9)],
        ),
        ((*REGISTERED, feature(9, "old", "vocabulary")), [("added", 9)]),  # and the way back for a deprecated one
    ],
)  # fmt: skip
def test_additive_changes_are_accepted(wanted: tuple[FeatureSpec, ...], want: list[tuple[str, int]]) -> None:
    found = plan(REGISTERED, wanted)

    assert [(change.kind.value, change.id) for change in found.changes] == want
    assert not found.refused
    assert {f.id: f for f in found.features} == {f.id: f for f in REGISTERED} | {f.id: f for f in wanted}


@pytest.mark.parametrize(
    ("wanted", "number", "words"),
    [
        ((*without(TAG), changed(TAG, name="brand")), 3, ("id 3 belongs to tag", "give brand a new id: next free is 5")),
        ((*without(OLD), feature(4, "brand", "vocabulary")), 4, ("id 4 belongs to old", "next free is 5")),
        ((*REGISTERED, feature(9, "price")), 9, ("price has id 2, found 9", "write id 2")),
        ((*without(TAG), changed(TAG, entity="user")), 3, ("entity item to user", "deprecated: true", "next free is 5")),
        ((*without(USER), changed(USER, num_buckets=65)), 1, ("num_buckets 64 to 65", "something else", "next free is 5")),
        ((*without(PRICE), changed(PRICE, transform="log1p")), 2, ("transform identity to log1p", "next free is 5")),
        ((*without(TAG), feature(3, "tag", dtype="float64", entity="item")), 3, ("kind vocabulary to numeric",)),
        ((*without(PRICE), changed(PRICE, dtype="int64")), 2, ("float32 to int64", "not wider", "keep float32")),
        ((*without(TAG), changed(TAG, dtype="int64")), 3, ("string to int64", "not wider")),
        (without(TAG), 3, ("tag (id 3) is registered and not in the recipe", "deprecated: true")),
        ((*without(OLD), changed(OLD, deprecated=False)), 4, ("was deprecated as id 4", "give old a new id: next free is 5")),
        # production may still read this column, as text
        ((*REGISTERED, feature(9, "old", dtype="int64")), 9, ("column old was string as id 4, found int64", "dtype: string")),
        # hashed ids of production cannot be read from fractions
        (
            (*without(USER), changed(USER, deprecated=True), feature(9, "user_id", dtype="float64")),
            9,
            ("column user_id was int32 as id 1, found float64",),
        ),
    ],
)  # fmt: skip
def test_other_changes_are_refused_with_the_reason_and_the_remedy(
    wanted: tuple[FeatureSpec, ...], number: int, words: tuple[str, ...]
) -> None:
    found = plan(REGISTERED, wanted)

    assert [change.id for change in found.refused] == [number]
    assert [word for word in words if word not in found.refused[0].reason] == []
    assert found.features == REGISTERED


ITEM = feature(5, "item_id", "hashed", entity="item")
CLICKS = feature(6, "clicks", "sequence", label="click")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ((ITEM, changed(CLICKS, length=50)), ("length 20 to 50", "next free is 7")),
        ((ITEM, changed(CLICKS, label="like")), ("label click to like",)),
        ((ITEM, changed(CLICKS, of="author_id")), ("of item_id to author_id",)),
        # its embedding would be that of another feature, though nothing on its own line changed
        (
            (changed(ITEM, deprecated=True), changed(ITEM, id=9, num_buckets=8), CLICKS),
            ("clicks is of item_id, which had id 5, found id 9", "deprecated: true", "next free is 10"),
        ),
    ],
)  # fmt: skip
def test_what_a_sequence_is_made_of_never_changes(wanted: tuple[FeatureSpec, ...], words: tuple[str, ...]) -> None:
    found = plan((ITEM, CLICKS), wanted)

    assert [change.id for change in found.refused] == [6]
    assert [word for word in words if word not in found.refused[0].reason] == []


def test_a_sequence_may_follow_its_feature_under_a_new_id_of_its_own() -> None:
    wanted = (
        changed(ITEM, deprecated=True),
        changed(ITEM, id=9, num_buckets=8),
        changed(CLICKS, deprecated=True),
        changed(CLICKS, id=10),
    )

    assert not plan((ITEM, CLICKS), wanted).refused


def test_two_refusals_are_never_told_the_same_free_id() -> None:
    wanted = (changed(USER, num_buckets=65), changed(PRICE, transform="log1p"), TAG, feature(7, "new"))
    found = plan(REGISTERED, wanted)

    assert [change.reason.split("next free is ")[1] for change in found.refused] == ["8", "9"]
    assert found.explain_refusal().endswith("(and 1 more, see tidewheel schema plan)")


NAMES, NUMBERS = ("a", "b", "c"), (1, 2, 3, 4)


@st.composite
def recipes(draw: st.DrawFn) -> tuple[FeatureSpec, ...]:
    """Feature lists as the recipe contract allows them: an id once, a name once among the active ones."""
    chosen: list[FeatureSpec] = []
    for number in draw(st.lists(st.sampled_from(NUMBERS), unique=True, max_size=4)):
        kind = draw(st.sampled_from(FeatureKind))
        spec = feature(
            number,
            draw(st.sampled_from(NAMES)),
            kind.value,
            dtype=draw(st.sampled_from(DTYPES[kind])),
            deprecated=draw(st.booleans()),
            **({"of": draw(st.sampled_from(NAMES))} if kind is FeatureKind.SEQUENCE else {}),
        )
        if spec.deprecated or all(other.deprecated or other.name != spec.name for other in chosen):
            chosen.append(spec)
    return tuple(chosen)


def meaning(spec: FeatureSpec) -> tuple[object, ...]:
    return spec.name, spec.kind, spec.entity, spec.num_buckets, spec.transform, spec.of, spec.label, spec.length


@given(st.lists(recipes(), max_size=12))
def test_whatever_is_asked_for_an_id_has_one_life(asked: list[tuple[FeatureSpec, ...]]) -> None:
    registered: tuple[FeatureSpec, ...] = ()
    for wanted in asked:
        found = plan(registered, wanted)
        after = {f.id: f for f in found.features}
        for before in registered:
            assert meaning(after[before.id]) == meaning(before)
            assert after[before.id].deprecated or not before.deprecated
        if not found.refused:
            assert set(active(wanted)) == set(active(found.features))
            assert not plan(found.features, wanted).changes  # applied, it is what was wanted
        registered = found.features
        names = [f.name for f in active(registered)]
        assert len(names) == len(set(names))


@given(recipes(), recipes(), recipes())
def test_types_only_widen_along_any_history(
    first: tuple[FeatureSpec, ...], second: tuple[FeatureSpec, ...], third: tuple[FeatureSpec, ...]
) -> None:
    held = {"int32": 31, "int64": 63, "float32": 127, "float64": 1023, "string": 0}  # largest exponent of two
    registered: tuple[FeatureSpec, ...] = ()
    for wanted in (first, second, third):
        found = plan(registered, wanted)
        after = {f.id: f for f in found.features}
        assert all(held[after[before.id].dtype] >= held[before.dtype] for before in registered)
        registered = found.features


@pytest.mark.parametrize(
    ("kind", "want", "refused"),
    [("hashed", "int64", "string"), ("vocabulary", "string", "float64"), ("numeric", "float64", "string")],
)
def test_a_kind_has_a_type_of_its_own_and_refuses_others(kind: str, want: str, refused: str) -> None:
    assert feature(1, "x", kind).dtype == want
    with pytest.raises(ValidationError, match=f"feature x is {kind} and {refused}; expected dtype {want}"):
        feature(1, "x", kind, dtype=refused)


def test_the_digest_is_of_the_active_features_in_any_order() -> None:
    assert feature_digest(REGISTERED) == feature_digest((TAG, USER, PRICE))
    assert feature_digest(REGISTERED) != feature_digest((TAG, USER))
    assert feature_digest((PRICE,)) != feature_digest((changed(PRICE, dtype="float64"),))


def test_the_digests_of_feature_sets_without_sequences_are_what_bundles_from_before_them_carry() -> None:
    assert feature_digest(REGISTERED) == "74242d4ee2e29de74e54ab1b4ad7bc24a9f5a06d1944e483c050c7bed885ef6b"
    assert not {"of", "label", "length"} & set(USER.model_dump())
    assert FeatureSpec.model_validate(CLICKS.model_dump()) == CLICKS


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"length": 0}, "length 0; expected entity user, of a hashed feature, and a length of at least 1"),
        ({"of": ""}, "of '', length 20; expected"),
        ({"entity": "item"}, "clicks is a sequence of entity item"),
        ({"kind": "hashed", "num_buckets": 8}, "clicks is hashed; of, label, length belongs to sequences"),
    ],
)
def test_a_sequence_says_what_it_is_of_and_how_long(more: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FeatureSpec.model_validate(CLICKS.model_dump() | more)


def test_a_recipe_refuses_a_sequence_of_what_it_does_not_have(quickstart: Recipe) -> None:
    for more, message in (
        ({"label": "buy"}, "features.clicks names buy; expected labels of this recipe: click"),
        ({"of": "user_id"}, "features.clicks is of user_id; expected a hashed feature of entity item .*: author_id, item_id"),
    ):
        with pytest.raises(ValidationError, match=message):
            with_features(quickstart, *quickstart.features, changed(CLICKS, id=99, **more))


def with_features(recipe: Recipe, *features: FeatureSpec) -> Recipe:
    return Recipe.model_validate(recipe.model_dump(by_alias=True) | {"features": [f.model_dump() for f in features]})


def test_a_recipe_gives_steps_its_active_features_and_may_name_a_column_twice_once_it_is_deprecated(quickstart: Recipe) -> None:
    first, *others = quickstart.features
    old, new = changed(first, deprecated=True), changed(first, id=99, num_buckets=16)
    recipe = with_features(quickstart, old, *others, new)

    assert recipe.active_features == (*others, new)
    assert recipe.features[0] == old
    with pytest.raises(ValidationError, match=f"feature name given twice: {first.name}"):
        with_features(quickstart, *quickstart.features, new)
    with pytest.raises(ValidationError, match="every feature is deprecated"):
        with_features(quickstart, old)
