"""The promise of `false_alarm_rate`, on logs whose rows come in users and whose rows are a sample."""

import math

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.quality.hybrid_log import FEATURES, LABELS, hybrid_log, unweighted
from tidewheel.contracts.recipe import ValidateConfig
from tidewheel.contracts.verdict import Phase
from tidewheel.quality.profile import profile, profile_on
from tidewheel.quality.validate import against_production

SEEDS = 500
RATE = 0.05
AT_MOST = SEEDS * RATE + 3 * math.sqrt(SEEDS * RATE * (1 - RATE))  # three binomial deviations
DEFAULTS = ValidateConfig()
# Limits that any true difference breaks: only the intervals stand between noise and an alarm.
NOTHING_ALLOWED = ValidateConfig(
    false_alarm_rate=RATE, max_psi=1e-9, max_label_psi=1e-9, max_ks=1e-9, max_calibration_error=1e-9, max_ece=1e-9
)


def reasons(old, new, config):
    """All comparisons of a run whose production knows the true probabilities."""
    baseline = profile(old, FEATURES, LABELS)
    scores = {name: new[f"p_{name}"].to_numpy() for name in LABELS}
    found, comparisons = against_production(profile_on(new, baseline, LABELS), baseline, new, scores, LABELS, config)
    assert len(found) == len(comparisons) == 5 + 3 + 2 + 4
    return found


def alarms(old, new, config):
    return [reason.check for reason in reasons(old, new, config) if reason.phase is Phase.FAILED]


def pair(seed, **changes):
    return hybrid_log(2 * seed), hybrid_log(2 * seed + 1, **changes)


@pytest.mark.slow
def test_with_unchanged_data_a_run_is_stopped_no_more_often_than_stated_however_small_the_limits():
    stopped = sum(bool(alarms(*pair(seed), NOTHING_ALLOWED)) for seed in range(SEEDS))

    assert stopped <= AT_MOST


@pytest.mark.slow
def test_with_unchanged_data_the_default_limits_let_every_comparison_pass():
    """Anything but Successful stops a run: also an Inconclusive one is an alarm. At most the default rate, 1%."""
    phases = [[reason.phase for reason in reasons(*pair(seed), DEFAULTS)] for seed in range(SEEDS)]

    stopped = sum(set(found) != {Phase.SUCCESSFUL} for found in phases)
    assert stopped <= SEEDS * 0.01 + 3 * math.sqrt(SEEDS * 0.01 * 0.99)


def test_rows_taken_for_independent_users_raise_the_alarm_most_of_the_time():
    """What the clustering is for: the same logs, each row a user of its own."""

    def of_strangers(table):
        return table.set_column(0, "user_id", pa.array(np.arange(table.num_rows)))

    rounds = 40
    blind = sum(bool(alarms(*map(of_strangers, pair(seed)), NOTHING_ALLOWED)) for seed in range(rounds))
    aware = sum(bool(alarms(*pair(seed), NOTHING_ALLOWED)) for seed in range(rounds))

    assert aware <= 3
    assert blind >= rounds / 2


def test_another_logging_rate_is_drift_to_who_counts_rows_and_none_to_who_weighs_them():
    """The population is the same; the log keeps a twentieth of the unengaged impressions where it kept half."""
    old, new = hybrid_log(1, negative_rate=0.5, impressions=40_000), hybrid_log(2, negative_rate=0.05, impressions=40_000)

    assert alarms(old, new, DEFAULTS) == []
    assert "drift label click" in alarms(unweighted(old), unweighted(new), DEFAULTS)


def test_drift_that_a_logging_rate_hides_is_seen_only_with_weights():
    """Users click more than they did; the log now keeps more of the rest, so the share of clicks among its rows stays."""
    old = hybrid_log(1, negative_rate=0.2, impressions=40_000)
    new = hybrid_log(2, negative_rate=0.65, impressions=40_000, affinity=1.2)

    assert {"drift label click", "drift affinity"} <= set(alarms(old, new, DEFAULTS))
    assert "drift label click" not in alarms(unweighted(old), unweighted(new), DEFAULTS)


def test_probabilities_that_are_true_on_the_population_look_wrong_to_who_counts_rows():
    log = hybrid_log(3, negative_rate=0.1, impressions=40_000)

    def calibration(table):
        return {r.check: r.phase for r in reasons(table, table, DEFAULTS) if r.check.startswith("calibration")}

    assert set(calibration(log).values()) == {Phase.SUCCESSFUL}
    assert calibration(unweighted(log))["calibration click"] is Phase.FAILED


def test_a_real_shift_is_found_with_the_default_limits():
    assert "drift affinity" in alarms(*pair(7, affinity=0.8), DEFAULTS)
