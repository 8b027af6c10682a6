"""Many slices are looked at: a false accusation is as rare as said, and a real harm is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.evaluation import EvaluateConfig
from tidewheel.contracts.verdict import Phase
from tidewheel.evaluation.slices import proven, slice_gates

ERROR = 0.01


def differences(values, metric="auc", error=ERROR):
    """One slice column with these differences of one label."""
    bounds = {
        str(at): {"click": {metric: Estimate(value=v, lower=v - 1.96 * error, upper=v + 1.96 * error, effective_rows=900)}}
        for at, v in enumerate(values)
    }
    return {"tab": bounds}


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_a_slice_that_is_proven_worse_fails_and_is_named_with_its_numbers(metric):
    bad = -0.08 if metric == "auc" else 0.08
    config = EvaluateConfig(max_slice_drop={metric: 0.03})
    (reason,) = slice_gates(differences([0.0, bad, 0.01], metric), ["click"], config)
    assert reason.phase is Phase.FAILED
    assert f"worse by more than 0.0300 (holm, 3 looked at): tab=1 click {bad:+.4f}" in reason.message


def test_no_slice_is_worse_until_it_is_proven_and_the_lowest_is_shown():
    (reason,) = slice_gates(differences([0.0, -0.04]), ["click"], EvaluateConfig())
    assert reason.phase is Phase.SUCCESSFUL
    assert reason.message == (
        "auc in slices vs production: none of 2 is proven worse by 0.0300; the lowest: tab=1 click -0.0400 [-0.0596, -0.0204]"
    )


def test_slices_that_cannot_be_judged_are_counted():
    found = differences([0.0])
    found["tab"]["1"] = {"click": {"auc": Estimate(value=None, lower=None, upper=None, effective_rows=3)}}
    (reason,) = slice_gates(found, ["click"], EvaluateConfig())
    assert "none of 1 is proven worse by 0.0300, 1 too small to judge" in reason.message
    assert slice_gates({}, ["click"], EvaluateConfig()) == []


def test_holm_steps_down_and_benjamini_hochberg_is_scipys():
    p = [0.001, 0.014, 0.02, 0.024, 0.9]
    assert proven(p, "holm", 0.05) == [True, False, False, False, False]  # 0.014 > 0.05 / 4
    assert proven(p, "holm", 0.06) == [True, True, True, True, False]
    random = np.random.default_rng(0)
    for _ in range(50):
        p = list(random.random(12) ** 3)
        assert proven(p, "bh", 0.05) == [bool(q <= 0.05) for q in false_discovery_control(p)]


@pytest.mark.parametrize("control", ["holm", "bh"])
def test_with_slices_exactly_at_the_margin_a_run_in_forty_accuses_one(control):
    random, runs, accused = np.random.default_rng(1), 4000, 0
    config = EvaluateConfig(slice_control=control)
    for _ in range(runs):
        (reason,) = slice_gates(differences(-0.03 + ERROR * random.normal(size=20)), ["click"], config)
        accused += reason.phase is Phase.FAILED
    assert abs(accused / runs - 0.025) < 4 * math.sqrt(0.025 * 0.975 / runs)
