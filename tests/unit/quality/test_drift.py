import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ks_2samp

from tidewheel.contracts.evidence import Precision, Profile, Quantiles
from tidewheel.contracts.recipe import ValidateConfig
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.verdict import Phase
from tidewheel.quality.distance import ks_interval, psi, psi_interval
from tidewheel.quality.drift import drift, unknown_features
from tidewheel.quality.profile import profile, profile_on

CONFIG = ValidateConfig(max_psi=0.25, max_label_psi=0.1)
LEVEL = 0.001


def histogram(shares, rate=0.5, rows=100_000.0):
    return Profile(
        numeric_edges={},
        categorical_values={"tab": tuple("abcdefgh"[: len(shares) - 2])},
        shares={"tab": tuple(shares)},
        label_rates={"click": rate},
        rows=int(rows),
        effective_rows=rows,
    )


def judged(new, baseline, config=CONFIG, level=LEVEL):
    reasons, comparisons = drift(new, baseline, config, level)
    assert [reason.check for reason in reasons] == [comparison.check for comparison in comparisons]
    return reasons


def by_check(reasons):
    return {reason.check: reason for reason in reasons}


def test_the_index_is_the_textbook_sum():
    expected = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert psi((0.6, 0.4), (0.5, 0.5), 1e9, 1e9) == pytest.approx(expected, rel=1e-6)


def test_a_bin_that_is_empty_on_one_side_is_far_and_finite():
    assert 0.5 < psi((0.9, 0.1), (1.0, 0.0), 1000, 1000) < 10


def test_the_same_shares_pass_and_say_their_number():
    reason = by_check(judged(histogram((0.5, 0.5, 0, 0)), histogram((0.5, 0.5, 0, 0))))["drift tab"]
    assert reason.phase is Phase.SUCCESSFUL
    # By chance the index of 2 bins reaches (1/n + 1/m) z^2, z = 3.29 the normal quantile of 1 - 0.001 / 2; here 0.0002.
    assert reason.message == "drift tab: psi 0.0000 <= 0.25 [0.0000, 0.0000], 100,000 effective rows"


def test_a_moved_feature_fails_with_its_index_and_limit():
    reason = by_check(judged(histogram((0.9, 0.1, 0, 0)), histogram((0.5, 0.5, 0, 0))))["drift tab"]
    assert reason.phase is Phase.FAILED
    assert reason.value == pytest.approx(0.4 * math.log(1.8) - 0.4 * math.log(0.2), rel=1e-3)
    assert reason.limit == 0.25


def test_a_feature_whose_drift_is_expected_is_reported_and_never_fails():
    config = CONFIG.model_copy(update={"unchecked_drift": ("tab",)})
    reason = by_check(judged(histogram((0.9, 0.1, 0, 0)), histogram((0.5, 0.5, 0, 0)), config))["drift tab"]
    assert reason.phase is Phase.SUCCESSFUL
    assert "reported only" in reason.message
    assert reason.value > 0.25


def test_a_label_rate_that_halves_fails():
    old, new = histogram((1, 0, 0), rate=0.4), histogram((1, 0, 0), rate=0.1)
    reason = by_check(judged(new, old))["drift label click"]
    assert reason.phase is Phase.FAILED
    assert "(rate 0.1000, was 0.4000)" in reason.message


def test_a_feature_or_label_that_vanished_fails():
    gone = histogram((1, 0, 0)).model_copy(update={"shares": {}, "label_rates": {}})
    assert {reason.phase for reason in judged(gone, histogram((1, 0, 0)))} == {Phase.FAILED}


def test_a_feature_that_production_does_not_know_is_reported_not_failed():
    (reason,) = unknown_features(histogram((1, 0, 0)), ["tab", "hour"])
    assert (reason.check, reason.phase) == ("drift hour", Phase.SUCCESSFUL)


def test_too_few_rows_to_tell_drift_from_chance_is_inconclusive_not_a_pass():
    old, new = histogram((0.25,) * 4, rows=30.0), histogram((0.55, 0.2, 0.15, 0.1), rows=30.0)
    assert by_check(judged(new, old))["drift tab"].phase is Phase.INCONCLUSIVE


INDEPENDENT = Precision(effective_rows=3000.0, degrees=6.0)
SHARES = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.06, 0.04])


