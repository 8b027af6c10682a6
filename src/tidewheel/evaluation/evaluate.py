"""How good the candidate is, how sure that is, and whether it may go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.recipe import EvaluateConfig, LabelConfig
from tidewheel.contracts.report import Estimate, Metrics
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.contracts.verdict import Phase, Reason, combine
from tidewheel.errors import ContractError
from tidewheel.evaluation.bootstrap import Statistic, bootstrap, interval, reflected_interval
from tidewheel.evaluation.figures import Figures, ReliabilityBin, Slices
from tidewheel.evaluation.gates import Evidence, LabelEvidence, judge
from tidewheel.evaluation.metrics import (
    PresortedAuc,
    bin_of,
    binned_error,
    effective_rows,
    equal_mass_edges,
    row_loss,
    weighted_sum,
)

if TYPE_CHECKING:
    import pyarrow as pa

CANDIDATE, PRODUCTION = "student", "production"
MAX_SLICE_VALUES = 12  # the heaviest values of a slice column get a row of the report each
Scores = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Sample:
    """The evaluation rows as arrays (B,): code of the user, weight, 0/1 of each label."""

    users: np.ndarray
    weight: np.ndarray
    labels: Mapping[str, np.ndarray]

    @property
    def num_users(self) -> int:
        return int(self.users.max()) + 1 if len(self.users) else 0


def evaluate(
    table: pa.Table, scores: Scores, labels: Sequence[LabelConfig], config: EvaluateConfig
) -> tuple[Evaluation, Figures]:
    """Measure every model with intervals, compare the student with production, and judge the student.

    Metrics are weighted by column `weight`, so they estimate what the full log would say; intervals are 95%, by bootstrap
    over users. All models see the same replicates: the differences that the gates judge are paired.

    Args:
        table: evaluation rows, with `user_id`, `weight`, the labels and the columns of `config.slices`.
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
    faults = {(model, label): fault_of(values) for model, by in scores.items() for label, values in by.items()}
    usable = {key for key, fault in faults.items() if not fault and key[1] in sample.labels}
    statistics: dict[str, Statistic] = {}
    for model, label in sorted(usable):
        statistics |= _statistics(f"{model}/{label}", scores[model][label], sample.labels[label], sample.weight)
    slices = _slices(table, config, sample)
    for place, rows in slices.items():
        for label in sorted(label for model, label in usable if model == CANDIDATE):
            if _is_judgeable(sample.labels[label][rows], config):
                statistics |= _slice_statistics(f"{place}/{label}", scores[CANDIDATE][label], sample.labels[label], rows)
    values = {name: statistic(sample.weight) for name, statistic in statistics.items()} if len(sample.weight) else {}
    replicates = bootstrap(statistics, sample.users, sample.weight, config.bootstrap_replicates)
    found = _Found(values, replicates)
    effective = effective_rows(sample.weight)
    metrics: Metrics = {
        model: {
            label: {name: found.estimate(f"{model}/{label}/{name}", effective) for name in METRICS}
            for label in by
            if label in sample.labels
        }
        for model, by in scores.items()
    }
    evidence = Evidence(
        rows=len(sample.weight),
        users=sample.num_users,
        has_production=PRODUCTION in scores,
        labels=tuple(_evidence(label, sample, metrics, faults, found) for label in labels),
    )
    by_slice = _slice_estimates(slices, sample, found, [label.name for label in labels])
    differences = {label.label: dict(label.difference) for label in evidence.labels if label.difference is not None}
    evaluation = Evaluation(verdict=combine(judge(evidence, config)), metrics=metrics, differences=differences, slices=by_slice)
    reliability = {
        model: {label: _reliability(scores[model][label], sample, label) for other, label in sorted(usable) if other == model}
        for model in scores
    }
    return evaluation, Figures(metrics, by_slice, reliability)


METRICS = ("auc", "logloss", "ece", "calibration_ratio")


def fault_of(probabilities: np.ndarray) -> str:
    """What is wrong with these probabilities (B,), or nothing."""
    broken = int((~np.isfinite(probabilities)).sum())
    if broken:
        return f"{broken} of {len(probabilities)} scores are not finite"
    outside = int(((probabilities < 0) | (probabilities > 1)).sum())
    return f"{outside} of {len(probabilities)} scores are not in [0, 1]" if outside else ""


@dataclass(frozen=True)
class _Found:
    """Value and replicates of every statistic, by name."""

    values: Mapping[str, float]
    replicates: Mapping[str, np.ndarray]

    def estimate(self, name: str, rows: float) -> Estimate:
        if name not in self.values:
            return Estimate(value=None, lower=None, upper=None, effective_rows=rows)
        value = self.values[name]
        if name.endswith("/ece"):
            return _estimate(value, reflected_interval(value, self.replicates[name]), rows)
        return _estimate(value, interval(self.replicates[name]), rows)

    def difference(self, name: str, first: str, second: str, rows: float) -> Estimate:
        one, two = f"{first}/{name}", f"{second}/{name}"
        if one not in self.values or two not in self.values:
            return Estimate(value=None, lower=None, upper=None, effective_rows=rows)
        return _estimate(self.values[one] - self.values[two], interval(self.replicates[one] - self.replicates[two]), rows)


