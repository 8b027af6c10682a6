"""How good the candidate is, how sure that is, and whether it may go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tidewheel.contracts.comparison import Comparability, Estimate, Metrics, ModelComparison
from tidewheel.contracts.evaluation import EvaluateConfig
from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.errors import ContractError
from tidewheel.evaluation.figures import Figures, ReliabilityBin, Slices
from tidewheel.evaluation.gates import Evidence, LabelEvidence, judge
from tidewheel.evaluation.intervals import Users
from tidewheel.evaluation.measure import COMPARED, Sample, differences, estimates, measure, unknown
from tidewheel.evaluation.metrics import bin_of, equal_mass_edges
from tidewheel.evaluation.slices import slice_gates

if TYPE_CHECKING:
    import pyarrow as pa

CANDIDATE, PRODUCTION, RANKER = "student", "production", "ranker"
MAX_SLICE_VALUES = 12  # the heaviest values of a slice column get a row of the report each
Scores = Mapping[str, Mapping[str, np.ndarray]]
Faults = Mapping[tuple[str, str], str]


def evaluate(
    table: pa.Table, scores: Scores, labels: Sequence[LabelConfig], config: EvaluateConfig
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
    sample = _sample(table, labels, config)
    _check_shapes(scores, labels, len(sample.weight))
    if not (np.isfinite(sample.weight) & (sample.weight > 0)).all():
        broken = Reason(
            check="weight", phase=Phase.ERROR, message="weight: some are not finite and above 0; nothing was measured"
        )
        return Evaluation(verdict=combine([broken]), metrics={}), Figures({}, {}, {})
    scores = {model: {name: found.astype(np.float64) for name, found in by.items()} for model, by in scores.items()}
    names = [label.name for label in labels]
    faults = {(model, name): fault_of(by[name]) for model, by in scores.items() for name in names if name in by}
    metrics, gaps = _compare(scores, sample, names, faults, at_least=1)
    slices: Slices = {}
    slice_gaps: Slices = {}
    for column, value, rows in _slices(table, config, sample):
        part = {model: {name: found[rows] for name, found in by.items()} for model, by in scores.items() if model != RANKER}
        found, differ = _compare(part, sample.take(rows), names, faults, config.min_positives)
        slices.setdefault(column, {})[value] = found[CANDIDATE]
        slice_gaps.setdefault(column, {})[value] = differ
    evidence = Evidence(
        rows=len(sample.weight),
        users=sample.users.number,
        has_production=PRODUCTION in scores,
        labels=tuple(_evidence(label, sample, metrics, gaps, faults) for label in labels),
    )
    gated = [label.name for label in labels if label.gated]
    reasons = [*judge(evidence, config), *slice_gates(slice_gaps if gaps else {}, gated, config)]
    evaluation = Evaluation(
        verdict=combine(reasons),
        metrics=metrics,
        comparison=ModelComparison(
            baseline=Comparability.COMPARABLE if PRODUCTION in scores else Comparability.NO_BASELINE,
            differences=gaps,
            slices=slices,
            slice_differences=slice_gaps if gaps else {},
        ),
    )
    reliability = {
        model: {name: _reliability(scores[model][name], sample, name) for other, name in faults if other == model}
        for model in scores
    }
    return evaluation, Figures(metrics, slices, reliability)


def fault_of(probabilities: np.ndarray) -> str:
    """What is wrong with these probabilities (B,), or nothing."""
    broken = int((~np.isfinite(probabilities)).sum())
    if broken:
        return f"{broken} of {len(probabilities)} scores are not finite"
    outside = int(((probabilities < 0) | (probabilities > 1)).sum())
    if outside:
        return f"{outside} of {len(probabilities)} scores are not in [0, 1]"
    if len(probabilities) > 1 and (probabilities == probabilities[0]).all():
        return f"all {len(probabilities)} scores are {probabilities[0]:.6g}: nothing is ranked"
    return ""


def _compare(
    scores: Scores, sample: Sample, labels: Sequence[str], faults: Faults, at_least: int
) -> tuple[Metrics, dict[str, dict[str, Estimate]]]:
    """Model -> label -> metrics, and label -> student minus production, on the rows of one sample.

    What has a fault, or fewer than `at_least` rows of a class, is unknown.
    """
    metrics: Metrics = {model: {} for model in scores}
    gaps: dict[str, dict[str, Estimate]] = {}
    for name in labels:
        is_judgeable = sample.is_judgeable(name, at_least)
        found = {
            model: measure(by[name], sample, name)
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


def _sample(table: pa.Table, labels: Sequence[LabelConfig], config: EvaluateConfig) -> Sample:
    needed = ["user_id", "request_id", WEIGHT, *(label_column(label.name) for label in labels), *config.slices]
    if missing := [name for name in needed if name not in table.column_names]:
        raise ContractError(f"evaluation rows: columns {', '.join(missing)} are missing; sample again")
    return Sample(
        users=Users.of(table["user_id"].to_numpy()),
        requests=_codes(table["request_id"])[0],
        weight=table[WEIGHT].to_numpy().astype(np.float64),
        labels={label.name: table[label_column(label.name)].to_numpy() for label in labels},
    )


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[object]]:
    """(B,) a code for each value, null included, and the values."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def _check_shapes(scores: Scores, labels: Sequence[LabelConfig], rows: int) -> None:
    for label in labels:
        if label.name not in scores.get(CANDIDATE, {}):
            raise ContractError(
                f"scores of {CANDIDATE}: label {label.name} is missing; expected one for every label of the recipe"
            )
    for model, by in scores.items():
        for name, values in by.items():
            if values.shape != (rows,):
                raise ContractError(f"scores of {model} for {name}: shape {values.shape}; expected ({rows},), one a row")


def _evidence(
    label: LabelConfig, sample: Sample, metrics: Metrics, gaps: Mapping[str, Mapping[str, Estimate]], faults: Faults
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
        difference=gaps.get(name),
        fault=fault,
    )


def _slices(table: pa.Table, config: EvaluateConfig, sample: Sample) -> Iterator[tuple[str, str, np.ndarray]]:
    """Column, value and the indexes of its rows, for the heaviest values of every slice column, heaviest first."""
    for column in config.slices:
        codes, values = _codes(table[column])
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
