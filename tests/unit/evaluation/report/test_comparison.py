"""How report.html shows where the candidate stands."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.unit.evaluation.report.comparisons import RELEASE, comparison, metrics
from tidewheel.contracts.comparison import Comparability
from tidewheel.contracts.evidence import Comparison, DataReport, Profile, WindowRecord
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.contracts.window import Window
from tidewheel.evaluation import render

NOW = dt.datetime(2026, 1, 12, tzinfo=dt.UTC)
EVIL = "<script>alert('x')</script>"
CLAIM = Reason(
    check="auc click vs production",
    phase=Phase.INCONCLUSIVE,
    message="auc click vs production: neither proven nor disproven",
    value=-0.02,
    limit=-0.01,
)


def run(**changes: object) -> RunReport:
    known: dict[str, object] = {
        "run_id": "run-1",
        "recipe": "quickstart",
        "recipe_digest": "ab" * 32,
        "window": Window.ending(NOW, 7),
        "outcome": Outcome.REJECTED,
        "reason": "not proven",
        "steps": (),
        "metrics": metrics("student", "production"),
        "comparison": comparison(),
        "verdicts": {"evaluate": combine([CLAIM])},
    }
    return RunReport.model_validate(known | changes)


def data(*drifted: tuple[str, float | None, float | None]) -> DataReport:
    comparisons = tuple(
        Comparison(
            check=f"drift {name}", subject=name, statistic="psi", value=value, lower=value, upper=value, limit=0.2,
            baseline_rows=rows,
        )
        for name, value, rows in drifted
    )  # fmt: skip
    reasons = [Reason(check="drift tab", phase=Phase.FAILED, message="moved", value=0.4, limit=0.2)]
    window = WindowRecord(window=Window.ending(NOW, 7), rows=1, weight_sum=1.0, label_rates={}, label_precision={}, newest=None)
    profile = Profile(numeric_edges={}, categorical_values={}, shares={}, label_rates={}, rows=1, effective_rows=1.0)
    return DataReport(verdict=combine(reasons), window=window, comparisons=comparisons, profile=profile)


def test_the_parts_stand_in_the_order_in_which_they_are_asked_for() -> None:
    drawings = {name: f"<svg><!--{name}--></svg>" for name in ("auc", "roc", "reliability", "lift", "slices")}
    page = render(run(), drawings, [{"number": 1}], data(("tab", 0.4, 900.0)))
    order = [
        "not proven",
        "<h2>Verdicts",
        "<h2>What would have changed the verdict",
        "<h2>The numbers behind each gate",
        "<h2>Against earlier releases",
        "<h2>On randomized requests",
        "<h2>Replay",
        "<h2>Support of the replay",
        "<h2>Rank churn",
        "<h2>Drift",
        "<!--auc-->",
        "<!--roc-->",
        "<!--reliability-->",
        "<!--lift-->",
        "<h2>Canary",
        "<h2>Lineage",
    ]
    places = [page.index(words) for words in order]
    assert places == sorted(places)


def test_every_number_of_the_comparison_is_shown() -> None:
    page = render(run(), {}, None)
    for shown in ("+0.0123", "+0.0246", RELEASE[:12], "0.3111", "+0.0112", "876", "42.3%", "0.8765", "0.1357", "-0.0321"):
        assert shown in page


def test_what_would_have_changed_it_is_said_with_its_limit() -> None:
    difference = {"click": {"auc": {"value": -0.005, "lower": -0.02, "upper": 0.01, "effective_rows": 5000.0}}}
    page = render(run(comparison=comparison(differences=difference)), {}, None)
    assert "proven with a margin above 0.0200 (0.0100 now)" in page


def test_an_incompatible_baseline_cannot_be_overlooked() -> None:
    found = comparison(baseline=Comparability.INCOMPATIBLE, missing_features=("item_age", EVIL))
    page = render(run(comparison=found), {}, None)
    alarm = page.index('role="alert"')
    assert alarm < page.index("<h2>")  # above everything but the outcome
    assert "BASELINE_INCOMPATIBLE" in page
    assert "<code>item_age</code>" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize("baseline", [Comparability.COMPARABLE, Comparability.NO_BASELINE])
def test_nobody_is_alarmed_for_nothing(baseline: Comparability) -> None:
    assert 'role="alert"' not in render(run(comparison=comparison(baseline=baseline)), {}, None)


def test_names_of_models_labels_and_slices_are_escaped() -> None:
    estimates = metrics("student", labels=("click",))["student"]["click"]
    found = comparison(slices={EVIL: {EVIL: {EVIL: estimates}}}, releases={EVIL: {EVIL: estimates}}, stability={EVIL: {}})
    page = render(run(metrics={EVIL: {EVIL: estimates}}, comparison=found), {}, None)
    assert "<script" not in page


def test_a_run_json_from_before_comparisons_is_rendered() -> None:
    page = render(run(comparison=None), {}, None)
    assert "The numbers behind each gate" in page
    assert "Replay" not in page


def test_the_worst_drift_comes_first_and_links_to_all_of_it() -> None:
    page = render(run(), {}, None, data(("age", 0.01, 900.0), ("tab", 0.4, 900.0), ("held out", 0.9, None)))
    drift = page[page.index("<h2>Drift") :]
    assert drift.index("<td class=k>tab") < drift.index("<td class=k>age")
    assert 'href="data.html"' in drift
    assert "2 of 2 comparisons" in drift
    assert "held out" not in drift  # production's calibration on this window is no drift of its rows
    assert "✗ Failed" in drift


def test_there_is_no_drift_to_tell_of_before_the_first_release() -> None:
    assert "<h2>Drift" not in render(run(), {}, None, data(("tab", None, None)))
    assert "<h2>Drift" not in render(run(), {}, None)


def test_only_the_many_checks_of_the_data_stay_folded_on_paper() -> None:
    passes = [Reason(check=f"c{index}", phase=Phase.SUCCESSFUL, message="fine") for index in range(70)]
    page = render(run(verdicts={"validate_data": combine(passes), "evaluate": combine(passes[:20])}), {}, None)
    assert '<details class="bulk"><summary>70 checks passed' in page
    assert "<details open><summary>20 checks passed" in page


def test_on_paper_details_are_open_and_nothing_is_dark() -> None:
    page = render(run(), {}, None)
    printed = page[page.index("@media print") :]
    assert "details:not(.bulk)::details-content{content-visibility:visible" in printed
    assert "--paper:#fff" in printed
    assert "break-inside:avoid" in printed
