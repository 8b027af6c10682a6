"""How a candidate stands beside what served before it: everything that `evaluate` compares. Part of run.json."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tidewheel.contracts.base import Contract

CANDIDATE, PRODUCTION, RANKER = "student", "production", "ranker"  # models of `Metrics`
KENDALL_TAU, TOP_CHURN = "kendall_tau", "top_churn"
SNIPS, ENGAGED_ABOVE = "snips", "engaged_above"  # what a replay is judged by


class Estimate(Contract):
    """A metric with its 95% interval. `effective_rows` is Kish's effective sample size of the weights."""

    value: float | None
    lower: float | None
    upper: float | None
    effective_rows: float


# model (ranker, student, production) -> label -> metric -> estimate
Metrics = dict[str, dict[str, dict[str, Estimate]]]


class Comparability(StrEnum):
    """Whether production can be measured on this window's rows as it was when it was released."""

    NO_BASELINE = "NO_BASELINE"  # nothing was released yet
    COMPARABLE = "COMPARABLE"
    INCOMPATIBLE = "BASELINE_INCOMPATIBLE"  # rows lack what production takes: compared on the features that both have, if any


class Support(Contract):
    """How much of the randomized rows speaks about one ranking.

    `effective_rows`: Kish's, of the importance weights. `reached`: weighted share of rows that the ranking would have picked.
    `mean_weight`: 1 where every request has `top` items to pick and what the log may choose is all there is.
    `largest_share`: what a single row has of the sum of weights. `smallest_propensity`: of any row.
    """

    effective_rows: float
    reached: float
    mean_weight: float
    largest_share: float
    smallest_propensity: float


class Replay(Contract):
    """What users would have done if each model had picked the first `top` of what they were shown in random order.

    `judged_by` names the estimator of the gate. `snips`, where whole requests were logged: engagements of the label per picked
    item, as for `ips`, `clipped_ips`, `doubly_robust` and `switch_doubly_robust`. `engaged_above`, where a sample of them was:
    share of the other items that a model puts below an engaged one. `values`: model -> estimator -> estimate; `differences`:
    estimator -> student minus production, paired; `support`: model -> support.
    """

    requests: int
    rows: int
    top: int
    judged_by: str
    values: dict[str, dict[str, Estimate]]
    differences: dict[str, Estimate] = {}
    support: dict[str, Support] = {}


class ModelComparison(Contract):
    """A candidate beside production and the releases before it.

    missing_features: what production takes and this window's rows cannot give.
    differences: label -> metric -> student minus production, paired by row; empty before the first release.
    slices: slice column -> its value, as text -> label -> metric -> estimate of the student.
    slice_differences: as `differences`, in each slice.
    randomized: as a run's `metrics`, on the rows of requests whose order was random; `replay` by label.
    stability: label -> `kendall_tau`, where a request has two rows, and, of whole requests, `top_churn` between student and
        production within requests.
    releases: digest of an earlier release -> label -> metric -> student minus that release.
    """

    baseline: Comparability = Comparability.NO_BASELINE
    missing_features: tuple[str, ...] = ()
    differences: dict[str, dict[str, Estimate]] = {}
    slices: dict[str, Metrics] = {}
    slice_differences: dict[str, Metrics] = {}
    randomized: Metrics = {}
    replay: dict[str, Replay] = {}
    stability: dict[str, dict[str, Estimate]] = {}
    releases: dict[str, dict[str, dict[str, Estimate]]] = {}


class RocPoint(Contract):
    """Among the rows scored at or above `threshold`: shares of all negative and of all positive rows, weighted."""

    threshold: float
    false_positive_rate: float = Field(ge=0, le=1)
    true_positive_rate: float = Field(ge=0, le=1)


class Confusion(Contract):
    """Weighted rows by what the student said and what happened, at the threshold at which it says yes as often as happens."""

    threshold: float
    true_positive: float
    false_positive: float
    false_negative: float
    true_negative: float


class Curves(Contract):
    """What pipeline UIs draw. `roc`: model -> label -> points from (0, 0) to (1, 1); `confusion`: label -> of the student."""

    roc: dict[str, dict[str, tuple[RocPoint, ...]]] = {}
    confusion: dict[str, Confusion] = {}
