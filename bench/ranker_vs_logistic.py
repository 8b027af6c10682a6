"""The ranker and the student against logistic regression on the same one-hot features, rows and weights.

    tidewheel run --recipe recipes/kuairand.yaml --data DIR --home HOME
    python bench/ranker_vs_logistic.py --home HOME [--run RUN_ID]

Peer: scikit-learn's LogisticRegression on hashed and vocabulary ids one-hot plus standardized numbers, as the bundle
encodes them; its C is the best of a few *on the evaluation day*, which favours the peer.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.report import RunReport
from tidewheel.contracts.schema import label_column
from tidewheel.ranker import Encoders, Scorer, columns_of, load_bundle
from tidewheel.store import Home, Store

STRENGTHS = (0.03, 0.1, 0.3)
MARGINS = {"ranker": 0.002, "student": 0.004}  # ranker against the peer, student against the ranker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", help="run id; default: all runs of the home that have metrics")
    options = parser.parse_args()
    home = Home.resolve(options.home)
    for report in reports(home, options.run):
        compare(report, home.store())


def reports(home: Home, run_id: str | None) -> list[RunReport]:
    """The run asked for, or all finished runs of the home that evaluated a ranker."""
    found = [RunReport.read(path) for path in sorted(home.runs.glob("*/run.json")) if run_id in (None, path.parent.name)]
    return [report for report in found if report.bundle and "ranker" in report.metrics]


def rows_of(store: Store, digest: str) -> pa.Table:
    folder, manifest = store.load("datasets", digest, DatasetManifest)
    return pa.concat_tables([pq.read_table(folder / f.path) for f in manifest.files if f.path.endswith(".parquet")])


def one_hot(encoders: Encoders, table: pa.Table) -> sparse.csr_matrix:
    """(N, sum of sizes + F_n)."""
    encoded = encoders.encode(columns_of(table, encoders.features))
    starts = np.concatenate([[0], np.cumsum(encoders.sizes)])
    rows = np.repeat(np.arange(len(encoded)), encoded.ids.shape[1])
    ones = sparse.csr_matrix(
        (np.ones(encoded.ids.size), (rows, (encoded.ids + starts[:-1]).ravel())), (len(encoded), starts[-1])
    )
    return sparse.hstack([ones, sparse.csr_matrix(encoded.numbers)]).tocsr()


def peer_auc(train: tuple, test: tuple) -> tuple[float, float]:
    """Best weighted AUC over STRENGTHS, and the strength that gave it."""
    inputs, labels, weights = train
    found = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=300).fit(inputs, labels, sample_weight=weights / weights.mean())
        found.append((roc_auc_score(test[1], model.decision_function(test[0]), sample_weight=test[2]), strength))
    return max(found)


def compare(report: RunReport, store: Store) -> None:
    bundle = load_bundle(store, report.bundle or "")
    encoders = bundle.encoders()
    train, test = (rows_of(store, report.datasets[name].digest) for name in ("train", "eval"))
    inputs = one_hot(encoders, train), one_hot(encoders, test)
    weights = [table.column("weight").to_numpy() for table in (train, test)]
    student = Scorer(bundle).score(columns_of(test, encoders.features))
    print(f"\n{report.recipe} {report.window}: {train.num_rows:,} training rows, {test.num_rows:,} rows of the last day")
    print(f"{'label':<14} {'logistic':>9} {'C':>5} {'ranker':>8} {'- peer':>8} {'student':>8} {'- ranker':>9}  of the ranker")
    for label in bundle.manifest.labels:
        targets = [table.column(label_column(label)).to_numpy() for table in (train, test)]
        peer, strength = peer_auc((inputs[0], targets[0], weights[0]), (inputs[1], targets[1], weights[1]))
        ours = report.metrics["ranker"][label]["auc"]
        served = roc_auc_score(targets[1], student[label], sample_weight=weights[1])
        if ours.value is None or ours.lower is None or ours.upper is None:
            print(f"{label:<14} {peer:>9.4f} {strength:>5g}  the ranker has no AUC: too few positives")
            continue
        is_level = ours.value >= peer - MARGINS["ranker"] or ours.lower <= peer <= ours.upper
        notes = ("" if is_level else " below the peer") + (
            "" if served >= ours.value - MARGINS["student"] else " student below"
        )
        print(
            f"{label:<14} {peer:>9.4f} {strength:>5g} {ours.value:>8.4f} {ours.value - peer:>+8.4f} {served:>8.4f}"
            f" {served - ours.value:>+9.4f}  [{ours.lower:.4f}, {ours.upper:.4f}]{notes}"
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    main()
