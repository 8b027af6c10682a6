"""ROC curves and differences by slice as drawings of the report."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tidewheel.contracts.comparison import Curves, Estimate, ModelComparison, RocPoint
from tidewheel.contracts.evaluation import Compared
from tidewheel.evaluation.report.comparison_drawings import draw_comparison

AUC = {Compared.AUC: 0.03}


def point(threshold: float, false: float, true: float) -> RocPoint:
    return RocPoint(threshold=threshold, false_positive_rate=false, true_positive_rate=true)


def curves(*models: str) -> Curves:
    line = (point(1.1, 0, 0), point(0.5, 0.2, 0.7), point(0.0, 1, 1))
    return Curves(roc={model: {"click": line, "like": line} for model in models})


def estimate(value: float | None, reach: float = 0.01) -> Estimate:
    bounds = (None, None) if value is None else (value - reach, value + reach)
    return Estimate(value=value, lower=bounds[0], upper=bounds[1], effective_rows=900.0)


def compared(*values: float | None) -> ModelComparison:
    slices = {f"$x$ <{index}>": {"click": {"auc": estimate(value)}} for index, value in enumerate(values)}
    return ModelComparison(slice_differences={"surface": slices})


def texts(svg: str) -> list[str]:
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = lambda data: found.append(data.strip())  # type: ignore[method-assign]
    parser.feed(svg)
    return [text for text in found if text]


def test_roc_curves_have_a_panel_a_label_and_lines_that_differ_without_colour() -> None:
    svg = draw_comparison(ModelComparison(), curves("student", "production"), AUC)["roc"]
    assert {"click", "like", "student", "production"} <= set(texts(svg))
    lines = {model: re.findall(rf'style="([^"]*stroke: var\(--{model}\)[^"]*)"', svg) for model in ("student", "production")}
    assert lines["student"]
    assert not any("dasharray" in style for style in lines["student"])
    assert all("dasharray" in style for style in lines["production"])


def test_a_first_release_has_its_own_curve_alone() -> None:
    drawings = draw_comparison(ModelComparison(), curves("student"), AUC)
    assert set(drawings) == {"roc"}
    assert "production" not in texts(drawings["roc"])


def test_the_lift_has_a_row_a_known_slice_with_zero_and_the_margin() -> None:
    svg = draw_comparison(compared(0.02, None, -0.01), Curves(), AUC)["lift"]
    assert {"surface = $x$ <0>", "surface = $x$ <2>", "AUC"} <= set(texts(svg))
    assert "surface = $x$ <1>" not in texts(svg)
    verticals = re.findall(r'style="(fill: none; [^"]*stroke: var\(--ink\)[^"]*stroke-width: 0.8[^"]*)"', svg)
    assert sorted("dasharray" in style for style in verticals) == [False, True]  # zero is a full line, the margin dashed


def test_only_metrics_with_a_margin_are_drawn_and_without_any_the_auc() -> None:
    comparison = compared(0.02)
    assert draw_comparison(comparison, Curves(), {Compared.LOGLOSS: 0.02}) == {}
    assert set(draw_comparison(comparison, Curves(), {})) == {"lift"}


@pytest.mark.parametrize("comparison", [ModelComparison(), compared(None), compared()])
def test_no_numbers_give_no_drawing(comparison: ModelComparison) -> None:
    assert draw_comparison(comparison, Curves(), AUC) == {}


def test_equal_values_give_equal_text_in_the_pages_colours() -> None:
    first = draw_comparison(compared(0.02), curves("student"), AUC)
    assert first == draw_comparison(compared(0.02), curves("student"), AUC)
    assert all("var(--ink)" in svg and "<style" not in svg for svg in first.values())
