"""What steps hand each other beside datasets and bundles."""

from __future__ import annotations

from pydantic import Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.dataset import FileEntry
from tidewheel.contracts.report import Estimate, Metrics
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.verdict import Verdict


class Profile(Contract):
    """Weighted histograms of the training rows: what drift is measured against.

    numeric: feature -> ascending inner bin edges (quantiles); categorical: feature -> the values that have a bin of
    their own, as text. `shares` holds the weight share of each bin, which sum to 1: numeric has len(edges) + 1 bins and
    one last for null; categorical has one a value, one for all others and one last for null. Labels: weighted positive rate.
    """

    numeric_edges: dict[str, tuple[float, ...]]
    categorical_values: dict[str, tuple[str, ...]]
    shares: dict[str, tuple[float, ...]]
    label_rates: dict[str, float]
    rows: int = Field(ge=0)
    effective_rows: float


class Baseline(Contract):
    """What this run compares with and learns from, pinned by digest once for the whole run.

    `production` and `teacher` are bundles in the store, null before the first release (teacher: also when none is eligible).
    `ledger_number` is the number of the last ledger entry seen, 0 for none: `deploy` refuses to act on a stale view.
    """

    production: str | None
    teacher: str | None
    teacher_generation: int | None
    ledger_number: int = Field(ge=0)


class ModelManifest(Contract):
    """A trained ranker in the store: weights, network and encoders, not yet a release unit."""

    features: tuple[FeatureSpec, ...]
    labels: tuple[str, ...]
    network: str
    encoders: str
    weights: str
    graph: str | None
    teacher: str | None
    generation: int
    inputs: dict[str, str]
    files: tuple[FileEntry, ...] = ()


class Evaluation(Contract):
    """What `evaluate` found.

    `differences`: label -> metric -> student minus production, paired; empty before the first release.
    `slices`: slice column -> its value, as text -> label -> metric -> estimate of the student.
    """

    verdict: Verdict
    metrics: Metrics
    differences: dict[str, dict[str, Estimate]] = {}
    slices: dict[str, Metrics] = {}


class Rollout(Contract):
    """What `deploy` did: the verdict of the canary and the decision that stands in the ledger."""

    verdict: Verdict
    decision: str
    production: str | None
    ledger_number: int
