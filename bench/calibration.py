"""How well the student is calibrated on the evaluation day, with its calibrators and without.

    tidewheel run --recipe recipes/kuairand.yaml --data DIR --home HOME
    python bench/calibration.py --home HOME [--run RUN_ID]

Peers, on the same rows: the uncalibrated twin, and the floor, i.e. the ECE that a perfectly calibrated model would show on
that many rows by chance (mean over labels drawn from the student's own probabilities). ECE is over bins of equal mass, as
in run.json; the last column has it over bins of equal width.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ranker_vs_logistic import reports, rows_of

from tidewheel.contracts.report import RunReport
from tidewheel.contracts.schema import label_column
from tidewheel.ranker import Scorer, columns_of, load_bundle
from tidewheel.ranker.scorer import sigmoid
from tidewheel.store import Home, Store

BINS = 15
DRAWS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", help="run id; default: all runs of the home that have metrics")
    options = parser.parse_args()
    home = Home.resolve(options.home)
    for report in reports(home, options.run):
        measure(report, home.store())


def ece(predicted: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """sum_b W_b / W * |mean label - mean prediction| over BINS bins of equal weight (Naeini et al. 2015, sec. 4)."""
    order = np.argsort(predicted, kind="stable")
    share = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    bins = np.minimum((share * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, (weights * (predicted - labels))[order], BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def equal_width_ece(predicted: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The same over BINS bins of equal width (Guo et al. 2017, eq. 5): the figure that most papers print."""
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, weights * (predicted - labels), BINS)).sum() / weights.sum())


def measure(report: RunReport, store: Store) -> None:
    random = np.random.default_rng(0)
    bundle = load_bundle(store, report.bundle or "")
    test = rows_of(store, report.datasets["eval"].digest)
    columns = columns_of(test, bundle.manifest.features)
    weights = test.column("weight").to_numpy()
    scorer = Scorer(bundle)
    scores, logits = scorer.score(columns), scorer.logits(columns)
    print(f"\n{report.recipe} {report.window}: {test.num_rows:,} rows of the last day")
    print(f"{'label':<14} {'ratio':>7} {'without':>8} {'ECE':>8} {'without':>8} {'floor':>8} {'equal width':>12}")
    for label, predicted in scores.items():
        labels = test.column(label_column(label)).to_numpy()
        raw, rate = sigmoid(logits[label]), np.average(labels, weights=weights)
        floor = np.mean([ece(predicted, random.random(len(labels)) < predicted, weights) for _ in range(DRAWS)])
        ratios = [np.average(values, weights=weights) / rate for values in (predicted, raw)]
        errors = [ece(values, labels, weights) for values in (predicted, raw)]
        width = equal_width_ece(predicted, labels, weights)
        row = f"{label:<14} {ratios[0]:>7.3f} {ratios[1]:>8.3f} {errors[0]:>8.4f} {errors[1]:>8.4f} {floor:>8.4f}"
        print(f"{row} {width:>12.4f}")


if __name__ == "__main__":
    main()
