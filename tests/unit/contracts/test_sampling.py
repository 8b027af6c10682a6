from __future__ import annotations

import pytest
from pydantic import ValidationError

from tidewheel.contracts.sampling import Balanced, PlanRule, Range, SampleConfig


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (
            {"never_downsample": ["hate"], "rules": [{"name": "angry", "all_of": ["click", "hate"], "rate": 0.5}]},
            r"rule angry keeps rows of hate with rate 0\.5, but never_downsample has it",
        ),
        (
            {"never_downsample": ["hate"], "rules": [{"name": "loud", "any_of": ["like", "hate"], "rate": 0.5}]},
            r"rule loud keeps rows of hate with rate 0\.5",
        ),
        ({"rules": [{"name": "all", "rate": 0.5}]}, "rule all says nothing about its rows"),
        ({"rules": [{"name": "odd", "all_of": ["click"], "none_of": ["click"], "rate": 0.5}]}, "wants and denies click"),
        ({"rules": [{"name": "odd", "any_of": ["like"], "none_of": ["click", "like"], "rate": 0.5}]}, "no row can meet it"),
        ({"rules": [{"name": "gone", "all_of": ["click"], "rate": 0}]}, r"expected a probability in \(0, 1\]"),
        ({"rules": [{"name": "negatives", "all_of": ["click"], "rate": 1}]}, "name negatives is taken"),
        (
            {"rules": [{"name": name, "all_of": ["click"], "rate": 1} for name in ("one", "one")]},
            "name one is used twice",
        ),
        ({"exclude": [{"name": "bots", "where": {}}]}, "at least 1 item"),
        ({"preset": "balanced", "negative_rate": 0.5}, "preset balanced and negative_rate 0.5 both say"),
        ({"preset": "balance"}, "balanced"),
        ({"caps": [{"column": "user_id", "rows": 5}, {"column": "user_id", "rows": 9}]}, "cap of column user_id is used twice"),
        ({"caps": [{"column": "user_id", "rows": 0}]}, "greater than or equal to 1"),
        ({"rules": [{"name": "r", "where": {"age": {"or_null": True}}, "rate": 0.5}]}, "needs at_least, below or both"),
        ({"rules": [{"name": "r", "where": {"age": {"at_least": 3, "below": 3}}, "rate": 0.5}]}, "no number is between them"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(section: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SampleConfig.model_validate(section)


def test_a_rule_may_repeat_that_a_protected_label_is_kept() -> None:
    rule = {"name": "angry", "all_of": ["hate"], "rate": 1.0}
    assert SampleConfig.model_validate({"never_downsample": ["hate"], "rules": [rule]}).labels == {"hate"}


def test_a_preset_by_its_name_is_the_preset_with_its_defaults() -> None:
    by_name = SampleConfig.model_validate({"preset": "balanced"})
    assert by_name == SampleConfig(preset=Balanced()) == SampleConfig.parse(by_name.to_json(), "recipe")
    changed = SampleConfig.model_validate({"preset": {"kind": "balanced", "negatives_per_positive": 3}})
    assert changed.preset == Balanced(negatives_per_positive=3.0)


def test_a_condition_is_a_list_of_values_or_a_range() -> None:
    where = {"surface": ["feed", None], "tab": [1], "user_tenure_days": {"below": 30, "or_null": True}}
    section = SampleConfig.model_validate({"rules": [{"name": "new", "where": where, "rate": 0.5}]})
    assert section.rules[0].where == {"surface": ("feed", None), "tab": (1,), "user_tenure_days": Range(below=30, or_null=True)}


def test_rates_are_summed_in_millionths() -> None:
    assert [PlanRule(name="r", rate=rate).rate_micro for rate in (0.0, 1e-6, 0.1, 1.0)] == [0, 1, 100_000, 1_000_000]