def _estimate(value: float, bounds: tuple[float, float], rows: float) -> Estimate:
    numbers = [float(number) if np.isfinite(number) else None for number in (value, *bounds)]
    return Estimate(value=numbers[0], lower=numbers[1], upper=numbers[2], effective_rows=rows)


def _sample(table: pa.Table, labels: Sequence[LabelConfig], config: EvaluateConfig) -> Sample:
    needed = ["user_id", WEIGHT, *(label_column(label.name) for label in labels), *config.slices]
    if missing := [name for name in needed if name not in table.column_names]:
        raise ContractError(f"evaluation rows: columns {', '.join(missing)} are missing; sample again")
    _, users = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    values = {label.name: table[label_column(label.name)].to_numpy() for label in labels}
    return Sample(users=users.astype(np.int64), weight=table[WEIGHT].to_numpy().astype(np.float64), labels=values)


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


def _statistics(place: str, probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> dict[str, Statistic]:
    """All metrics of one model's label. ECE keeps the bins of the full sample, so that replicates differ in rows only."""
    probabilities = probabilities.astype(np.float64)
    positive = (labels == 1).astype(np.float64)
    loss, gap = row_loss(probabilities, labels), probabilities - positive
    bins = bin_of(probabilities, equal_mass_edges(probabilities, weight))
    return {
        f"{place}/auc": PresortedAuc(probabilities, labels),
        f"{place}/logloss": lambda w: _ratio(weighted_sum(w, loss), w.sum()),
        f"{place}/ece": lambda w: binned_error(bins, w * gap, float(w.sum())),
        f"{place}/calibration_ratio": lambda w: _ratio(weighted_sum(w, probabilities), weighted_sum(w, positive)),
    }


def _is_judgeable(labels: np.ndarray, config: EvaluateConfig) -> bool:
    """Whether a slice has enough rows on either side for its interval to mean something."""
    positives = int((labels == 1).sum())
    return min(positives, len(labels) - positives) >= config.min_positives


def _slice_statistics(place: str, probabilities: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> dict[str, Statistic]:
    """Metrics of the rows (indexes) of one slice, as functions of the weights of all rows."""
    probabilities, labels = probabilities[rows].astype(np.float64), labels[rows]
    positive = (labels == 1).astype(np.float64)
    area = PresortedAuc(probabilities, labels)
    return {
        f"{place}/auc": lambda w: area(w.take(rows)),
        f"{place}/calibration_ratio": lambda w: _ratio(
            weighted_sum(w.take(rows), probabilities), weighted_sum(w.take(rows), positive)
        ),
    }


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else float("nan")


def _evidence(
    label: LabelConfig, sample: Sample, metrics: Metrics, faults: Mapping[tuple[str, str], str], found: _Found
) -> LabelEvidence:
    name, rows = label.name, effective_rows(sample.weight)
    difference = None
    fault = faults[CANDIDATE, name]
    if (PRODUCTION, name) in faults:
        difference = {
            metric: found.difference(metric, f"{CANDIDATE}/{name}", f"{PRODUCTION}/{name}", rows)
            for metric in ("auc", "logloss")
        }
        fault = fault or (f"production: {faults[PRODUCTION, name]}" if faults[PRODUCTION, name] else "")
    positives = int((sample.labels[name] == 1).sum())
    return LabelEvidence(
        label=name,
        is_gated=label.gated,
        positives=positives,
        negatives=len(sample.weight) - positives,
        candidate=metrics[CANDIDATE][name],
        difference=difference,
        fault=fault,
    )


def _slices(table: pa.Table, config: EvaluateConfig, sample: Sample) -> dict[str, np.ndarray]:
    """`column/value` -> indexes of its rows, for the heaviest values of every slice column, heaviest first."""
    places = {}
    for column in config.slices:
        encoded = table[column].combine_chunks().dictionary_encode(null_encoding="encode")
        codes = encoded.indices.to_numpy()
        totals = np.bincount(codes, weights=sample.weight, minlength=len(encoded.dictionary))
        for code in np.argsort(-totals, kind="stable")[:MAX_SLICE_VALUES]:
            places[f"{column}/{encoded.dictionary[int(code)].as_py()}"] = np.flatnonzero(codes == code)
    return places


def _slice_estimates(slices: Mapping[str, np.ndarray], sample: Sample, found: _Found, labels: Sequence[str]) -> Slices:
    estimates: Slices = {}
    for place, rows in slices.items():
        column, value = place.split("/", 1)
        effective = effective_rows(sample.weight[rows])
        estimates.setdefault(column, {})[value] = {
            label: {name: found.estimate(f"{place}/{label}/{name}", effective) for name in ("auc", "calibration_ratio")}
            for label in labels
        }
    return estimates


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
