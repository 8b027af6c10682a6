"""How long `evaluate` takes on a large split, and how many times as long the obvious bootstrap loop over scikit-learn takes.

    python -m bench.evaluate_speed [--rows 1M] [--peer-rows 5000] [--replicates 1000]

Two models, four labels and twenty slices, each metric with its interval, differences included: first the whole of it on
--rows, in a process of its own, with its peak memory. Then one label and the four slices of a column on --peer-rows, by
both: the loop draws users --replicates times and calls roc_auc_score and log_loss of scikit-learn on what was drawn. That is
a third of the metrics that `evaluate` gives, so the ratio is in the loop's favour.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from sklearn.metrics import log_loss, roc_auc_score

from bench.resample import row_count
from tidewheel.contracts.evaluation import EvaluateConfig
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.evaluation import evaluate

RATES = {"click": -0.5, "long_view": -1.0, "like": -4.0, "profile_enter": -4.0}
ROWS_A_USER, ROWS_A_REQUEST = 8, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=row_count, default=1_000_000)
    parser.add_argument("--peer-rows", type=row_count, default=5_000)
    parser.add_argument("--replicates", type=int, default=1_000)
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, mebibytes = pool.apply(whole, (options.rows,))
    print(
        f"evaluate {options.rows:,} rows, 2 models, 4 labels, 20 slices: {seconds:.1f} s, at most {mebibytes:,.0f} MiB resident"
    )
    table, scores = log(options.peer_rows, ("click",))
    began = time.monotonic()
    evaluate(table, scores, [LabelConfig(name="click")], EvaluateConfig(slices=("few",)))
    ours = time.monotonic() - began
    began = time.monotonic()
    loop(table, scores, options.replicates)
    peer = time.monotonic() - began
    print(
        f"{options.peer_rows:,} rows, 2 models, 1 label, 4 slices: evaluate {ours:.3f} s, "
        f"loop of {options.replicates:,} replicates {peer:.1f} s, {peer / ours:,.0f} times"
    )


def log(rows: int, labels: tuple[str, ...]) -> tuple[pa.Table, dict[str, dict[str, np.ndarray]]]:
    """Evaluation rows and the scores of both models."""
    random = np.random.default_rng(0)
    users = random.integers(0, rows // ROWS_A_USER, rows)
    requests = users * (ROWS_A_USER // ROWS_A_REQUEST) + random.integers(0, ROWS_A_USER // ROWS_A_REQUEST, rows)
    columns = {
        "user_id": users,
        "request_id": pa.array(requests).cast(pa.string()),
        "weight": random.choice([1.0, 10.0], rows),
        "many": random.integers(0, 10, rows),
        "more": random.integers(0, 10, rows),
        "few": random.integers(0, 4, rows),
    }
    scores: dict[str, dict[str, np.ndarray]] = {"student": {}, "production": {}}
    for label in labels:
        logit = RATES[label] + random.normal(0, 1, rows)
        columns[f"label_{label}"] = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8)
        for model in scores.values():
            model[label] = (1 / (1 + np.exp(-logit - random.normal(0, 0.5, rows)))).astype(np.float32)
    return pa.table(columns), scores


def whole(rows: int) -> tuple[float, float]:
    """Seconds and peak MiB of one evaluation of all of it."""
    table, scores = log(rows, tuple(RATES))
    began = time.monotonic()
    evaluation, _ = evaluate(table, scores, [LabelConfig(name=name) for name in RATES], EvaluateConfig(slices=("many", "more")))
    assert sum(len(values) for values in evaluation.comparison.slices.values()) == 20
    return time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def loop(table: pa.Table, scores: dict[str, dict[str, np.ndarray]], replicates: int) -> list[np.ndarray]:
    """Percentiles of AUC and log-loss of both models and their differences, overall and in each slice."""
    label, weight = table["label_click"].to_numpy(), table["weight"].to_numpy()
    _, users = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    found = []
    for rows in places(table):
        random, values = np.random.default_rng(0), []
        for _ in range(replicates):
            drawn = np.bincount(random.integers(0, users.max() + 1, users.max() + 1), minlength=users.max() + 1)
            times = drawn[users[rows]] * weight[rows]
            one = [
                [roc_auc_score(label[rows], model["click"][rows], sample_weight=times) for model in scores.values()],
                [log_loss(label[rows], model["click"][rows].astype(float), sample_weight=times) for model in scores.values()],
            ]
            values.append([*one[0], *one[1], one[0][0] - one[0][1], one[1][0] - one[1][1]])
        found.append(np.quantile(values, (0.025, 0.975), axis=0))
    return found


def places(table: pa.Table) -> Iterator[np.ndarray]:
    yield np.arange(table.num_rows)
    few = table["few"].to_numpy()
    for value in np.unique(few):
        yield np.flatnonzero(few == value)


if __name__ == "__main__":
    main()
