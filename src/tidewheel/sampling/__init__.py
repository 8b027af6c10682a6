"""Row selection by hash and weights: the same rows from dataframes and from the training loader."""

from tidewheel.sampling.dataframe import SPLITS, SplitResult, keep, sample
from tidewheel.sampling.hash import uniform
from tidewheel.sampling.loader import select

__all__ = ["SPLITS", "SplitResult", "keep", "sample", "select", "uniform"]
