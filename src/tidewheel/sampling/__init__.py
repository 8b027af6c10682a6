"""Row selection by hash and weights: the same rows from Spark, from Sail and from the training loader."""

from tidewheel.sampling.estimate import Total, horvitz_thompson
from tidewheel.sampling.hash import uniform
from tidewheel.sampling.loader import SPLITS, ArrowCounter, select
from tidewheel.sampling.plan import make_plan
from tidewheel.sampling.published import read_groups
from tidewheel.sampling.stream import preview, sample
from tidewheel.sampling.tally import RuleTally, Sampled, SplitResult

__all__ = [
    "SPLITS",
    "ArrowCounter",
    "RuleTally",
    "Sampled",
    "SplitResult",
    "Total",
    "horvitz_thompson",
    "make_plan",
    "preview",
    "read_groups",
    "sample",
    "select",
    "uniform",
]
