"""The calculator of rows is right: at as many rows as it says, nine of ten logs show the difference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tidewheel.contracts.comparison import Estimate
from tidewheel.evaluation.intervals import Users, interval
from tidewheel.evaluation.metrics import ratio
from tidewheel.evaluation.planning import detectable, rows_to_detect


def of(values: np.ndarray) -> Estimate:
    found = ratio(np.ones(len(values)), values, 1.0)
    bounds = interval(found, Users.of(np.arange(len(values))))
    return Estimate(value=found.value, lower=bounds.lower, upper=bounds.upper, effective_rows=len(values))


def test_nine_of_ten_logs_show_a_difference_at_the_rows_that_were_planned_for_it():
    random, effect = np.random.default_rng(0), 0.1
    rows = round(rows_to_detect(of(random.normal(0, 1, 20_000)), effect))
    assert rows == pytest.approx((1.960 + 1.2816) ** 2 / effect**2, rel=0.05)
    shown = sum(of(random.normal(effect, 1, rows)).lower > 0 for _ in range(1000))
    assert abs(shown / 1000 - 0.9) < 4 * math.sqrt(0.9 * 0.1 / 1000)


def test_without_an_interval_or_a_distance_there_is_no_answer():
    unknown = Estimate(value=0.1, lower=None, upper=None, effective_rows=10)
    assert detectable(unknown) is None
    assert rows_to_detect(unknown, 0.1) is None
    assert rows_to_detect(of(np.arange(100.0)), 0.0) is None
