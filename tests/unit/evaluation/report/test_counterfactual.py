"""What would have changed a verdict. Each limit that is named is given back to the gate, which must then end otherwise."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tidewheel.contracts.comparison import Estimate, ModelComparison, Replay
from tidewheel.contracts.evaluation import Claim, ClaimKind, Compared, EvaluateConfig
from tidewheel.contracts.verdict import Phase, Reason, Severity, Verdict, combine
from tidewheel.evaluation.against import against_production
from tidewheel.evaluation.gates import calibration, calibration_error, min_auc
from tidewheel.evaluation.report import counterfactual
from tidewheel.evaluation.report.counterfactual import changes
from tidewheel.evaluation.slices import slice_gates

BARELY = 1e-9


def estimate(lower: float, value: float, upper: float, rows: float = 5000.0) -> Estimate:
    return Estimate(value=value, lower=lower, upper=upper, effective_rows=rows)


def metrics(**by_metric: Estimate) -> dict[str, dict[str, dict[str, Estimate]]]:
    return {"student": {"click": by_metric}}


@pytest.mark.parametrize(("limit", "phase"), [(0.75, Phase.FAILED), (0.71, Phase.INCONCLUSIVE)])
def test_the_auc_floor_that_is_named_lets_it_pass(limit: float, phase: Phase) -> None:
    auc = estimate(0.70, 0.715, 0.73)
    reason = min_auc("click", auc, limit)
    assert reason.phase is phase
    (found,) = changes(combine([reason]), metrics(auc=auc))
    assert found.needed is not None
    assert min_auc("click", auc, found.needed).phase is Phase.SUCCESSFUL
    assert min_auc("click", auc, found.needed + BARELY).phase is not Phase.SUCCESSFUL
    assert "a floor of 0.7000 or less" in found.words


def test_the_calibration_limits_that_are_named_let_it_pass() -> None:
    ratio, ece = estimate(1.3, 1.4, 1.5), estimate(0.06, 0.07, 0.08)
    verdict = combine([calibration("click", ratio, 0.15), calibration_error("click", ece, 0.05)])
    first, second = changes(verdict, metrics(calibration_ratio=ratio, ece=ece))
    assert first.needed == pytest.approx(0.3)
    assert second.needed == 0.06
    assert calibration("click", ratio, first.needed).phase is Phase.SUCCESSFUL
    assert calibration_error("click", ece, second.needed).phase is Phase.SUCCESSFUL
    assert calibration_error("click", ece, second.needed - BARELY).phase is Phase.FAILED


@pytest.mark.parametrize("metric", list(Compared))
@pytest.mark.parametrize("kind", [ClaimKind.NON_INFERIOR, ClaimKind.EQUIVALENT])
@pytest.mark.parametrize("bounds", [(-0.03, -0.02, -0.01), (-0.02, 0.0, 0.02), (0.01, 0.02, 0.03)])
def test_the_margin_that_is_named_is_where_a_claim_begins_to_be_proven(
    metric: Compared, kind: ClaimKind, bounds: tuple[float, float, float]
) -> None:
    difference = estimate(*bounds)
    reason = against_production("click", Claim(metric=metric, kind=kind, margin=0.005), difference)
    if reason.phase is Phase.SUCCESSFUL:
        return
    comparison = ModelComparison(differences={"click": {metric.value: difference}})
    (found,) = changes(combine([reason]), {}, comparison)
    assert found.needed is not None
    wider = Claim(metric=metric, kind=kind, margin=found.needed + BARELY)
    narrower = Claim(metric=metric, kind=kind, margin=found.needed - BARELY)
    assert against_production("click", wider, difference).phase is Phase.SUCCESSFUL
    assert against_production("click", narrower, difference).phase is not Phase.SUCCESSFUL


def test_superiority_is_lowered_or_out_of_reach() -> None:
    claim = Claim(metric=Compared.AUC, kind=ClaimKind.SUPERIOR, margin=0.02)

    def found(difference: Estimate) -> tuple[str, float | None]:
        comparison = ModelComparison(differences={"click": {"auc": difference}})
        (change,) = changes(combine([against_production("click", claim, difference)]), {}, comparison)
        return change.words, change.needed

    assert found(estimate(0.01, 0.02, 0.03)) == ("proven with a margin below 0.0100 (0.0200 now)", 0.01)
    words, needed = found(estimate(-0.02, 0.0, 0.04))
    assert needed is None
    assert "no margin lets it pass" in words


def test_the_rows_that_would_settle_it_are_the_gates_own() -> None:
    difference = estimate(-0.015, -0.002, 0.011, rows=5000.0)
    reason = against_production("click", Claim(metric=Compared.AUC, margin=0.01), difference)
    (found,) = changes(combine([reason]), {}, ModelComparison(differences={"click": {"auc": difference}}))
    rows = reason.message.split("about ")[1].split(" ")[0]
    assert f"about {rows} effective rows would prove it" in found.words


def test_a_claim_that_looks_lost_says_that_more_rows_would_refute_it() -> None:
    difference = estimate(-0.03, -0.014, 0.002)
    reason = against_production("click", Claim(metric=Compared.AUC, margin=0.01), difference)
    assert reason.phase is Phase.INCONCLUSIVE
    (found,) = changes(combine([reason]), {}, ModelComparison(differences={"click": {"auc": difference}}))
    assert "would refute it" in found.words


@pytest.mark.parametrize("control", ["holm", "bh"])
def test_at_the_slice_margin_that_is_named_nobody_is_accused(control: str) -> None:
    slices = {
        "surface": {
            "feed": {"click": {"auc": estimate(-0.10, -0.08, -0.06)}},
            "search": {"click": {"auc": estimate(-0.09, -0.05, -0.01)}},
        }
    }

    def judged(margin: float) -> Reason:
        config = EvaluateConfig(max_slice_drop={Compared.AUC: margin}, slice_control=control)
        (reason,) = slice_gates(slices, ["click"], config)
        return reason

    assert judged(0.03).phase is Phase.FAILED
    (found,) = changes(combine([judged(0.03)]), {}, ModelComparison(slice_differences=slices))
    assert found.needed == pytest.approx(0.06)
    assert judged(found.needed).phase is Phase.SUCCESSFUL


def test_of_several_releases_the_hardest_names_the_margin() -> None:
    first, second = estimate(-0.02, -0.01, 0.0), estimate(-0.05, -0.04, -0.03)
    comparison = ModelComparison(
        differences={"click": {"auc": estimate(0.0, 0.01, 0.02)}},
        releases={"a" * 64: {"click": {"auc": first}}, "b" * 64: {"click": {"auc": second}}},
    )
    reason = Reason(check="auc click vs the last 3 releases", phase=Phase.FAILED, message="x", value=-0.03, limit=-0.01)
    (found,) = changes(combine([reason]), {}, comparison)
    assert found.needed == 0.05
    assert "proven with a margin above 0.0500 (0.0100 now)" in found.words


def test_a_replay_names_its_margin_and_a_log_that_hardly_speaks_its_distance() -> None:
    replay = Replay(requests=9, rows=90, top=3, judged_by="ips", values={}, differences={"ips": estimate(-0.03, -0.01, 0.01)})
    comparison = ModelComparison(replay={"click": replay})

    def words(value: float, limit: float) -> str:
        reason = Reason(check="replay click vs production", phase=Phase.INCONCLUSIVE, message="x", value=value, limit=limit)
        (found,) = changes(combine([reason]), {}, comparison)
        return found.words

    assert words(-0.03, -0.02).startswith("proven with a margin above 0.0300 (0.0200 now); about ")
    assert words(40.0, 100.0) == "40 is 60 away from its limit of 100"


def test_a_reordering_passes_with_a_lower_agreement() -> None:
    reason = Reason(check="rank agreement click with production", phase=Phase.FAILED, message="x", value=0.22, limit=0.3)
    (found,) = changes(combine([reason]))
    assert (found.words, found.needed) == ("passes with a limit of 0.2200 or less (0.3000 now)", 0.22)


def test_only_what_decided_is_explained() -> None:
    auc = estimate(0.70, 0.715, 0.73)
    reasons = [
        min_auc("click", auc, 0.75),  # Failed: decides
        min_auc("like", auc, 0.71),  # Inconclusive
        Reason(check="drift x", phase=Phase.FAILED, message="a warning", value=1.0, limit=0.2, severity=Severity.WARNING),
    ]
    assert [change.check for change in changes(combine(reasons), metrics(auc=auc))] == ["auc click"]


def test_an_error_and_a_reason_without_numbers_have_no_limit_that_helps() -> None:
    for phase, value in ((Phase.ERROR, 1.0), (Phase.FAILED, None)):
        (found,) = changes(combine([Reason(check="x", phase=phase, message="broken", value=value, limit=0.5)]))
        assert found.needed is None
        assert "no limit would have let it pass" in found.words


def test_a_gate_whose_estimate_is_unknown_says_its_distance() -> None:
    (found,) = changes(combine([Reason(check="step 1 errors", phase=Phase.FAILED, message="x", value=0.25, limit=0.01)]))
    assert found.words == "0.25 is 0.24 away from its limit of 0.01"


def test_a_canarys_calibration_is_measured_from_one() -> None:
    (found,) = changes(combine([Reason(check="step 1 calibration", phase=Phase.FAILED, message="x", value=5.6, limit=0.2)]))
    assert found.words == "5.6 is 4.6 away from 1, and may be 0.2 away"
    passed = Reason(check="step 1 calibration", phase=Phase.SUCCESSFUL, message="x", value=0.95, limit=0.2)
    (found,) = changes(combine([passed]))
    assert found.words == "came closest: 0.15 from its limit of 0.2 (75% of it)"


def test_large_numbers_are_written_out() -> None:
    (found,) = changes(combine([Reason(check="volume", phase=Phase.SUCCESSFUL, message="x", value=151_790, limit=228_900)]))
    assert found.words == "came closest: 77,110 from its limit of 228,900 (34% of it)"


def test_too_few_rows_say_how_many_more() -> None:
    reason = Reason(check="evidence like", phase=Phase.INCONCLUSIVE, message="x", value=37, limit=50)
    (found,) = changes(combine([reason]))
    assert found.words == "13 more, or min_positives of 37 (50 now)"
    (found,) = changes(combine([reason.model_copy(update={"check": "evidence"})]))  # users: no limit of the recipe's
    assert (found.words, found.needed) == ("13 more", None)


def test_a_pass_names_the_gate_that_came_closest_relative_to_its_limit() -> None:
    difference = estimate(-0.009, 0.0, 0.009)
    reasons = [
        min_auc("click", estimate(0.70, 0.72, 0.74), 0.6),  # 0.10 from 0.6: 17%
        against_production("click", Claim(metric=Compared.AUC, margin=0.01), difference),  # 0.001 from 0.01: 10%
        Reason(check="a", phase=Phase.SUCCESSFUL, message="shares 0 rows", value=0, limit=0),
        Reason(check="b", phase=Phase.SUCCESSFUL, message="b (not gated)", value=0.5, limit=0.5),
        Reason(
            check="drift c", phase=Phase.SUCCESSFUL, message="psi 0.5, reported only (unchecked_drift)", value=0.5, limit=0.5
        ),
    ]
    (found,) = changes(combine(reasons))
    assert found.check == "auc click vs production"
    assert found.words == "came closest: 0.001 from its limit of -0.01 (10% of it)"


def test_nothing_checked_changes_nothing() -> None:
    assert changes(Verdict(phase=Phase.SUCCESSFUL)) == ()
    (found,) = changes(combine([]))
    assert "has to be there first" in found.words


def test_it_needs_contracts_alone() -> None:
    tree = ast.parse(Path(counterfactual.__file__).read_text(encoding="utf-8"))
    ours = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {module for module in ours if module.startswith("tidewheel") and not module.startswith("tidewheel.contracts")}
    assert ours == {"tidewheel.evaluation.planning"}  # pure itself
