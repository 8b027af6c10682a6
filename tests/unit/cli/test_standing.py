"""`tidewheel explain` says in a terminal what report.html says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.unit.evaluation.report.comparisons import RELEASE, comparison, metrics
from tidewheel.cli.inspect import _explain
from tidewheel.contracts.comparison import Comparability
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.verdict import Phase, Reason, Severity, combine
from tidewheel.contracts.window import Window

CLAIM = Reason(
    check="auc click vs production",
    phase=Phase.INCONCLUSIVE,
    message="auc click vs production: [-0.0200, +0.0100] is open",
    value=-0.02,
    limit=-0.01,
)
OPEN = {"click": {"auc": {"value": -0.005, "lower": -0.02, "upper": 0.01, "effective_rows": 5000.0}}}


def run(**changes: object) -> RunReport:
    known: dict[str, object] = {
        "run_id": "run-1",
        "recipe": "quickstart",
        "recipe_digest": "ab" * 32,
        "window": Window.ending(datetime(2026, 1, 12, tzinfo=UTC), 7),
        "outcome": Outcome.REJECTED,
        "reason": "not proven",
        "steps": (),
        "metrics": metrics("student", "production"),
        "comparison": comparison(differences=OPEN),
        "verdicts": {"evaluate": combine([CLAIM])},
    }
    return RunReport.model_validate(known | changes)


def said(report: RunReport, capsys: pytest.CaptureFixture[str]) -> str:
    _explain(report)
    return capsys.readouterr().out


def test_it_says_every_part_in_the_reports_order(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(run(), capsys)
    order = [
        "rejected: not proven",
        "baseline: production was measured on the same rows",
        "Inconclusive auc click vs production: [-0.0200, +0.0100] is open",
        "What would have changed the verdict",
        "proven with a margin above 0.0200 (0.0100 now)",
        "The numbers behind each gate",
        "Against earlier releases",
        "On randomized requests",
        "Replay: what users would have done",
        "Support of the replay",
        "Rank churn",
        "Slices",
        "features none",
    ]
    places = [out.index(words) for words in order]
    assert places == sorted(places)


def test_every_number_stands_on_one_line_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [" ".join(line.split()) for line in said(run(), capsys).splitlines()]
    assert "click AUC 0.5000 [0.4900, 0.5100] 0.6000 [0.5900, 0.6100] -0.0050 [-0.0200, +0.0100] 4,321 ? -0.01" in lines
    assert "click 0.8765 [0.8665, 0.8865] 0.1357 [0.1257, 0.1457]" in lines
    assert "click AUC +0.0246 [+0.0146, +0.0346]" in lines
    assert f"label metric − {RELEASE[:12]}" in lines
    assert "click student 1,234 9,876 876 42.3% 0.987 1.23% 0.125" in lines


def test_an_incompatible_baseline_comes_before_the_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    found = comparison(baseline=Comparability.INCOMPATIBLE, missing_features=("item_age", "[bold]"))
    out = said(run(comparison=found), capsys)
    assert "baseline: BASELINE_INCOMPATIBLE: this window's rows lack what production takes: item_age, [bold]" in out
    assert out.index("BASELINE_INCOMPATIBLE") < out.index("evaluate: ")


def test_the_last_verdict_comes_first_and_many_passes_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    passes = [Reason(check=f"c{index}", phase=Phase.SUCCESSFUL, message=f"check {index} is fine") for index in range(70)]
    warning = Reason(
        check="drift tab", phase=Phase.FAILED, message="drift tab: psi 0.4", value=0.4, limit=0.2, severity=Severity.WARNING
    )
    quiet = Reason(check="drift age", phase=Phase.SUCCESSFUL, message="drift age: psi 0.1", value=0.1, limit=0.2)
    verdicts = {"validate_data": combine([*passes, warning, quiet]), "evaluate": combine([CLAIM])}
    out = said(run(verdicts=verdicts), capsys)
    assert out.index("evaluate: ") < out.index("validate_data: ")
    assert "  Warning drift tab: psi 0.4" in out
    assert "Successful 71 checks; all of them are in data.html" in out
    assert "check 7 is fine" not in out
    drift = out[out.index("Drift\n") :]
    assert drift.index("drift tab") < drift.index("drift age")


def test_a_run_json_from_before_comparisons_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(run(comparison=None), capsys)
    assert "The numbers behind each gate" in out
    assert "baseline:" not in out


def test_a_narrow_terminal_puts_intervals_below_their_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    _explain(run(verdicts={}))
    out = capsys.readouterr().out
    assert "0.6000" in out
    assert "0.6000 [0.5900" not in out
