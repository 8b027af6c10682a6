"""What the drawings of the report are made from."""

from __future__ import annotations

from dataclasses import dataclass

from tidewheel.contracts.comparison import Metrics

# slice column -> its value, as text -> label -> metric -> estimate of the student
Slices = dict[str, Metrics]


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows with similar probabilities: weighted mean `predicted`, weighted positive rate `actual`, number of `rows`."""

    predicted: float
    actual: float
    rows: int


@dataclass(frozen=True)
class Figures:
    """The numbers behind the report's drawings. `reliability`: model -> label -> bins in ascending order."""

    metrics: Metrics
    slices: Slices
    reliability: dict[str, dict[str, tuple[ReliabilityBin, ...]]]
