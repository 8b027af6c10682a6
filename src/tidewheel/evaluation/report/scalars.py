"""The numbers of a run by name: what registries and pipeline UIs keep as metrics. Pure, from contracts alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from tidewheel.contracts.comparison import Estimate, Metrics, ModelComparison


def scalars(metrics: Metrics, comparison: ModelComparison | None) -> Iterator[tuple[str, float]]:
    """Everything that is one number, by a dotted name: what registries and pipelines keep as metrics.

    `student.click.auc`, `….lower`, `….upper`; `difference`, `replay`, `stability` and `release` likewise. Only finite ones.
    """
    comparison = comparison or ModelComparison()
    estimates: dict[str, Estimate] = {}
    for model, by_label in metrics.items():
        estimates |= _named(model, by_label)
    estimates |= _named("difference", comparison.differences) | _named("stability", comparison.stability)
    for model, by_label in comparison.randomized.items():
        estimates |= _named(f"randomized.{model}", by_label)
    for digest, by_label in comparison.releases.items():
        estimates |= _named(f"release.{digest[:12]}", by_label)
    for label, replay in comparison.replay.items():
        for model, by_estimator in replay.values.items():
            estimates |= {f"replay.{model}.{label}.{name}": found for name, found in by_estimator.items()}
        estimates |= {f"replay.difference.{label}.{name}": found for name, found in replay.differences.items()}
        for model, support in replay.support.items():
            yield f"replay.{model}.{label}.support", support.effective_rows
    for name, estimate in estimates.items():
        for suffix, value in (("", estimate.value), (".lower", estimate.lower), (".upper", estimate.upper)):
            if value is not None and math.isfinite(value):
                yield name + suffix, value


def _named(prefix: str, by_label: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Estimate]:
    return {f"{prefix}.{label}.{metric}": found for label, by in by_label.items() for metric, found in by.items()}
