import math

import pytest

from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.evaluation import Claim, EvaluateConfig
from tidewheel.contracts.verdict import Phase, combine
from tidewheel.evaluation.gates import (
    Evidence,
    LabelEvidence,
    against_production,
    calibration,
    calibration_error,
    judge,
    min_auc,
)

CONFIG = EvaluateConfig(replay="reported", min_auc={"click": 0.7}, min_positives=50)


def estimate(lower, upper):
    return Estimate(value=(lower + upper) / 2, lower=lower, upper=upper, effective_rows=1000)


UNKNOWN = Estimate(value=0.7, lower=None, upper=None, effective_rows=1000)
GOOD = {"auc": estimate(0.72, 0.75), "calibration_ratio": estimate(0.98, 1.03), "ece": estimate(0.0, 0.02)}
EQUAL = {"auc": estimate(-0.001, 0.002), "logloss": estimate(-0.001, 0.001)}


def click(**changes):
    known = {"label": "click", "is_gated": True, "positives": 500, "negatives": 5000, "candidate": GOOD, "difference": EQUAL}
    return LabelEvidence(**(known | changes))


def phase(*labels, rows=5500, users=900, has_production=True):
    return combine(judge(Evidence(rows=rows, users=users, has_production=has_production, labels=labels), CONFIG)).phase


@pytest.mark.parametrize(
    ("bounds", "want_phase", "want_message"),
    [
        ((0.7, 0.8), Phase.SUCCESSFUL, "auc click: lower bound 0.7000 >= 0.7000"),
        ((0.6, 0.69), Phase.FAILED, "auc click: upper bound 0.6900 < 0.7000"),
        ((0.69, 0.71), Phase.INCONCLUSIVE, "auc click: 0.7000 lies within [0.6900, 0.7100], neither met nor missed"),
    ],
)
def test_the_auc_is_met_missed_or_open(bounds, want_phase, want_message):
    reason = min_auc("click", estimate(*bounds), 0.7)
    assert (reason.phase, reason.message) == (want_phase, want_message)


def test_a_label_without_a_limit_must_still_beat_chance():
    assert min_auc("click", estimate(0.51, 0.6), None).phase is Phase.SUCCESSFUL
    assert min_auc("click", estimate(0.49, 0.6), None).phase is Phase.INCONCLUSIVE
    assert min_auc("click", estimate(0.3, 0.49), None).phase is Phase.FAILED


@pytest.mark.parametrize(
    ("bounds", "want_phase"),
    [
        ((1.05, 1.15), Phase.SUCCESSFUL),
        ((1.11, 1.3), Phase.FAILED),
        ((0.7, 0.89), Phase.FAILED),
        ((0.5, 1.5), Phase.SUCCESSFUL),
    ],
)
def test_calibration_is_judged_by_its_bound_nearest_to_one(bounds, want_phase):
    assert calibration("click", estimate(*bounds), 0.1).phase is want_phase


def test_an_ece_fails_when_its_lower_bound_is_above_the_limit():
    assert calibration_error("click", estimate(0.04, 0.06), 0.05).phase is Phase.SUCCESSFUL
    reason = calibration_error("click", estimate(0.0501, 0.06), 0.05)
    assert (reason.phase, reason.message) == (Phase.FAILED, "ece click: lower bound 0.0501 > 0.0500")


@pytest.mark.parametrize(
    ("claim", "bounds", "want_phase", "want_message"),
    [
        ({"metric": "auc"}, (-0.0012, 0.003), Phase.SUCCESSFUL, "auc click vs production: [-0.0012, +0.0030] is above -0.0100"),
        ({"metric": "auc"}, (-0.03, -0.01), Phase.FAILED, "auc click vs production: [-0.0300, -0.0100] is not above -0.0100"),
        (
            {"metric": "logloss"},
            (-0.02, 0.0099),
            Phase.SUCCESSFUL,
            "logloss click vs production: [-0.0200, +0.0099] is below +0.0100",
        ),
        (
            {"metric": "logloss"},
            (0.01, 0.02),
            Phase.FAILED,
            "logloss click vs production: [+0.0100, +0.0200] is not below +0.0100",
        ),
        (
            {"metric": "auc", "kind": "superior"},
            (0.011, 0.02),
            Phase.SUCCESSFUL,
            "auc click vs production superior: [+0.0110, +0.0200] is above +0.0100",
        ),
        (
            {"metric": "logloss", "kind": "superior"},
            (-0.009, 0.02),
            Phase.FAILED,
            "logloss click vs production superior: [-0.0090, +0.0200] is not below -0.0100",
        ),
        (
            {"metric": "auc", "kind": "equivalent"},
            (-0.009, 0.0099),
            Phase.SUCCESSFUL,
            "auc click vs production equivalent: [-0.0090, +0.0099] is within ±0.0100",
        ),
        (
            {"metric": "auc", "kind": "equivalent"},
            (0.01, 0.02),
            Phase.FAILED,
            "auc click vs production equivalent: [+0.0100, +0.0200] is not within ±0.0100",
        ),
    ],
)
def test_a_claim_is_proven_or_refuted_by_the_whole_interval(claim, bounds, want_phase, want_message):
    reason = against_production("click", Claim(margin=0.01, **claim), estimate(*bounds))
    assert (reason.phase, reason.message) == (want_phase, want_message)


