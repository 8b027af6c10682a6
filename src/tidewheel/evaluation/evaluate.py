"""How good the candidate is, how sure that is, and whether it may go on. Legend: B rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tidewheel.contracts.comparison import (
    CANDIDATE,
    KENDALL_TAU,
    PRODUCTION,
    RANKER,
    TOP_CHURN,
    Comparability,
    Estimate,
    Metrics,
    ModelComparison,
    Replay,
)
from tidewheel.contracts.evaluation import EvaluateConfig
from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.errors import ContractError
from tidewheel.evaluation.figures import Figures, ReliabilityBin, Slices
from tidewheel.evaluation.gates import Evidence, LabelEvidence, judge
from tidewheel.evaluation.measure import COMPARED, differences, estimate, estimates, measure, unknown
from tidewheel.evaluation.metrics import Measured, bin_of, equal_mass_edges
from tidewheel.evaluation.randomized import replay
from tidewheel.evaluation.sample import Sample, Scores, checked, codes_of, fault_of, fault_of_rows
from tidewheel.evaluation.slices import slice_gates
from tidewheel.evaluation.stability import kendall_tau, top_churn

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SLICE_VALUES = 12  # the heaviest values of a slice column get a row of the report each
Faults = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Beside:
    """What else the student is measured on and beside; empty where there is no such thing.

    randomized: rows of requests whose order was random, with `propensity`, and `randomized_scores` of them.
    releases: digest of an earlier release -> label -> its probabilities (B,) of the evaluation rows.
    unmeasured: digest of an earlier release -> why there are none.
    missing_features: what production takes and these rows cannot give: its scores are of the other features.
    """

    randomized: pa.Table | None = None
    randomized_scores: Scores = field(default_factory=dict)
    releases: Scores = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    missing_features: tuple[str, ...] = ()


def evaluate(
    table: pa.Table, scores: Scores, labels: Sequence[LabelConfig], config: EvaluateConfig, beside: Beside | None = None
) -> tuple[Evaluation, Figures]:
    """Measure every model with intervals, compare the student with production, and judge the student.

    Metrics are weighted by column `weight`, so they estimate what the full log would say; intervals are 95%, over users.
    Differences are paired by row.

    Args:
        table: evaluation rows, with `user_id`, `request_id`, `weight`, the labels and the columns of `config.slices`.
        scores: model (`student`, and `ranker`, `production` where there are such) -> label -> probabilities (B,).

    Raises:
        ContractError: a column or the student's scores of a label are missing, or scores are not one a row.
    """
    beside = beside or Beside()
    names = [label.name for label in labels]
    sample = Sample.of(table, names, config.slices)
    _check_labels(scores, names)
    scores, releases = (checked(given, table.num_rows, "evaluation rows") for given in (scores, beside.releases))
    tables = [table] if beside.randomized is None else [table, beside.randomized]
    if broken := fault_of_rows(tables, "evaluation rows"):
        reason = Reason(check="rows", phase=Phase.ERROR, message=f"{broken}; nothing was measured")
        return Evaluation(verdict=combine([reason]), metrics={}), Figures({}, {}, {})
    faults = {(model, name): fault_of(by[name]) for model, by in scores.items() for name in names if name in by}
    metrics, gaps = _compare(scores, sample, names, faults, 1, config.top)
    slices, slice_gaps = _by_slice(table, scores, sample, names, faults, config)
    randomized = _on_randomized(beside, beside.randomized, names, config) if beside.randomized is not None else _Randomized()
    comparison = ModelComparison(
        baseline=_comparability(scores, beside),
        missing_features=beside.missing_features,
        differences=gaps,
        slices=slices,
        slice_differences=slice_gaps,
        randomized=randomized.metrics,
        replay=randomized.replay,
        stability=_stability(scores, sample, names, faults, config.top, randomized.churn),
        releases={digest: _differences(scores[CANDIDATE], by, sample, names, config.top) for digest, by in releases.items()},
    )
    evidence = Evidence(
        rows=len(sample.weight),
        users=sample.users.number,
        has_production=PRODUCTION in scores,
        labels=tuple(_evidence(label, sample, metrics, comparison, faults) for label in labels),
        incompatible=_why_incompatible(beside),
        unmeasured=beside.unmeasured,
    )
    gated = [label.name for label in labels if label.gated]
    verdict = combine([*judge(evidence, config), *slice_gates(slice_gaps, gated, config)])
    reliability = {
        model: {name: _reliability(by[name], sample, name) for name in names if name in by} for model, by in scores.items()
    }
    return Evaluation(verdict=verdict, metrics=metrics, comparison=comparison), Figures(metrics, slices, reliability)


def _compare(
    scores: Scores, sample: Sample, labels: Sequence[str], faults: Faults, at_least: int, top: int
) -> tuple[Metrics, dict[str, dict[str, Estimate]]]:
    """Model -> label -> metrics, and label -> student minus production, on the rows of one sample.

    What has a fault, or fewer than `at_least` rows of a class, is unknown.
    """
    metrics: Metrics = {model: {} for model in scores}
    gaps: dict[str, dict[str, Estimate]] = {}
    for name in labels:
        is_judgeable = sample.is_judgeable(name, at_least)
        found = {
            model: measure(by[name], sample, name, top)
            for model, by in scores.items()
            if is_judgeable and name in by and not faults[model, name]
        }
        for model, by in scores.items():
            if name in by:
                known = estimates(found[model], by[name], sample, name) if model in found else unknown(sample)
                metrics[model][name] = known
        if name in scores.get(PRODUCTION, {}):
            both = CANDIDATE in found and PRODUCTION in found
            gaps[name] = differences(found[CANDIDATE], found[PRODUCTION], sample) if both else unknown(sample, COMPARED)
    return metrics, gaps


def _differences(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], sample: Sample, labels: Sequence[str], top: int
) -> dict[str, dict[str, Estimate]]:
    """label -> one minus the other, of the labels that both predict without a fault."""
    found = {}
    for name in labels:
        both = [by[name] for by in (one, other) if name in by and not fault_of(by[name])]
        if len(both) == 2:
            measured = [measure(probabilities, sample, name, top) for probabilities in both]
            found[name] = differences(measured[0], measured[1], sample)
    return found


def _by_slice(
    table: pa.Table, scores: Scores, sample: Sample, labels: Sequence[str], faults: Faults, config: EvaluateConfig
) -> tuple[Slices, Slices]:
    """The student in each slice, and there minus production, empty without one."""
    slices: Slices = {}
    gaps: Slices = {}
    for column, value, rows in _slices(table, config, sample):
        part = {model: {name: found[rows] for name, found in by.items()} for model, by in scores.items() if model != RANKER}
        found, differ = _compare(part, sample.take(rows), labels, faults, config.min_positives, config.top)
        slices.setdefault(column, {})[value] = found[CANDIDATE]
        if PRODUCTION in scores:
            gaps.setdefault(column, {})[value] = differ
    return slices, gaps


@dataclass(frozen=True)
class _Randomized:
    """What requests in random order say: `metrics` of student and production, `replay` and `churn` by label."""

    metrics: Metrics = field(default_factory=dict)
    replay: dict[str, Replay] = field(default_factory=dict)
    churn: dict[str, Estimate] = field(default_factory=dict)


def _on_randomized(beside: Beside, table: pa.Table, labels: Sequence[str], config: EvaluateConfig) -> _Randomized:
    """Replays are of the labels that the student can rank there, churn of those that production can, too.

    Raises:
        ContractError: a propensity is not in (0, 1].
    """
    sample = Sample.of(table, labels, ("propensity",))
    scores = checked(beside.randomized_scores, table.num_rows, "randomized rows")
    propensity = table["propensity"].to_numpy().astype(np.float64)
    if wrong := int((~((propensity > 0) & (propensity <= 1))).sum()):
        raise ContractError(f"randomized rows: propensity of {wrong:,} of {len(propensity):,} rows is not in (0, 1]")
    faults = {(model, name): fault_of(by[name]) for model, by in scores.items() for name in labels if name in by}
    metrics, _ = _compare(scores, sample, labels, faults, 1, config.top)
    replays = {}
    for name in labels:
        usable = {
            model: scores[model][name]
            for model in (CANDIDATE, PRODUCTION)
            if name in scores.get(model, {}) and not faults[model, name]
        }
        if CANDIDATE in usable and sample.is_judgeable(name, 1):
            against = PRODUCTION if PRODUCTION in usable else None
            replays[name] = replay(usable, sample, name, propensity, config.top, against)
    reordered = _stability(scores, sample, labels, faults, config.top, {})
    return _Randomized(metrics, replays, {name: found[TOP_CHURN] for name, found in reordered.items()})


def _stability(
    scores: Scores, sample: Sample, labels: Sequence[str], faults: Faults, top: int, elsewhere: Mapping[str, Estimate]
) -> dict[str, dict[str, Estimate]]:
    """How student and production order requests, by label; churn is `elsewhere` where these requests are not whole.

    Without a request of two rows there is no order, and no agreement on one.
    """
    found: dict[str, dict[str, Estimate]] = {}
    has_pairs = len(np.unique(sample.requests)) < len(sample.requests)
    for name in labels:
        if any(faults.get((model, name), "missing") for model in (CANDIDATE, PRODUCTION)):
            continue
        both = scores[CANDIDATE][name], scores[PRODUCTION][name]
        whole = top_churn(*both, sample.requests, top) if sample.has_lists else Measured.undefined(len(sample.weight))
        churn = estimate(whole, sample)
        found[name] = {TOP_CHURN: churn if sample.has_lists else elsewhere.get(name, churn)}
        if has_pairs:
            found[name][KENDALL_TAU] = estimate(kendall_tau(*both, sample.weight, sample.requests), sample)
    return found


def _comparability(scores: Scores, beside: Beside) -> Comparability:
    if PRODUCTION not in scores:
        return Comparability.NO_BASELINE
    return Comparability.INCOMPATIBLE if beside.missing_features else Comparability.COMPARABLE


def _why_incompatible(beside: Beside) -> str:
    if not beside.missing_features:
        return ""
    names = ", ".join(beside.missing_features)
    return f"production takes {names}, which these rows cannot give; it is compared with on the features that both have"


def _check_labels(scores: Scores, labels: Sequence[str]) -> None:
    if missing := [name for name in labels if name not in scores.get(CANDIDATE, {})]:
        raise ContractError(f"scores of {CANDIDATE}: label {missing[0]} is missing; expected one for every label of the recipe")


def _evidence(
    label: LabelConfig, sample: Sample, metrics: Metrics, comparison: ModelComparison, faults: Faults
) -> LabelEvidence:
    name = label.name
    positives = int((sample.labels[name] == 1).sum())
    fault = faults[CANDIDATE, name]
    if not fault and faults.get((PRODUCTION, name)):
        fault = f"production: {faults[PRODUCTION, name]}"
    return LabelEvidence(
        label=name,
        is_gated=label.gated,
        positives=positives,
        negatives=len(sample.weight) - positives,
        candidate=metrics[CANDIDATE][name],
        difference=comparison.differences.get(name),
        releases={digest: by[name] for digest, by in comparison.releases.items() if name in by},
        replay=comparison.replay.get(name),
        stability=comparison.stability.get(name, {}),
        fault=fault,
    )


def _slices(table: pa.Table, config: EvaluateConfig, sample: Sample) -> Iterator[tuple[str, str, np.ndarray]]:
    """Column, value and the indexes of its rows, for the heaviest values of every slice column, heaviest first."""
    for column in config.slices:
        codes, values = codes_of(table[column])
        totals = np.bincount(codes, weights=sample.weight, minlength=len(values))
        for code in np.argsort(-totals, kind="stable")[:MAX_SLICE_VALUES]:
            yield column, str(values[code]), np.flatnonzero(codes == code)


def _reliability(probabilities: np.ndarray, sample: Sample, label: str) -> tuple[ReliabilityBin, ...]:
    if not len(probabilities):
        return ()
    weight = sample.weight
    bins = bin_of(probabilities, equal_mass_edges(probabilities, weight))
    total, rows = np.bincount(bins, weights=weight), np.bincount(bins)
    predicted = np.bincount(bins, weights=weight * probabilities)
    actual = np.bincount(bins, weights=weight * (sample.labels[label] == 1))
    return tuple(
        ReliabilityBin(predicted=float(predicted[i] / total[i]), actual=float(actual[i] / total[i]), rows=int(rows[i]))
        for i in np.flatnonzero(total)
    )
