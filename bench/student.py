"""The student beside its ranker and beside the same student without distillation, on windows of the real log.

    python -m bench.student --data DIR --work DIR
    python -m bench.student --data DIR --work DIR --ends 2022-05-01     # the day on which settings are chosen

Each window has five training days and one evaluation day, made by ingest and sample as recipes/kuairand.yaml says. A pair is
one window and one seed: a ranker trained from labels alone, the student that learns from it, and the same student learning
from labels alone (soft_weight 0). Differences of AUC come with two 95% intervals: Student's t over the pairs, and a bootstrap
that draws whole users again, the same ones in all windows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.bootstrap import PresortedAuc, interval, resampled_weights
from bench.log_windows import ENDS, short_recipe, write_splits
from bench.paired import t_interval
from tidewheel.cli.recipes import with_settings
from tidewheel.contracts.bundle import Lineage
from tidewheel.contracts.evidence import Profile
from tidewheel.contracts.learning import DistillConfig
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.contracts.window import Window, parse_time
from tidewheel.ranker import GraphScorer, Scorer, columns_of, load_bundle
from tidewheel.ranker.network import Network, multiply_adds
from tidewheel.store import Store

LABELS = ("click", "long_view")
REPLICATES = 400
COMPARED = (("student", "ranker"), ("student", "without"), ("without", "ranker"))
Logits = Mapping[str, np.ndarray]  # label -> (B,)


@dataclass(frozen=True)
class Pair:
    """One window and one seed: scores of ranker, student and the student without distillation on the evaluation rows."""

    end: str
    seed: int
    scores: Mapping[str, Logits]
    operations: Mapping[str, int]
    microseconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the windows' rows; found again by the next call")
    parser.add_argument("--ends", nargs="+", default=list(ENDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="train.* or distill.* of the recipe, key=value")
    options = parser.parse_args()
    of = with_settings(short_recipe(), options.set)
    splits = {end: write_splits(of, options.data, end, options.work / end) for end in options.ends}
    pairs = []
    for end, folder in splits.items():
        for seed in range(options.seeds):
            pairs.append(pair_of(of, folder, end, seed))
            show(pairs[-1], evaluation_rows(folder))
    summarize(pairs, {end: evaluation_rows(folder) for end, folder in splits.items()})


def evaluation_rows(folder: Path) -> pa.Table:
    return pq.read_table(folder / "eval")


def pair_of(of: Recipe, folder: Path, end: str, seed: int) -> Pair:
    from tidewheel.training.train import train

    table = evaluation_rows(folder)
    config = of.distill.model_copy(update={"seed": seed})
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        (out / "ranker").mkdir()
        manifest = train(
            folder / "train", of.active_features, of.labels, of.train.model_copy(update={"seed": seed}), None, out / "ranker"
        )
        scores = {"ranker": GraphScorer(out / "ranker", manifest).logits(columns_of(table, manifest.features))}
        operations = {"ranker": multiply_adds(Network.read(out / "ranker" / manifest.network))}
        costs = []
        for name, soft_weight in (("student", config.soft_weight), ("without", 0.0)):
            made = student_of(of, folder, out, manifest, config.model_copy(update={"soft_weight": soft_weight}))
            bundle = load_bundle(Store.open(str(out / "store")), made.digest)
            scores[name] = Scorer(bundle).logits(columns_of(table, bundle.manifest.features))
            operations[name] = multiply_adds(Network.read(bundle.folder / bundle.model().network))
            costs.append(made.latency.microseconds_per_candidate)
    return Pair(end, seed, scores, operations, costs[0])


def student_of(of: Recipe, folder: Path, out: Path, manifest, config: DistillConfig):  # type: ignore[no-untyped-def]
    """A student as the `distill` step makes it, published in a store under `out`."""
    from tidewheel.training.distill import distill

    profile = Profile(numeric_edges={}, categorical_values={}, shares={}, label_rates={}, rows=0, effective_rows=0.0)
    span = Window(start=parse_time("2022-01-01"), end=parse_time("2022-01-02"))
    lineage = Lineage(
        run_id="bench", recipe=of.name, recipe_digest=of.digest, window=span, datasets={}, teacher=None, generation=0
    )
    store = Store.open(str(out / "store"))
    return distill(
        out / "ranker",
        manifest,
        folder / "train",
        folder / "calibration",
        config,
        of.labels,
        profile.write(out / "profile.json"),
        lineage,
        store,
        of.name,
        store.staging("bundle"),
    )


def show(pair: Pair, table: pa.Table) -> None:
    weight = table[WEIGHT].to_numpy()
    for label in LABELS:
        happened = table[label_column(label)].to_numpy()
        found = {name: PresortedAuc(by[label], happened)(weight) for name, by in pair.scores.items()}
        row = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
        print(f"{pair.end} seed {pair.seed} {label:<10} {row}", flush=True)


def summarize(pairs: list[Pair], tables: Mapping[str, pa.Table]) -> None:
    """Mean AUCs, and mean differences with both intervals."""
    last, costs = pairs[-1].operations, [pair.microseconds for pair in pairs]
    print(
        f"\nmultiply-adds a candidate: ranker {last['ranker']:,}, student {last['student']:,}, ratio "
        f"{last['student'] / last['ranker']:.3f}; student {np.median(costs):.2f} us a candidate, {len(pairs)} pairs"
    )
    for label in LABELS:
        found = Differences(label, pairs, tables)
        means = "  ".join(f"{name} {values.mean():.4f}" for name, values in found.values(found.weight).items())
        print(f"{label}: {means}")
        replicates = list(found.replicates())
        for one, other in COMPARED:
            values = found.values(found.weight)
            gaps = values[one] - values[other]
            low, high = t_interval(gaps.tolist())
            drawn = np.array([(by[one] - by[other]).mean() for by in replicates])
            lower, upper = interval(drawn)
            print(
                f"  {one} - {other:<8} {gaps.mean():+.4f}  over pairs [{low:+.4f}, {high:+.4f}]"
                f"  over users [{lower:+.4f}, {upper:+.4f}]"
            )


class Differences:
    """AUCs of one label in all pairs as functions of the weights of all evaluation rows, window after window."""

    def __init__(self, label: str, pairs: list[Pair], tables: Mapping[str, pa.Table]) -> None:
        starts = np.concatenate([[0], np.cumsum([table.num_rows for table in tables.values()])])
        places = {end: slice(starts[at], starts[at + 1]) for at, end in enumerate(tables)}
        happened = {end: table[label_column(label)].to_numpy() for end, table in tables.items()}
        self.weight = np.concatenate([table[WEIGHT].to_numpy() for table in tables.values()])
        users = np.concatenate([table["user_id"].to_numpy() for table in tables.values()])
        self.users = np.unique(users, return_inverse=True)[1]
        self._areas = {
            name: [(places[pair.end], PresortedAuc(pair.scores[name][label], happened[pair.end])) for pair in pairs]
            for name in pairs[0].scores
        }

    def values(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Model -> (P,) AUC in each pair."""
        return {name: np.array([area(weight[rows]) for rows, area in areas]) for name, areas in self._areas.items()}

    def replicates(self) -> Iterator[dict[str, np.ndarray]]:
        """The same under the weights of each replicate of the bootstrap over users."""
        for weight in resampled_weights(self.users, self.weight, REPLICATES, seed=0):
            yield self.values(weight)


if __name__ == "__main__":
    main()
