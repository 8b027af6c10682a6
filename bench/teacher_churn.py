"""What the previous production as teacher is worth: how much rankings move from day to day, and at what AUC.

    python -m bench.teacher_churn --data DIR --work DIR [--seeds 3] [--set train.teacher.weight=1.0]

Six windows of the real log, of five training days and one evaluation day, end on six days in a row. For each seed two chains of
bundles go through them, each bundle made by train and distill as the recipe says: in one the bundle of the day before
teaches, in the other nobody does. On each day but the first both score the day's rows, and requests: 300 users of that day with
100 random items of the day each. Churn is 1 − Kendall's τ between the order of the day before's bundle and of today's over the
ten candidates that the former ranks first, by P(click). Intervals are of the difference between the chains, paired by window,
seed and user: Student's t over (window, seed), and a bootstrap that draws whole users again.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.bootstrap import PresortedAuc, interval, resampled_weights
from bench.log_windows import ENDS, short_recipe, write_splits
from bench.paired import t_interval
from bench.student import LABELS, REPLICATES, evaluation_rows, student_of
from tidewheel.cli.recipes import with_settings
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schema import Entity, label_column
from tidewheel.ranker import OpenBundle, Scorer, columns_of, load_bundle
from tidewheel.store import Store

FIRST_END = "2022-05-01"
USERS, CANDIDATES, TOP = 300, 100, 10
TAUGHT, ALONE = "taught", "alone"


@dataclass(frozen=True)
class Step:
    """One day of one chain: scores of the day's rows by label, and the churn (U,) of each user's top candidates."""

    end: str
    seed: int
    chain: str
    scores: dict[str, np.ndarray]
    churn: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the windows' rows; found again by the next call")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="train.* or distill.* of the recipe, key=value")
    options = parser.parse_args()
    of = with_settings(short_recipe(), options.set)
    splits = {end: write_splits(of, options.data, end, options.work / end) for end in (FIRST_END, *ENDS)}
    steps: list[Step] = []
    for seed, chain in itertools.product(range(options.seeds), (TAUGHT, ALONE)):
        for step in run_chain(of, splits, seed, chain):
            steps.append(step)
            print(f"{step.end} seed {seed} {chain:<7} churn {step.churn.mean():.4f}", flush=True)
    summarize(steps, {end: evaluation_rows(splits[end]) for end in ENDS})


def run_chain(of: Recipe, splits: dict[str, Path], seed: int, chain: str) -> list[Step]:
    steps, before = [], None
    with tempfile.TemporaryDirectory() as scratch:
        for end, folder in splits.items():
            bundle = release(of, folder, Path(scratch), seed, before if chain == TAUGHT else None)
            if before is not None:
                table = evaluation_rows(folder)
                scores = Scorer(bundle).score(columns_of(table, bundle.manifest.features))
                steps.append(Step(end, seed, chain, scores, churn(before, bundle, requests(of, table))))
            before = bundle
    return steps


def release(of: Recipe, folder: Path, out: Path, seed: int, teacher: OpenBundle | None) -> OpenBundle:
    """The bundle of one window, as its turn would make it."""
    from tidewheel.training.train import train

    shutil.rmtree(out / "ranker", ignore_errors=True)
    (out / "ranker").mkdir()
    config = of.train.model_copy(update={"seed": seed})
    manifest = train(folder / "train", of.active_features, of.labels, config, teacher, out / "ranker")
    made = student_of(of, folder, out, manifest, of.distill.model_copy(update={"seed": seed}))
    return load_bundle(Store.open(str(out / "store")), made.digest)


def requests(of: Recipe, table: pa.Table) -> pa.Table:
    """(U * C) candidates: the user and context of one row of each user, with random items of the day."""
    random = np.random.default_rng(0)
    _, first = np.unique(table["user_id"].to_numpy(), return_index=True)
    _, items = np.unique(table["item_id"].to_numpy(), return_index=True)
    users = random.choice(first, min(USERS, len(first)), replace=False)
    candidates = np.concatenate([random.choice(items, CANDIDATES, replace=False) for _ in users])
    of_user = np.repeat(users, CANDIDATES)
    return pa.table(
        {f.name: table[f.name].take(candidates if f.entity is Entity.ITEM else of_user) for f in of.active_features}
    )


def churn(before: OpenBundle, after: OpenBundle, candidates: pa.Table) -> np.ndarray:
    """(U,) 1 − Kendall's τ of the two orders over what `before` ranks first."""
    old, new = (
        Scorer(bundle).score(columns_of(candidates, bundle.manifest.features))["click"].reshape(-1, CANDIDATES)
        for bundle in (before, after)
    )
    top = np.argsort(-old, axis=1)[:, :TOP]
    old, new = np.take_along_axis(old, top, axis=1), np.take_along_axis(new, top, axis=1)
    one, other = np.triu_indices(TOP, k=1)
    agrees = np.sign(old[:, one] - old[:, other]) * np.sign(new[:, one] - new[:, other])
    return 1 - agrees.mean(axis=1)


def summarize(steps: list[Step], tables: dict[str, pa.Table]) -> None:
    by = {(step.end, step.seed, step.chain): step for step in steps}
    pairs = [(end, seed) for end, seed, chain in by if chain == TAUGHT]
    gaps = np.stack([by[*pair, TAUGHT].churn - by[*pair, ALONE].churn for pair in pairs])  # (P, U)
    means = {chain: np.mean([by[*pair, chain].churn.mean() for pair in pairs]) for chain in (TAUGHT, ALONE)}
    drawn = [
        float(gaps[:, np.random.default_rng(r).integers(0, gaps.shape[1], gaps.shape[1])].mean()) for r in range(REPLICATES)
    ]
    print(f"\nchurn of the top {TOP}: taught {means[TAUGHT]:.4f}, alone {means[ALONE]:.4f}, {len(pairs)} pairs")
    show("taught - alone", gaps.mean(axis=1), np.array(drawn))
    for label in LABELS:
        print(f"AUC of {label}")
        show("taught - alone", *auc_gaps(label, by, pairs, tables))


def auc_gaps(
    label: str, by: dict[tuple[str, int, str], Step], pairs: list[tuple[str, int]], tables: dict[str, pa.Table]
) -> tuple[np.ndarray, np.ndarray]:
    """(P,) differences of AUC, and (R,) their mean in each replicate."""
    starts = dict(zip(tables, np.cumsum([0, *(table.num_rows for table in tables.values())])[:-1].tolist(), strict=True))
    users = np.unique(np.concatenate([table["user_id"].to_numpy() for table in tables.values()]), return_inverse=True)[1]
    areas = []
    for end, seed in pairs:
        rows = slice(starts[end], starts[end] + tables[end].num_rows)
        happened = tables[end][label_column(label)].to_numpy()
        areas.append((rows, *(PresortedAuc(by[end, seed, chain].scores[label], happened) for chain in (TAUGHT, ALONE))))

    def values(weight: np.ndarray) -> np.ndarray:
        return np.array([taught(weight[rows]) - alone(weight[rows]) for rows, taught, alone in areas])

    one = np.ones(len(users))
    return values(one), np.array([values(weight).mean() for weight in resampled_weights(users, one, REPLICATES, seed=0)])


def show(what: str, values: np.ndarray, drawn: np.ndarray) -> None:
    over = {"pairs": t_interval(values.tolist()), "users": interval(drawn)}
    shown = "  ".join(f"over {of} [{lower:+.5f}, {upper:+.5f}]" for of, (lower, upper) in over.items())
    print(f"  {what} {values.mean():+.5f}  {shown}")


if __name__ == "__main__":
    main()
