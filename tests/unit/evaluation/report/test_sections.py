"""The numbers of a run as tables."""

from __future__ import annotations

import pytest

from tests.unit.evaluation.report.comparisons import RELEASE, comparison, estimate, metrics
from tidewheel.contracts.comparison import ModelComparison
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.evaluation.report.sections import Section, Signed, sections, text

VERDICT = combine(
    [
        Reason(check="auc click", phase=Phase.SUCCESSFUL, message="fine", value=0.7, limit=0.6),
        Reason(check="auc click vs production", phase=Phase.INCONCLUSIVE, message="open", value=-0.02, limit=-0.01),
        Reason(check="ece like", phase=Phase.SUCCESSFUL, message="bad (not gated, would be Failed)", value=0.7, limit=0.6),
        Reason(check="logloss click vs the last 3 releases", phase=Phase.FAILED, message="worse", value=0.02, limit=0.01),
    ]
)


def by_name(**changes: object) -> dict[str, Section]:
    found = sections(metrics("student", "production", "ranker"), comparison(**changes), VERDICT)
    return {section.name: section for section in found}


def row(section: Section, *begin: str) -> dict[str, str]:
    (found,) = [row for row in section.rows if row[: len(begin)] == begin]
    return dict(zip(section.head, map(text, found), strict=True))


def test_every_field_of_a_comparison_has_its_section_in_the_order_it_is_read() -> None:
    assert list(by_name()) == ["numbers", "releases", "randomized", "replay", "support", "stability", "slices"]


def test_a_metric_stands_beside_productions_with_the_difference_and_its_gates() -> None:
    assert row(by_name()["numbers"], "click", "AUC") == {
        "label": "click",
        "metric": "AUC",
        "student": "0.5000 [0.4900, 0.5100]",
        "production": "0.6000 [0.5900, 0.6100]",
        "student − production": "+0.0123 [+0.0023, +0.0223]",
        "ranker": "0.7000 [0.6900, 0.7100]",
        "effective rows": "4,321",
        "gates": "✓ 0.6, ? -0.01",
    }


def test_gates_that_only_report_are_marked_so_and_every_comparison_counts() -> None:
    numbers = by_name()["numbers"]
    assert row(numbers, "like", "ECE")["gates"] == "not gated"
    assert row(numbers, "click", "log-loss")["gates"] == "✗ +0.01"
    assert row(numbers, "like", "AUC")["gates"] == "–"


def test_what_was_not_compared_has_a_dash() -> None:
    numbers = by_name()["numbers"]
    assert row(numbers, "like", "AUC")["student − production"] == "–"
    assert "base_rate" not in {text(cells[1]) for cells in numbers.rows}


def test_what_nobody_knows_has_no_row_and_no_column() -> None:
    unknown = {"click": {"auc": estimate(0.1), "ndcg": estimate(None)}}
    slices = {"surface": {"feed": {"click": {"auc": estimate(0.1), "ndcg": estimate(None)}}}}
    models = {"student": unknown, "production": unknown}
    changed = comparison(differences=unknown, randomized=models, releases={RELEASE: unknown}, slice_differences=slices)
    for section in sections(models, changed, None):
        assert "NDCG" not in {text(cell) for row in section.rows for cell in row}
        assert "Δ NDCG" not in section.head


def test_a_replay_has_its_estimators_differences_and_support() -> None:
    found = by_name()
    assert row(found["replay"], "click", "self-normalized (SNIPS) (judged)") == {
        "label": "click",
        "estimator": "self-normalized (SNIPS) (judged)",
        "student": "0.3111 [0.3011, 0.3211]",
        "production": "0.2999 [0.2899, 0.3099]",
        "student − production": "+0.0112 [+0.0012, +0.0212]",
    }
    shown = row(found["support"], "click", "student")
    assert (shown["requests"], shown["rows"], shown["effective rows"]) == ("1,234", "9,876", "876")
    assert (shown["reached"], shown["largest share of a row"], shown["smallest propensity"]) == ("42.3%", "1.23%", "0.125")


def test_stability_releases_and_slices_are_there() -> None:
    found = by_name()
    assert row(found["stability"], "click")["Kendall's tau"] == "0.8765 [0.8665, 0.8865]"
    assert row(found["releases"], "click", "AUC")[f"− {RELEASE[:12]}"] == "+0.0246 [+0.0146, +0.0346]"
    assert row(found["slices"], "surface = feed", "click")["Δ AUC"] == "-0.0321 [-0.0421, -0.0221]"


def test_a_first_release_has_neither_production_nor_differences() -> None:
    (numbers,) = sections(metrics("student", "ranker"), ModelComparison(), None)
    assert numbers.head == ("label", "metric", "student", "ranker", "effective rows")


def test_a_run_from_before_comparisons_and_one_that_measured_nothing() -> None:
    (numbers,) = sections(metrics("student", "production"), None, VERDICT)
    assert "student − production" not in numbers.head
    assert sections({}, None, None) == []


@pytest.mark.parametrize(
    ("cell", "want"),
    [
        (None, "–"),
        (estimate(None), "–"),
        (estimate(0.25, None), "0.2500 no interval"),
        (Signed(estimate(0.25)), "+0.2500 [+0.2400, +0.2600]"),
        ("as it is", "as it is"),
    ],
)
def test_a_cell_in_one_line(cell: object, want: str) -> None:
    assert text(cell) == want  # type: ignore[arg-type]
