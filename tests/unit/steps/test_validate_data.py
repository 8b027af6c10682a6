"""What the step compares the data with: production's rows, and earlier windows."""

import datetime as dt

import pytest

from tidewheel.contracts.evidence import Profile, WindowRecord
from tidewheel.contracts.recipe import LabelConfig, ValidateConfig
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.steps import ValidatePart
from tidewheel.contracts.teacher import TeacherRules
from tidewheel.contracts.window import Window
from tidewheel.errors import ContractError
from tidewheel.ranker import OpenBundle
from tidewheel.steps.validate_data import profile_of, record_name, trailing_windows
from tidewheel.store import Store

START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
PART = ValidatePart(
    releases=2,
    recipe="shop",
    labels=(LabelConfig(name="click"),),
    features=(FeatureSpec(id=1, name="tab", kind=FeatureKind.VOCABULARY, entity=Entity.CONTEXT),),
    validate_data=ValidateConfig(trailing_windows=3),
    teaching=TeacherRules(enabled=False),
)


def window(day, hours=0):
    return Window.ending(START + dt.timedelta(days=day, hours=hours), 2)


def keep(store, window, recipe="shop"):
    record = WindowRecord(window=window, rows=1, weight_sum=1.0, label_rates={}, label_precision={}, newest=None)
    store.put(record_name(recipe, window), record.to_json())


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def ends(store, day):
    return [(record.window.end - START).days for record in trailing_windows(store, PART, window(day))]


def test_the_last_windows_that_end_before_this_one_oldest_first(store):
    for day in (5, 1, 3, 2, 4, 8):
        keep(store, window(day))
    assert ends(store, 5) == [2, 3, 4]
    assert ends(store, 9) == [4, 5, 8]


def test_a_rerun_is_not_judged_by_itself_nor_by_what_came_later(store):
    for day in (1, 2):
        keep(store, window(day))
    assert ends(store, 1) == []


def test_another_recipes_windows_do_not_count(store):
    keep(store, window(1), recipe="other")
    assert ends(store, 5) == []


def test_windows_that_end_within_a_day_have_records_of_their_own(store):
    keep(store, window(1))
    keep(store, window(1, hours=6))
    assert len(trailing_windows(store, PART, window(2))) == 2


def test_a_damaged_record_is_named(store):
    store.put(record_name("shop", window(1)), "{")
    with pytest.raises(ContractError, match=r"windows/shop/2026-01-06\.json"):
        ends(store, 5)


def test_a_feature_that_is_no_longer_used_is_not_compared_with_production(tiny_bundle: OpenBundle, tmp_path) -> None:
    known = Profile(
        numeric_edges={"price": (1.0,), "old_price": (2.0,)},
        categorical_values={"tag": ("x",), "old_tag": ("y",)},
        shares={"price": (0.5, 0.5, 0.0), "old_price": (1.0, 0.0, 0.0), "tag": (1.0, 0.0, 0.0), "old_tag": (1.0, 0.0, 0.0)},
        label_rates={"click": 0.3},
        rows=10,
        effective_rows=10.0,
    )
    known.write(tmp_path / tiny_bundle.manifest.profile)
    production = OpenBundle(tmp_path, tiny_bundle.manifest, tiny_bundle.digest)
    used = tuple(
        FeatureSpec.model_validate({"id": number, "name": name, "kind": kind, "entity": "item"})
        for number, (name, kind) in enumerate({"price": "numeric", "tag": "vocabulary"}.items(), start=1)
    )

    found = profile_of(production, used)

    assert set(found.shares) == {"price", "tag"}
    assert (set(found.numeric_edges), set(found.categorical_values)) == ({"price"}, {"tag"})
    assert found.label_rates == known.label_rates
