"""The numbers of a run as tables, once for all who show them: report.html, a terminal, the page of a pipeline.

Pure, from contracts alone. What a run does not have gives no section.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidewheel.contracts.comparison import ENGAGED_ABOVE, KENDALL_TAU, TOP_CHURN, Estimate, Metrics, ModelComparison
from tidewheel.contracts.verdict import Phase, Reason, Verdict

MODELS = ("student", "production", "ranker")
METRICS = {
    "auc": "AUC",
    "request_auc": "AUC in requests",
    "ndcg": "NDCG",
    "logloss": "log-loss",
    "normalized_entropy": "normalized entropy",
    "ece": "ECE",
    "calibration_ratio": "predicted / actual",
}
GATES = {"auc": "auc", "calibration_ratio": "calibration", "ece": "ece"}  # metric -> name of its gate
ESTIMATORS = {
    "snips": "self-normalized (SNIPS)",
    "engaged_above": "engaged above others",
    "ips": "inverse propensity (IPS)",
    "clipped_ips": "IPS, clipped",
    "doubly_robust": "doubly robust",
    "switch_doubly_robust": "doubly robust, switch",
}
JUDGES = ("deploy", "evaluate", "validate_data")
SIGNS = {Phase.SUCCESSFUL: "✓", Phase.FAILED: "✗", Phase.ERROR: "!"}


@dataclass(frozen=True)
class Signed:
    """An estimate that is a difference: its sign is always shown."""

    estimate: Estimate


Cell = str | Estimate | Signed | None


@dataclass(frozen=True)
class Section:
    """One table under a heading. `name` is a short handle; columns of `head` are as many as each row has cells.

    The first `keys` cells say what a row is about, the others what is known of it. `is_detail`: asked for by few.
    """

    name: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    keys: int = 2
    is_detail: bool = False


def sections(metrics: Metrics, comparison: ModelComparison | None, verdict: Verdict | None) -> list[Section]:
    """Every section that there are numbers for, in the order in which they are read.

    Args:
        metrics: model -> label -> metric -> estimate.
        comparison: None in a run.json from before there was one.
        verdict: of `evaluate`; its gates are named beside the numbers that they judged.
    """
    comparison = comparison or ModelComparison()
    found = [
        _numbers(metrics, comparison, verdict),
        _releases(comparison),
        _randomized(comparison),
        _replay(comparison),
        _support(comparison),
        _stability(comparison),
        _slices(comparison),
    ]
    return [section for section in found if section is not None and section.rows]


def last_first(verdicts: Mapping[str, Verdict]) -> list[tuple[str, Verdict]]:
    """Verdicts in the order in which they matter: the last one is what a run ended with."""
    return sorted(verdicts.items(), key=lambda named: JUDGES.index(named[0]) if named[0] in JUDGES else len(JUDGES))


def text(cell: Cell) -> str:
    """A cell in one line."""
    if isinstance(cell, str):
        return cell
    value, bounds = parts(cell)
    return f"{value} {bounds}".strip()


def parts(cell: Estimate | Signed | None) -> tuple[str, str]:
    """Value and interval of a cell, as words; a dash and nothing where nothing is known."""
    estimate, digits = (cell.estimate, "+.4f") if isinstance(cell, Signed) else (cell, ".4f")
    if estimate is None or estimate.value is None or not math.isfinite(estimate.value):
        return "–", ""
    if estimate.lower is None or estimate.upper is None:
        return format(estimate.value, digits), "no interval"
    return format(estimate.value, digits), f"[{estimate.lower:{digits}}, {estimate.upper:{digits}}]"


def _numbers(metrics: Metrics, comparison: ModelComparison, verdict: Verdict | None) -> Section | None:
    """Every metric of every model, and student minus production."""
    models = _models(metrics)
    is_compared = bool(comparison.differences)
    rows: list[tuple[Cell, ...]] = []
    for label in _keys(metrics[model] for model in models):
        for metric in _known(metrics[model].get(label, {}) for model in models):
            if not any(_is_known(metrics[model].get(label, {}).get(metric)) for model in models):
                continue
            estimates = {model: metrics[model].get(label, {}).get(metric) for model in models}
            cells: list[Cell] = [label, METRICS.get(metric, metric)]
            for model in models:
                cells.append(estimates[model])
                if is_compared and model == "production":
                    cells.append(_signed(comparison.differences.get(label, {}).get(metric)))
            counted = next((estimate for estimate in estimates.values() if estimate is not None), None)
            cells.append(f"{counted.effective_rows:,.0f}" if counted else None)
            if verdict is not None:
                cells.append(_gates(verdict, label, metric))
            rows.append(tuple(cells))
    head = ["label", "metric"]
    for model in models:
        head += [model, "student − production"] if is_compared and model == "production" else [model]
    head += ["effective rows", *(["gates"] if verdict is not None else [])]
    note = (
        "On held-out rows, weighted by 1 / inclusion probability, with 95% intervals over users; differences are paired by "
        "row. Gates: how each ended, and its limit."
    )
    return Section("numbers", "The numbers behind each gate", note, tuple(head), tuple(rows)) if models else None


def _gates(verdict: Verdict, label: str, metric: str) -> str:
    """The gates of `evaluate` that judged this number, each with its sign and its limit."""
    own = f"{GATES[metric]} {label}" if metric in GATES else None
    versus = f"{metric} {label} vs "
    found = [reason for reason in verdict.reasons if reason.check == own or reason.check.startswith(versus)]
    return ", ".join(dict.fromkeys(_gate(reason) for reason in found if reason.limit is not None)) or "–"


def _gate(reason: Reason) -> str:
    if "(not gated" in reason.message:
        return "not gated"
    sign = "+" if " vs " in reason.check else ""
    return f"{SIGNS.get(reason.phase, '?')} {reason.limit:{sign}.4g}"


def _releases(comparison: ModelComparison) -> Section:
    digests = list(comparison.releases)
    rows = [
        (label, METRICS.get(metric, metric), *(_signed(comparison.releases[d].get(label, {}).get(metric)) for d in digests))
        for label in _keys(comparison.releases.values())
        for metric in _known(found.get(label, {}) for found in comparison.releases.values())
        if any(_is_known(found.get(label, {}).get(metric)) for found in comparison.releases.values())
    ]
    note = "Student minus each release before production, newest first, paired by row: small losses add up."
    head = ("label", "metric", *(f"− {digest[:12]}" for digest in digests))
    return Section("releases", "Against earlier releases", note, head, tuple(rows))


def _randomized(comparison: ModelComparison) -> Section:
    models = _models(comparison.randomized)
    by_model = comparison.randomized
    rows = []
    for label in _keys(by_model[model] for model in models):
        for metric in _known(by_model[model].get(label, {}) for model in models):
            estimates = [by_model[model].get(label, {}).get(metric) for model in models]
            if not any(map(_is_known, estimates)):
                continue
            counted = next((estimate for estimate in estimates if estimate is not None), None)
            effective = f"{counted.effective_rows:,.0f}" if counted else None
            rows.append((label, METRICS.get(metric, metric), *estimates, effective))
    note = "The same metrics on requests whose order was random: no model chose these rows."
    return Section(
        "randomized",
        "On randomized requests",
        note,
        ("label", "metric", *models, "effective rows"),
        tuple(rows),
        is_detail=True,
    )


def _replay(comparison: ModelComparison) -> Section:
    models = _models({model: {} for replay in comparison.replay.values() for model in replay.values})
    is_compared = any(replay.differences for replay in comparison.replay.values())
    rows = []
    for label, replay in comparison.replay.items():
        for estimator in _keys(replay.values.values()):
            mark = " (judged)" if estimator == replay.judged_by else ""
            cells: list[Cell] = [label, ESTIMATORS.get(estimator, estimator) + mark]
            cells += [replay.values.get(model, {}).get(estimator) for model in models]
            if is_compared:
                cells.append(_signed(replay.differences.get(estimator)))
            rows.append(tuple(cells))
    tops = " or ".join(str(top) for top in sorted({replay.top for replay in comparison.replay.values()}))
    note = f"Had each model picked the first {tops} of what users were shown in random order: engagements per picked item."
    if any(replay.judged_by == ENGAGED_ABOVE for replay in comparison.replay.values()):
        note += f" {ESTIMATORS[ENGAGED_ABOVE].capitalize()}: share of a request's other items put below an engaged one."
    note += " The gate judges what is marked; estimators that disagree are a warning."
    head = ("label", "estimator", *models, *(["student − production"] if is_compared else []))
    return Section("replay", "Replay: what users would have done", note, head, tuple(rows))


def _support(comparison: ModelComparison) -> Section:
    """How much of the log speaks about each ranking."""
    rows = [
        (
            label,
            model,
            f"{replay.requests:,}",
            f"{replay.rows:,}",
            f"{support.effective_rows:,.0f}",
            f"{support.reached:.1%}",
            f"{support.mean_weight:.3f}",
            f"{support.largest_share:.2%}",
            f"{support.smallest_propensity:.3g}",
        )
        for label, replay in comparison.replay.items()
        for model, support in replay.support.items()
    ]
    head = (
        "label",
        "model",
        "requests",
        "rows",
        "effective rows",
        "reached",
        "mean weight",
        "largest share of a row",
        "smallest propensity",
    )
    note = (
        "Few effective rows, or one row that carries much of the weight, make a replay say little, however narrow its interval."
    )
    return Section("support", "Support of the replay", note, head, tuple(rows))


def _stability(comparison: ModelComparison) -> Section:
    rows = [(label, by.get(KENDALL_TAU), by.get(TOP_CHURN)) for label, by in comparison.stability.items()]
    note = (
        "Student against production within requests. Kendall's tau: 1 the same order, 0 none in common. "
        "Churn: share of production's first items that are not among the student's."
    )
    return Section("stability", "Rank churn", note, ("label", "Kendall's tau", "churn at the top"), tuple(rows), keys=1)


def _slices(comparison: ModelComparison) -> Section:
    metrics = _known(
        {metric: difference for metric, difference in found.items() if _is_known(difference)}
        for by_value in comparison.slice_differences.values()
        for by_label in by_value.values()
        for found in by_label.values()
    )
    rows = []
    for column, by_value in comparison.slices.items():
        for value, by_label in by_value.items():
            for label, found in by_label.items():
                differences = comparison.slice_differences.get(column, {}).get(value, {}).get(label, {})
                cells = [_signed(differences.get(metric)) for metric in metrics]
                counted = next(iter(found.values()), None)
                effective = f"{counted.effective_rows:,.0f}" if counted else None
                rows.append((f"{column} = {value}", label, found.get("auc"), *cells, effective))
    head = ("slice", "label", "AUC, student", *(f"Δ {METRICS.get(metric, metric)}" for metric in metrics), "effective rows")
    note = "The student in each slice, and Δ: minus production, paired by row."
    return Section("slices", "Slices", note, head, tuple(rows), is_detail=True)


def _is_known(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.value is not None


def _signed(estimate: Estimate | None) -> Signed | None:
    return Signed(estimate) if estimate is not None else None


def _models(metrics: Mapping[str, object]) -> list[str]:
    return [model for model in (*MODELS, *sorted(set(metrics) - set(MODELS))) if model in metrics]


def _keys(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _known(mappings: Iterable[Mapping[str, object]]) -> Sequence[str]:
    """The metrics of any of these, those with a name of their own first; the base rate belongs to the rows, to no model."""
    found = _keys(mappings)
    return [*(metric for metric in METRICS if metric in found), *sorted(set(found) - set(METRICS) - {"base_rate"})]
