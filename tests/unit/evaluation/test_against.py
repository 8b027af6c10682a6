"""Gates beside production and earlier releases, each limit by itself."""

from __future__ import annotations

import pytest

from tidewheel.contracts.comparison import KENDALL_TAU, Estimate, Replay, Support
from tidewheel.contracts.evaluation import Claim, ClaimKind, EvaluateConfig
from tidewheel.contracts.verdict import Phase, Severity, combine
from tidewheel.evaluation.against import against_releases, replayed, stability, tightened
from tidewheel.evaluation.gates import Evidence, LabelEvidence, judge

CONFIG = EvaluateConfig(max_replay_drop=0.05, min_auc={"click": 0.7})
NOT_WORSE = Claim(metric="auc", margin=0.01)


def estimate(lower, upper, rows=1000.0):
    return Estimate(value=(lower + upper) / 2, lower=lower, upper=upper, effective_rows=rows)


def support(**changes):
    usual = {"effective_rows": 900.0, "reached": 0.4, "mean_weight": 1.0, "largest_share": 0.01, "smallest_propensity": 0.04}
    return Support(**(usual | changes))


def replay(lower, upper, earned=0.2, judged_by="snips", **changes):
    return Replay(
        requests=300,
        rows=2400,
        top=3,
        judged_by=judged_by,
        values={"production": {judged_by: estimate(earned, earned)}},
        differences={judged_by: estimate(lower, upper)},
        support={"student": support(**changes), "production": support()},
    )


@pytest.mark.parametrize(
    ("found", "want_phase", "want_words"),
    [
        (replay(-0.009, 0.02), Phase.SUCCESSFUL, "[-0.0090, +0.0200] is above -0.0100"),
        (replay(-0.03, -0.011), Phase.FAILED, "[-0.0300, -0.0110] is not above -0.0100"),
        (replay(-0.03, 0.01), Phase.INCONCLUSIVE, "neither proven nor disproven to be above -0.0100"),
        (replay(-0.03, 0.01, judged_by="engaged_above"), Phase.INCONCLUSIVE, "neither proven nor disproven"),
        (None, Phase.INCONCLUSIVE, "evaluate.replay: reported lets students pass without"),
        (replay(0.0, 0.1, effective_rows=99.0), Phase.INCONCLUSIVE, "99 effective rows speak about student < 100"),
        (replay(0.0, 0.1, largest_share=0.2), Phase.INCONCLUSIVE, "one row has 20% of the weight of student > 10%"),
        (replay(0.0, 0.1, smallest_propensity=1e-7), Phase.INCONCLUSIVE, "a propensity of 1e-07 < 1e-06"),
        (replay(0.0, 0.1, earned=0.0), Phase.INCONCLUSIVE, "production's picks earned nothing"),
    ],
)
def test_replay_is_proven_refuted_or_open(found, want_phase, want_words):
    reason = replayed("click", found, CONFIG)
    assert reason.phase is want_phase
    assert want_words in reason.message


def test_a_replay_in_which_everything_is_picked_says_nothing():
    both = {model: support(reached=1.0) for model in ("student", "production")}
    reason = replayed("click", replay(0.0, 0.0).model_copy(update={"support": both}), CONFIG)
    assert reason.phase is Phase.INCONCLUSIVE
    assert "no more than evaluate.top = 3 rows" in reason.message


def test_small_losses_do_not_add_up_over_releases():
    """Not worse than the last release, and worse than the one before it."""
    releases = {"a" * 64: {"auc": estimate(-0.004, 0.002)}, "b" * 64: {"auc": estimate(-0.03, -0.012)}}
    reason = against_releases("click", NOT_WORSE, releases)
    assert reason.phase is Phase.FAILED
    assert "auc click vs the last 3 releases: [-0.0300, -0.0120] is not above -0.0100" in reason.message
    assert f"tidewheel rollback --to {'b' * 12}" in reason.message
    fine = against_releases("click", NOT_WORSE, {"a" * 64: releases["a" * 64]})
    assert (fine.phase, fine.value) == (Phase.SUCCESSFUL, -0.004)


def test_the_release_that_is_closest_to_its_margin_is_named_for_losses_too():
    claim = Claim(metric="logloss", margin=0.02)
    reason = against_releases(
        "click", claim, {"a" * 64: {"logloss": estimate(-0.01, 0.001)}, "b" * 64: {"logloss": estimate(-0.01, 0.015)}}
    )
    assert (reason.phase, reason.value) == (Phase.SUCCESSFUL, 0.015)
    assert "closest: bbbb" in reason.message