def test_without_drift_the_lower_bound_leaves_zero_as_often_as_asked_for():
    """Independent rows: once in 1 / level; the tolerance is four binomial deviations."""
    generator, rounds, level = np.random.default_rng(3), 4000, 0.01
    first, second = (generator.multinomial(3000, SHARES, rounds) / 3000 for _ in range(2))
    left = sum(psi_interval(a, b, INDEPENDENT, INDEPENDENT, level).lower > 0 for a, b in zip(first, second, strict=True))
    assert abs(left - rounds * level) <= 4 * math.sqrt(rounds * level)


def test_with_drift_the_interval_holds_the_true_index():
    """Each bound fails once in 1 / level; the tolerance is four binomial deviations."""
    generator, rounds, level = np.random.default_rng(4), 2000, 0.025
    moved = SHARES[::-1]
    true = float(np.sum((moved - SHARES) * np.log(moved / SHARES)))
    new, old = generator.multinomial(3000, moved, rounds) / 3000, generator.multinomial(3000, SHARES, rounds) / 3000
    found = [psi_interval(a, b, INDEPENDENT, INDEPENDENT, level) for a, b in zip(new, old, strict=True)]
    at_most = rounds * level + 4 * math.sqrt(rounds * level)
    # An index of 0.9 is beyond the small distances that the approximation is made for: the bounds may only be too wide there.
    assert sum(interval.lower > true for interval in found) <= at_most
    assert sum(interval.upper < true for interval in found) <= at_most


def test_the_distance_of_distribution_functions_is_scipys_where_both_are_looked_at_everywhere():
    generator = np.random.default_rng(5)
    first, second = np.round(generator.normal(0, 1, 500), 1), np.round(generator.normal(0.3, 1, 400), 1)
    points = np.unique(np.concatenate([first, second]))

    def distribution(values):
        below = [float((values < point).mean()) for point in points]
        return Quantiles(points=points.tolist(), cumulative=below, effective_rows=len(values))

    found = ks_interval(distribution(first), distribution(second), 0.01)
    assert found.value == pytest.approx(ks_2samp(first, second).statistic)
    assert found.value - found.lower == pytest.approx(math.sqrt(math.log(200) / 2 * (1 / 500 + 1 / 400)))


def test_weights_count_as_rows_in_the_distribution_function():
    """A row of weight 3 is three rows."""
    spec = FeatureSpec(id=1, name="x", kind=FeatureKind.NUMERIC, entity=Entity.ITEM)
    values, weight = np.arange(200) % 37, np.arange(200) % 3 + 1
    short = pa.table({"x": values.astype(float), "weight": weight.astype(float)})
    long = pa.table({"x": np.repeat(values, weight).astype(float)})
    old = profile(long, [spec], [])
    assert profile_on(short, old, []).quantiles["x"].cumulative == pytest.approx(old.quantiles["x"].cumulative)


def test_few_users_are_few_rows_however_often_they_come():
    """Below the floor nothing is judged: 40 users with 500 rows each say as much about users as 40 rows."""
    generator = np.random.default_rng(6)

    def log():
        user = np.repeat(generator.integers(0, 2**40, 40), 500)
        return pa.table({"user_id": user, "tab": np.repeat(generator.choice(["a", "b", "c"], 40), 500)})

    spec = FeatureSpec(id=1, name="tab", kind=FeatureKind.VOCABULARY, entity=Entity.USER)
    baseline = profile(log(), [spec], [])
    assert 30 < baseline.precision["tab"].effective_rows < 50
    (reason,) = judged(profile_on(log(), baseline, []), baseline)
    assert reason.phase is Phase.INCONCLUSIVE
    assert "too few to judge" in reason.message


def test_two_samples_of_one_log_do_not_drift_and_a_shifted_one_does():
    generator = np.random.default_rng(0)
    spec = FeatureSpec(id=1, name="x", kind=FeatureKind.NUMERIC, entity=Entity.ITEM)

    def sample(shift):
        return pa.table({"x": generator.normal(shift, 1, 5000), "weight": generator.uniform(0.5, 4, 5000)})

    baseline = profile(sample(0.0), [spec], [])
    same = judged(profile_on(sample(0.0), baseline, []), baseline)
    moved = judged(profile_on(sample(1.0), baseline, []), baseline)
    assert {reason.check: reason.phase for reason in same} == dict.fromkeys(("drift x", "drift x ks"), Phase.SUCCESSFUL)
    assert {reason.check: reason.phase for reason in moved} == dict.fromkeys(("drift x", "drift x ks"), Phase.FAILED)
