"""What steps hand each other beside datasets and bundles."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.comparison import Metrics, ModelComparison
from tidewheel.contracts.dataset import FileEntry
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.teacher import TeacherChoice
from tidewheel.contracts.verdict import Verdict
from tidewheel.contracts.window import Window


class Precision(Contract):
    """How exact the shares of one sample are, when whole users come and go by chance.

    `effective_rows`: so many independent rows of weight 1 would be as exact, on average over the bins (weights and the
    likeness of one user's rows accounted for). `degrees`: degrees of freedom of the shares, at most bins - 1.
    """

    effective_rows: float
    degrees: float


class Quantiles(Contract):
    """A weighted distribution function: the share `cumulative` of the known values lies below each of `points`, ascending.

    `effective_rows`: an unweighted sample of so many independent rows strays as far at the worst point.
    """

    points: tuple[float, ...]
    cumulative: tuple[float, ...]
    effective_rows: float


class Profile(Contract):
    """Weighted histograms of the training rows: what drift is measured against.

    numeric: feature -> ascending inner bin edges (quantiles); categorical: feature -> the values that have a bin of
    their own, as text. `shares` holds the weight share of each bin, which sum to 1: numeric has len(edges) + 1 bins and
    one last for null; categorical has one a value, one for all others and one last for null. Labels: weighted positive
    rate. `effective_rows` is Kish's. `precision` is by feature or label column; profiles of older bundles have none.
    """

    numeric_edges: dict[str, tuple[float, ...]]
    categorical_values: dict[str, tuple[str, ...]]
    shares: dict[str, tuple[float, ...]]
    label_rates: dict[str, float]
    rows: int = Field(ge=0)
    effective_rows: float
    weight_sum: float = 0.0
    quantiles: dict[str, Quantiles] = {}
    precision: dict[str, Precision] = {}


class Comparison(Contract):
    """One number of the new rows, set against its limit, with an interval that holds together with all others of its run.

    `value` is null where there was nothing to measure. `baseline_rows` are production's effective rows, null where the
    number is of the new rows alone. `check` is the name of the verdict's reason.
    """

    check: str
    subject: str
    statistic: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    limit: float
    effective_rows: float = 0.0
    baseline_rows: float | None = None


class WindowRecord(Contract):
    """What a window that passed validation looked like: later windows are judged against the median of these.

    `weight_sum` estimates the impressions that the training rows stand for; `label_precision` are effective rows.
    """

    window: Window
    rows: int
    weight_sum: float
    label_rates: dict[str, float]
    label_precision: dict[str, float]
    newest: AwareDatetime | None


class DataReport(Contract):
    """Everything that `validate_data` found. `profile` has the bins of `baseline`, or its own before the first release."""

    verdict: Verdict
    window: WindowRecord
    trailing: tuple[WindowRecord, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    profile: Profile
    baseline: Profile | None = None


class Baseline(Contract):
    """What this run compares with and learns from, pinned by digest once for the whole run.

    `production` is a bundle in the store, null before the first release; so is `teaching.bundle`, null when none may teach.
    `earlier` served before it and are still trusted, newest first: as many as `evaluate.releases` asks for.
    `ledger_number` is the number of the last ledger entry seen, 0 for none: `deploy` refuses to act on a stale view.
    """

    production: str | None
    earlier: tuple[str, ...] = ()
    teaching: TeacherChoice
    ledger_number: int = Field(ge=0)


class ModelManifest(Contract):
    """A trained ranker in the store: weights, network and encoders, not yet a release unit.

    Of an ensemble these files are the first member's; `members` are the graphs of the others, and the ranker is the mean of all
    members' probabilities.
    """

    features: tuple[FeatureSpec, ...]
    labels: tuple[str, ...]
    network: str
    encoders: str
    weights: str
    graph: str | None
    members: tuple[str, ...] = ()
    teacher: str | None
    generation: int
    inputs: dict[str, str]
    files: tuple[FileEntry, ...] = ()


class Evaluation(Contract):
    """What `evaluate` found."""

    verdict: Verdict
    metrics: Metrics
    comparison: ModelComparison = ModelComparison()


class Rollout(Contract):
    """What `deploy` did: the verdict of the canary and the decision that stands in the ledger."""

    verdict: Verdict
    decision: str
    production: str | None
    ledger_number: int
