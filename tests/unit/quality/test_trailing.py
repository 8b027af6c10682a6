import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.quality.trailing import band

VOLUMES = st.lists(st.floats(1, 1e9), min_size=2, max_size=9)


def test_steady_windows_leave_the_change_that_the_recipe_allows_either_way():
    assert band([100, 100, 100], 0.5) == pytest.approx((100, 100 / 1.5, 150))


def test_windows_that_vary_more_widen_the_band_by_three_robust_deviations():
    middle, lower, upper = band([50, 100, 200], 0.5)
    width = 3 * 1.4826 * math.log(2)  # the median absolute deviation of the logarithms is ln 2
    assert (middle, lower, upper) == pytest.approx((100, 100 * math.exp(-width), 100 * math.exp(width)))


def test_one_bad_window_among_steady_ones_moves_nothing():
    assert band([100, 101, 99, 100, 100_000], 0.5)[1:] == pytest.approx(band([100, 101, 99, 100, 101], 0.5)[1:], rel=0.02)


@given(VOLUMES, st.floats(0.01, 5), st.floats(0.01, 100))
def test_the_band_holds_its_median_and_scales_with_its_values(values, change, factor):
    middle, lower, upper = band(values, change)
    assert lower < middle < upper
    assert band(np.asarray(values) * factor, change) == pytest.approx((middle * factor, lower * factor, upper * factor))