def test_what_is_neither_proven_nor_refuted_says_what_would_prove_it():
    """Error 0.005 / 1.96; 3.2415 of it are seen in 9 of 10 logs: 0.00827; from -0.005 to -0.01 it takes (0.00827 / 0.005)^2."""
    reason = against_production("click", Claim(metric="auc", margin=0.01), estimate(-0.01, 0.0))
    assert reason.phase is Phase.INCONCLUSIVE
    assert reason.message == (
        "auc click vs production: [-0.0100, +0.0000] is neither proven nor disproven to be above -0.0100; 1,000 effective rows "
        "show differences of 0.0083 or more in 9 of 10 logs; if it stays as it is, about 2,735 would prove it"
    )
    hopeless = against_production("click", Claim(metric="auc", margin=0.01), estimate(-0.03, 0.0))
    assert hopeless.message.endswith("in 9 of 10 logs")


def test_no_claim_is_proven_without_a_finite_interval():
    for missing in (None, UNKNOWN):
        assert against_production("click", Claim(metric="auc", margin=0.01), missing).phase is Phase.ERROR


def test_claims_that_could_never_be_proven_or_say_nothing_are_refused():
    with pytest.raises(ValueError, match="margin of non_inferior is 0"):
        Claim(metric="auc", margin=0.0)
    with pytest.raises(ValueError, match="auc non_inferior twice"):
        EvaluateConfig(claims=(Claim(metric="auc", margin=0.1), Claim(metric="auc", margin=0.2)))


def test_a_claim_may_be_about_some_labels_alone():
    claims = (Claim(metric="auc", margin=0.01, labels=("like",)),)
    worse = click(difference=EQUAL | {"auc": estimate(-0.05, -0.02)})
    config = CONFIG.model_copy(update={"claims": claims})
    assert combine(judge(Evidence(5500, 900, True, (worse,)), config)).phase is Phase.SUCCESSFUL


@pytest.mark.parametrize("gate", [min_auc, calibration, calibration_error])
@pytest.mark.parametrize("missing", [None, UNKNOWN])
def test_no_gate_passes_without_a_finite_interval(gate, missing):
    assert gate("click", missing, 0.7).phase is Phase.ERROR


def test_nan_bounds_that_slipped_past_the_contract_are_an_error():
    broken = Estimate.model_construct(value=0.8, lower=math.nan, upper=0.9, effective_rows=1.0)
    assert min_auc("click", broken, 0.7).phase is Phase.ERROR


def test_a_good_candidate_passes_with_and_without_production():
    assert phase(click()) is Phase.SUCCESSFUL
    assert phase(click(difference=None), has_production=False) is Phase.SUCCESSFUL


def test_a_candidate_worse_than_production_fails_however_good_it_is_alone():
    assert phase(click(difference=EQUAL | {"auc": estimate(-0.05, -0.02)})) is Phase.FAILED


def test_an_interval_of_difference_that_is_missing_is_not_a_pass():
    assert phase(click(difference={})) is Phase.ERROR


@pytest.mark.parametrize("few", [{"positives": 49}, {"negatives": 49}])
def test_a_label_too_rare_on_either_side_is_inconclusive(few):
    assert phase(click(**few)) is Phase.INCONCLUSIVE


def test_no_rows_and_few_users_are_inconclusive():
    assert phase(click(), rows=0, users=0) is Phase.INCONCLUSIVE
    assert phase(click(), users=29) is Phase.INCONCLUSIVE
    assert phase(click(), users=30) is Phase.SUCCESSFUL


def test_scores_at_fault_are_an_error_that_says_which():
    reasons = judge(Evidence(900, 90, False, (click(fault="3 of 900 scores are not finite", difference=None),)), CONFIG)
    assert next((r.phase, r.message) for r in reasons) == (Phase.ERROR, "click: 3 of 900 scores are not finite")


def test_a_label_that_is_not_gated_never_decides_and_is_never_hidden():
    evidence = Evidence(
        5500, 900, True, (click(), click(label="like", is_gated=False, candidate=GOOD | {"auc": estimate(0.3, 0.4)}))
    )
    reasons = judge(evidence, CONFIG)
    assert combine(reasons).phase is Phase.SUCCESSFUL
    assert (
        "auc like: upper bound 0.4000 < 0.5000 (no min_auc in the recipe: better than chance) (not gated, would be Failed)"
        in [reason.message for reason in reasons]
    )


def test_no_gated_label_at_all_is_inconclusive():
    assert phase(click(is_gated=False)) is Phase.INCONCLUSIVE


def test_a_label_that_production_does_not_predict_is_judged_alone():
    assert phase(click(difference=None), has_production=True) is Phase.SUCCESSFUL
