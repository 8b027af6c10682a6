"""Differences of AUC are paired a run at a time, and their intervals are Student's and those of users drawn again."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

MONDAY, TUESDAY = "2022-05-02", "2022-05-03"


def _module(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def paired() -> ModuleType:
    return _module("paired")


def test_the_difference_is_the_mean_over_runs_of_the_difference_within_each(paired: ModuleType) -> None:
    # Monday's rows: labels 1 0 1 0. Ours ranks 3 of 4 pairs right (AUC 0.75), the peer 2 of 4 (0.5).
    # Tuesday's rows: labels 0 1. Ours ranks its pair right (1.0), the peer ties it (0.5).
    days = {
        MONDAY: paired.Day(np.array([7, 7, 8, 9]), np.array([1, 0, 1, 0])),
        TUESDAY: paired.Day(np.array([8, 9]), np.array([0, 1])),
    }
    ours = {(MONDAY, 0): np.array([4.0, 3.0, 2.0, 1.0]), (TUESDAY, 0): np.array([0.1, 0.2])}
    peer = {(MONDAY, 0): np.array([4.0, 3.0, 1.0, 2.0]), (TUESDAY, 0): np.array([0.3, 0.3])}
    found = paired.compare(ours, peer, days, replicates=20)
    assert found.ours == pytest.approx((0.75 + 1.0) / 2)
    assert found.peer == pytest.approx((0.5 + 0.5) / 2)
    assert found.difference == pytest.approx((0.25 + 0.5) / 2)
    assert found.won == 1.0


def test_seeds_of_one_window_count_once_over_windows_and_each_over_runs(paired: ModuleType) -> None:
    # AUC differences: Monday 0 and 1 (mean 0.5), Tuesday 0.5 and 0.5 (mean 0.5): no spread over windows, some over runs.
    day = paired.Day(np.array([1, 2, 3]), np.array([1, 0, 0]))
    right, half, wrong = np.array([3.0, 2.0, 1.0]), np.array([2.0, 3.0, 1.0]), np.array([1.0, 2.0, 3.0])
    ours = {(MONDAY, 0): right, (MONDAY, 1): right, (TUESDAY, 0): right, (TUESDAY, 1): right}
    peer = {(MONDAY, 0): right, (MONDAY, 1): wrong, (TUESDAY, 0): half, (TUESDAY, 1): half}
    found = paired.compare(ours, peer, {MONDAY: day, TUESDAY: day}, replicates=20)
    assert found.over_windows == (pytest.approx(0.5), pytest.approx(0.5))
    half_width = 3.182446 * math.sqrt(1 / 6) / 2  # t(0.975, 3) * standard deviation of (0, 1, 0.5, 0.5) / sqrt(4)
    assert found.over_runs == (pytest.approx(0.5 - half_width, abs=1e-5), pytest.approx(0.5 + half_width, abs=1e-5))


def test_equal_scores_differ_by_nothing_whichever_users_are_drawn(paired: ModuleType) -> None:
    generator = np.random.default_rng(0)
    day = paired.Day(generator.integers(0, 40, 300), generator.integers(0, 2, 300))
    scores = {(MONDAY, 0): generator.normal(size=300)}
    found = paired.compare(scores, scores, {MONDAY: day}, replicates=50)
    assert found.over_users == (0.0, 0.0)
    assert found.won == 0.0
    assert all(math.isnan(end) for end in found.over_runs)


def test_the_interval_over_users_is_wider_where_the_rows_of_a_user_resemble_each_other(paired: ModuleType) -> None:
    # The peer's scores are noise; ours know the label of all rows of a user, or of rows here and there.
    generator = np.random.default_rng(1)
    users, labels = np.repeat(np.arange(60), 20), generator.integers(0, 2, 1200)
    day, noise = paired.Day(users, labels), generator.normal(size=1200)
    known = np.arange(60) < 15
    of_users = np.where(known[users], labels * 4.0, noise)
    of_rows = np.where(generator.permutation(known[users]), labels * 4.0, noise)
    widths = []
    for ours in (of_users, of_rows):
        low, high = paired.compare({(MONDAY, 0): ours}, {(MONDAY, 0): noise}, {MONDAY: day}, replicates=300).over_users
        assert low > 0
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1]


def test_the_interval_over_runs_covers_the_mean_in_95_of_100_tries(paired: ModuleType) -> None:
    tries = 2000
    values = np.random.default_rng(2).normal(0.3, 1.0, size=(tries, 15))
    covered = sum(low <= 0.3 <= high for low, high in map(paired.t_interval, values.tolist()))
    assert abs(covered / tries - 0.95) < 4 * math.sqrt(0.95 * 0.05 / tries)


def test_a_run_that_one_system_lacks_is_an_error_that_names_it(paired: ModuleType) -> None:
    day = paired.Day(np.array([1, 2]), np.array([0, 1]))
    scores = np.array([0.1, 0.2])
    with pytest.raises(ValueError, match=r"2022-05-03.* of one system alone; expected the same runs"):
        paired.compare({(MONDAY, 0): scores}, {(MONDAY, 0): scores, (TUESDAY, 0): scores}, {MONDAY: day, TUESDAY: day}, 5)
