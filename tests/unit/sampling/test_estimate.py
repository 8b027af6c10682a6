"""Weights estimate what was not kept: as statistics, over hundreds of seeds of a log whose truth is known."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.sampling.tables import DAYS, END, WINDOW, counter_of
from tidewheel.contracts.sampling import SampleConfig
from tidewheel.sampling import horvitz_thompson, make_plan, select
from tidewheel.sampling.estimate import effective_rows

SEEDS = 500
LABELS = ("click", "hate")
RULES = {
    "never_downsample": ["hate"],
    "rules": [
        {"name": "new_users", "where": {"user_tenure_days": {"below": 30, "or_null": True}}, "rate": 0.8},
        {"name": "search", "where": {"surface": ["search"]}, "none_of": ["click"], "rate": 0.4},
    ],
    "preset": {"kind": "balanced", "negatives_per_positive": 3},
    "caps": [{"column": "user_id", "rows": 500}],
}


def shown(count: int, rng: np.random.Generator) -> pa.Table:
    """Everything that was shown in the days before the evaluation day, before any logging: the truth."""
    click = rng.random(count) < 0.08
    start = int((END - timedelta(days=7)).timestamp() * 1_000_000)
    return pa.table(
        {
            "row_key": rng.integers(-(2**63), 2**63 - 1, count),
            "user_id": rng.zipf(1.4, count) % 400,
            "event_time": pa.array(start + rng.integers(0, 6 * 86_400_000_000, count), pa.timestamp("us", tz="UTC")),
            "is_randomized": np.zeros(count, dtype=bool),
            "label_click": click.astype(np.int8),
            "label_hate": (rng.random(count) < 0.01).astype(np.int8),
            "surface": rng.choice(np.array(["feed", "search", "home"], dtype=object), count, p=[0.6, 0.3, 0.1]),
            "user_tenure_days": pa.array(rng.gamma(1.0, 60.0, count), mask=rng.random(count) < 0.05),
        }
    )


def slices_of(table: pa.Table) -> dict[str, np.ndarray]:
    """Slices that rules name, that they do not, and that follow from the labels."""
    surface, tenure = table["surface"].to_numpy(), table["user_tenure_days"].to_numpy()
    click = table["label_click"].to_numpy() == 1
    return {
        "everything": np.ones(table.num_rows, dtype=bool),
        **{name: surface == name for name in ("feed", "search", "home")},
        "new users": ~(tenure >= 30),
        "clicks on search": click & (surface == "search"),
        "no click at home": ~click & (surface == "home"),
        "the largest user": table["user_id"].to_numpy() == 1,
    }


@pytest.mark.slow
def test_unsampled_counts_are_inside_their_interval_as_often_as_it_promises() -> None:
    truth = shown(12_000, np.random.default_rng(7))
    counts = {name: int(members.sum()) for name, members in slices_of(truth).items()}
    covered = dict.fromkeys(counts, 0)
    click = truth["label_click"].to_numpy() == 1
    logging = np.where(click | (truth["label_hate"].to_numpy() == 1), 1.0, np.where(truth["user_id"].to_numpy() % 2, 0.25, 0.5))
    for seed in range(SEEDS):
        is_logged = np.random.default_rng(1000 + seed).random(truth.num_rows) < logging
        log = truth.append_column("inclusion_probability", pa.array(logging)).filter(pa.array(is_logged))
        counter = counter_of([log])
        config = SampleConfig.model_validate({**RULES, "salt": seed, "calibration_share": 0.0})
        plan = make_plan(config, DAYS, WINDOW, LABELS, counter)
        kept = select(log, plan, counter.groups(plan))
        weights = kept["weight"].to_numpy()
        for name, members in slices_of(kept).items():
            lower, upper = horvitz_thompson(weights, members.astype(float)).interval()
            covered[name] += lower <= counts[name] <= upper
    assert {name: count / SEEDS for name, count in covered.items() if count / SEEDS < 0.93} == {}
    assert {name: count / SEEDS for name, count in covered.items() if count / SEEDS > 0.98} == {}  # nor wide for nothing


def test_variance_is_that_of_independent_rows() -> None:
    # Three rows kept with 1, 1/2, 1/4: sum w (w - 1) y^2 by hand is 0 + 2 x 9 + 12 x 1.
    total = horvitz_thompson(np.array([1.0, 2.0, 4.0]), np.array([5.0, 3.0, -1.0]))
    assert (total.value, total.variance) == (5.0 + 6.0 - 4.0, 30.0)
    lower, upper = total.interval()
    assert upper - lower == pytest.approx(2 * 1.959964 * np.sqrt(30.0))


def test_the_variance_estimator_is_unbiased() -> None:
    rng = np.random.default_rng(3)
    probability = rng.uniform(0.1, 1.0, 300)
    truth = ((1 - probability) / probability).sum()  # variance of the estimated count: sum (1 - p) / p
    found = []
    for _ in range(2000):
        kept = rng.random(300) < probability
        found.append(horvitz_thompson(1 / probability[kept]).variance)
    assert abs(np.mean(found) - truth) < 4 * np.std(found, ddof=1) / np.sqrt(2000)


def test_equal_weights_are_worth_all_rows_and_one_heavy_row_about_one() -> None:
    assert effective_rows(40.0, 10 * 16.0) == 10.0
    assert effective_rows(1000.0 + 9, 1000.0**2 + 9) == pytest.approx(1.018, abs=1e-3)
    assert effective_rows(0.0, 0.0) == 0.0