def test_a_reordering_has_to_be_explained_by_a_proven_gain():
    reordered = {KENDALL_TAU: estimate(0.1, 0.2)}
    assert stability("click", {KENDALL_TAU: estimate(0.25, 0.35)}, {}, 0.3).phase is Phase.SUCCESSFUL
    unexplained = stability("click", reordered, {"auc": estimate(-0.001, 0.01)}, 0.3)
    assert unexplained.phase is Phase.FAILED
    assert "no gain is proven that would explain it" in unexplained.message
    explained = stability("click", reordered, {"auc": estimate(-0.001, 0.01), "request_auc": estimate(0.002, 0.01)}, 0.3)
    assert explained.phase is Phase.SUCCESSFUL
    assert "request_auc by +0.0020 or more" in explained.message


def test_requests_of_one_row_are_never_reordered_and_an_unknown_agreement_is_none():
    unknown = Estimate(value=None, lower=None, upper=None, effective_rows=10)
    assert stability("click", {}, {}, 0.3).phase is Phase.SUCCESSFUL
    assert stability("click", {KENDALL_TAU: unknown}, {}, 0.3).phase is Phase.INCONCLUSIVE


def evidence(**changes):
    found = {"auc": estimate(0.705, 0.72), "calibration_ratio": estimate(0.92, 0.94), "ece": estimate(0.03, 0.04)}
    label = LabelEvidence(
        label="click",
        is_gated=True,
        positives=500,
        negatives=5000,
        candidate=found,
        difference={"auc": estimate(0.0, 0.01), "logloss": estimate(-0.01, 0.0)},
        replay=replay(0.0, 0.01),
        stability={KENDALL_TAU: estimate(0.7, 0.8)},
    )
    usual = {"rows": 5500, "users": 900, "has_production": True, "labels": (label,)}
    return Evidence(**(usual | changes))


def test_a_baseline_that_cannot_be_measured_is_a_warning_and_tightens_what_the_candidate_shows_alone():
    assert combine(judge(evidence(), CONFIG)).phase is Phase.SUCCESSFUL
    reasons = judge(evidence(incompatible="production takes price, which these rows cannot give"), CONFIG)
    warning = next(reason for reason in reasons if reason.check == "baseline")
    assert warning.severity is Severity.WARNING
    assert "BASELINE_INCOMPATIBLE: production takes price" in warning.message
    by_check = {reason.check: reason for reason in reasons}
    assert by_check["auc click"].phase is Phase.INCONCLUSIVE  # 0.7 + 0.01 lies within [0.705, 0.72]
    assert by_check["calibration click"].phase is Phase.FAILED  # off by 0.06, more than a half of 0.1
    assert by_check["ece click"].phase is Phase.FAILED  # 0.03, more than a half of 0.05
    assert combine(reasons).phase is Phase.FAILED


def test_a_baseline_that_cannot_be_measured_is_no_permanent_block():
    label = evidence().labels[0]
    good = {"auc": estimate(0.72, 0.74), "calibration_ratio": estimate(0.98, 1.02), "ece": estimate(0.0, 0.01)}
    better = LabelEvidence(**({name: getattr(label, name) for name in label.__dataclass_fields__} | {"candidate": good}))
    found = combine(judge(evidence(labels=(better,), incompatible="production takes price"), CONFIG))
    assert found.phase is Phase.SUCCESSFUL
    assert [reason.check for reason in found.warnings] == ["baseline"]


def test_a_label_that_production_does_not_know_is_held_to_the_tighter_limits():
    label = evidence().labels[0]
    new = LabelEvidence(**({name: getattr(label, name) for name in label.__dataclass_fields__} | {"difference": None}))
    reasons = {reason.check: reason for reason in judge(evidence(labels=(new,)), CONFIG)}
    assert reasons["calibration click"].phase is Phase.FAILED
    assert "production does not predict it" in reasons["auc click vs production"].message


def test_the_floor_rises_by_the_margin_of_the_labels_own_claim_alone():
    claims = (
        Claim(metric="auc", margin=0.02, labels=("like",)),
        Claim(metric="auc", margin=0.01, labels=("click",)),
        Claim(metric="auc", margin=0.3, kind=ClaimKind.EQUIVALENT),
    )
    limits = tightened("click", CONFIG.model_copy(update={"claims": claims}))
    assert limits.min_auc["click"] == pytest.approx(0.71)
    assert (limits.max_calibration_error, limits.max_ece) == (0.05, 0.025)


def test_releases_that_cannot_be_measured_are_named():
    reasons = judge(evidence(unmeasured={"c" * 64: "it takes price, which these rows cannot give"}), CONFIG)
    assert any(f"release {'c' * 12}: not compared with: it takes price" in reason.message for reason in reasons)
    assert combine(reasons).phase is Phase.SUCCESSFUL
