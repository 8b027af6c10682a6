"""What can be made to go wrong in the built-in world, each between `start` and `end`: see tidewheel.world.faults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.sampling import Rate, Share
from tidewheel.contracts.window import Moment


class Fault(Contract):
    """`served_features`: the candidate's servers read features from a broken source, in a canary.

    `inverted_labels`: whole days of the log say the opposite of what users did.
    """

    kind: Literal["served_features", "inverted_labels"]
    start: Moment
    end: Moment


class ProductionFault(Contract):
    """Hits what production's servers do on the days of the log that begin between `start` and `end`; never a canary."""

    start: Moment
    end: Moment


class MissingFeature(ProductionFault):
    """For a `share` of the candidates the feature is not there when they are scored."""

    kind: Literal["missing_feature"]
    feature: str
    share: Rate = 1.0


class ScaledFeature(ProductionFault):
    """The numeric feature is served times `factor`: a rate in percent, a duration in minutes."""

    kind: Literal["scaled_feature"]
    feature: str
    factor: float = 100.0


class StaleFeatures(ProductionFault):
    """Counters and sequences are served as they were `days` days earlier: the online store is not updated any more."""

    kind: Literal["stale_features"]
    features: tuple[str, ...] = Field(min_length=1)
    days: int = Field(default=3, ge=1)


class BrokenCalibrator(ProductionFault):
    """Served is the probability of `slope` x logit + `shift`."""

    kind: Literal["broken_calibrator"]
    slope: float = Field(default=1.0, gt=0)
    shift: float = 0.0


class TrafficShift(ProductionFault):
    """A `share` of the requests come from one surface; the others keep their proportions."""

    kind: Literal["traffic_shift"]
    surface: Literal["feed", "search", "related"]
    share: Share


class LayoutChange(ProductionFault):
    """The item at `position` (from 0) is looked at with probability 1 / (1 + position) ** `power`; 0.2 before."""

    kind: Literal["layout_change"]
    power: float = Field(ge=0)


class DelayedHarm(ProductionFault):
    """The first bundle that begins to serve the log from `start` on pleases at first and tires its users.

    A user whom it served on e earlier days clicks `1 + lift - (lift + loss) x (1 - exp(-e / days))` times as often in the
    requests that it serves: 1 + lift on the first day, 1 - loss in the end. Requests that other bundles serve are as ever.
    """

    kind: Literal["delayed_harm"]
    lift: float = Field(default=0.1, ge=0)
    loss: float = Field(default=0.4, gt=0, le=1)
    days: float = Field(default=5.0, gt=0)


AnyFault = Annotated[
    Fault | MissingFeature | ScaledFeature | StaleFeatures | BrokenCalibrator | TrafficShift | LayoutChange | DelayedHarm,
    Field(discriminator="kind"),
]
