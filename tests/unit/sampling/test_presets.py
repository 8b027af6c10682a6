"""Presets on counts that one can check by hand."""

from __future__ import annotations

from tidewheel.contracts.sampling import AGE, AllPositives, Balanced, NicheBoost, PlanCap, PlanRule, Range, TrendAdjusted
from tidewheel.sampling.presets import Facts, quantile, resolve_preset

LABELS = ("click", "like")
FACTS = Facts(negatives=900, positives=90, group_sizes={1: 5, 10: 3, 400: 2})
TRAIN_DAYS = range(1, 7)


def negatives(rate: float) -> PlanRule:
    return PlanRule(name="negatives", none_of=LABELS, rate=rate)


def test_all_positives_keeps_a_fixed_share_of_negatives() -> None:
    assert resolve_preset(AllPositives(negative_rate=0.25), LABELS, FACTS, TRAIN_DAYS).rules == (negatives(0.25),)


def test_balanced_keeps_as_many_negatives_as_there_are_positives() -> None:
    assert resolve_preset(Balanced(), LABELS, FACTS, TRAIN_DAYS).rules == (negatives(0.1),)
    assert resolve_preset(Balanced(negatives_per_positive=3), LABELS, FACTS, TRAIN_DAYS).rules == (negatives(0.3),)
    assert resolve_preset(Balanced(), LABELS, FACTS, TRAIN_DAYS).facts == {"negatives": 900, "positives": 90}


def test_balanced_stays_within_its_floor_and_one() -> None:
    for facts, rate in ((Facts(900, 0, {}), 0.001), (Facts(10, 90, {}), 1.0), (Facts(0, 0, {}), 1.0)):
        assert resolve_preset(Balanced(), LABELS, facts, TRAIN_DAYS).rules == (negatives(rate),)


def test_niche_boost_thins_every_value_beyond_the_rarest_half_to_their_size() -> None:
    # Ten items: five have one negative each, so half of them have at most 1; 80% have at most 10.
    half = resolve_preset(NicheBoost(), LABELS, FACTS, TRAIN_DAYS)
    assert half.rules == (negatives(1.0),)
    assert half.caps == (PlanCap(column="item_id", rows=1, rules=("negatives",), min_factor=0.05),)
    more = resolve_preset(NicheBoost(niche_share=0.8, min_rate=0.2), LABELS, FACTS, TRAIN_DAYS)
    assert more.caps == (PlanCap(column="item_id", rows=10, rules=("negatives",), min_factor=0.2),)
    assert more.facts == {"values": 10, "rows_of_niche_value": 10}


def test_quantiles_of_counted_sizes() -> None:
    assert [quantile({1: 5, 10: 3, 400: 2}, share) for share in (0.1, 0.5, 0.51, 0.8, 0.81, 1.0)] == [1, 1, 10, 10, 400, 400]
    assert quantile({}, 0.5) == 0


def test_trend_adjusted_halves_with_age_down_to_its_floor() -> None:
    found = resolve_preset(TrendAdjusted(half_life_days=1, min_rate=0.2), LABELS, FACTS, TRAIN_DAYS).rules
    assert [(rule.name, rule.rate, rule.where.get(AGE)) for rule in found] == [
        ("negatives_of_day_1", 1.0, Range(at_least=1, below=2)),
        ("negatives_of_day_2", 0.5, Range(at_least=2, below=3)),
        ("negatives_of_day_3", 0.25, Range(at_least=3, below=4)),
        ("negatives_of_day_4", 0.2, Range(at_least=4, below=7)),
        ("negatives", 1.0, None),
    ]
    assert {rule.none_of for rule in found} == {LABELS}
