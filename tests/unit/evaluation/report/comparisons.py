"""A comparison that fills every field, for the tests of those who show it."""

from __future__ import annotations

from tidewheel.contracts.comparison import (
    KENDALL_TAU,
    TOP_CHURN,
    Comparability,
    Estimate,
    Metrics,
    ModelComparison,
    Replay,
    Support,
)

METRICS = ("auc", "request_auc", "logloss", "normalized_entropy", "ece", "calibration_ratio", "base_rate")
RELEASE = "5" * 64


def estimate(value: float | None, reach: float | None = 0.01, rows: float = 4321.0) -> Estimate:
    known = value is not None and reach is not None
    lower, upper = (value - reach, value + reach) if known else (None, None)  # type: ignore[operator]
    return Estimate(value=value, lower=lower, upper=upper, effective_rows=rows)


def metrics(*models: str, labels: tuple[str, ...] = ("click", "like")) -> Metrics:
    """Numbers that all differ: 0.5 + model / 10 + label / 100 + metric / 1000."""
    return {
        model: {
            label: {metric: estimate(0.5 + i / 10 + j / 100 + k / 1000) for k, metric in enumerate(METRICS)}
            for j, label in enumerate(labels)
        }
        for i, model in enumerate(models)
    }


def replay() -> Replay:
    return Replay(
        requests=1234,
        rows=9876,
        top=3,
        judged_by="snips",
        values={
            "student": {"snips": estimate(0.3111), "ips": estimate(0.3222)},
            "production": {"snips": estimate(0.2999), "ips": estimate(0.2888)},
        },
        differences={"snips": estimate(0.0112), "ips": estimate(0.0334)},
        support={
            "student": Support(
                effective_rows=876.0, reached=0.423, mean_weight=0.987, largest_share=0.0123, smallest_propensity=0.125
            )
        },
    )


def comparison(**changes: object) -> ModelComparison:
    differences = {"click": {"auc": estimate(0.0123), "logloss": estimate(-0.0045)}}
    known: dict[str, object] = {
        "baseline": Comparability.COMPARABLE,
        "differences": differences,
        "slices": {"surface": {"feed": {"click": {"auc": estimate(0.7123)}}}},
        "slice_differences": {"surface": {"feed": {"click": {"auc": estimate(-0.0321)}}}},
        "randomized": metrics("student", "production", labels=("click",)),
        "replay": {"click": replay()},
        "stability": {"click": {KENDALL_TAU: estimate(0.8765), TOP_CHURN: estimate(0.1357)}},
        "releases": {RELEASE: {"click": {"auc": estimate(0.0246)}}},
    }
    return ModelComparison.model_validate(known | changes)
