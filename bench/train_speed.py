"""Rows a second of training beside DeepCTR-Torch, FuxiCTR and torch-rechub: networks of one size, on the real log.

    uv venv .cache/peers && uv pip install --python .cache/peers -r bench/peers.txt
    python -m bench.train_speed --data DIR --out OUT [--rounds 5] [--epochs 2]

DIR is KuaiRand-Pure. Two networks: a DCN V2 for clicks (two cross layers, a perceptron) and an MMoE for four labels, both
with the embeddings, experts and perceptrons of SIZES; our cross layers have half the width as rank, which is as many
multiply-adds as a full matrix. Our linear weight of every id is there too, as in DeepCTR-Torch's DCN. What is timed is each
system's own fit loop with its own loader over encoded rows; reading, encoding and making its inputs are apart.

First each system's batch size, learning rate, threads and loader processes are chosen on the tuning window: the fastest
whose AUC after one epoch is at most TOLERANCE below its own best, and for ours also not below the chosen peers'. Then all
systems train in turn, --rounds times, on a whole window; medians are shown, of the ratios too, and the AUC on its
evaluation day. CPU seconds count loader processes; on a machine with other work their ratio is the steadier one.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench.log_windows import ROWS, bench_recipe, make_windows
from bench.peer_job import Answer, Arrays, Job, Settings
from bench.systems import LIBRARIES, OURS, System
from tidewheel.contracts.schema import WEIGHT
from tidewheel.evaluation.metrics import auc
from tidewheel.ranker import columns_of
from tidewheel.ranker.fitting import fit

END = "2022-05-02"
SIZES = {"embedding_dim": 8, "cross_layers": 2, "experts": 3, "hidden": [128, 64], "dropout": 0.1}
RATES = (0.001, 0.004)
TOLERANCE = 0.002
ALL = (OURS, *LIBRARIES)


@dataclass(frozen=True)
class Chosen:
    """How a system trains a network."""

    batch_size: int
    learning_rate: float
    threads: int = 1
    workers: int = 0


@dataclass(frozen=True)
class Trained:
    """One training and the mean AUC of the gated labels of its network."""

    how: Chosen
    answer: Answer
    auc: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="keeps the windows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="of each training that is timed")
    parser.add_argument(
        "--threads", type=int, default=2, help="of torch that a system is tried with; on a busy machine give 1: they spin"
    )
    parser.add_argument("--networks", default="dcn,mmoe")
    parser.add_argument("--batch-sizes", default="512,1024,2048,4096", help="that each system is tried with")
    options = parser.parse_args()
    windows = make_windows(options.data, (END,), options.out / "windows")
    encoding_speed(windows[END] / "train" / ROWS)
    with ExitStack() as opened:
        systems = {name: opened.enter_context(System(name, options.out)) for name in ALL}
        for network in options.networks.split(","):
            bench = Bench(network, systems, options.out / "speed.npy", options.threads)
            chosen = bench.choose(windows["tune"], [int(size) for size in options.batch_sizes.split(",")])
            load = os.getloadavg()[0]
            rounds = [
                {name: bench.train(name, chosen[name], windows[END], options.epochs, seed) for name in ALL}
                for seed in range(options.rounds)
            ]
            show(network, rounds)
            print(f"load average before and after: {load:.1f}, {os.getloadavg()[0]:.1f}")


class Bench:
    """Trains one network with any of the systems."""

    def __init__(self, network: str, systems: dict[str, System], scores: Path, threads: int) -> None:
        labels = bench_recipe().labels
        self.network, self.systems, self.scores, self.threads = network, systems, scores, threads
        self.labels = tuple(label.name for label in labels) if network == "mmoe" else (labels[0].name,)
        self.judged = [self.labels.index(label.name) for label in labels if label.gated and label.name in self.labels]

    def choose(self, folder: Path, sizes: list[int]) -> dict[str, Chosen]:
        """The fastest way of each system that is good enough; ours last, so that it knows how good the peers are."""
        best: dict[str, Trained] = {}
        for name in reversed(ALL):
            tried = [self.train(name, Chosen(size, rate), folder, 1, 0) for size, rate in itertools.product(sizes, RATES)]
            peers = [trained.auc for trained in best.values()] if name == OURS else []
            best[name] = fastest(tried, max([max(trained.auc for trained in tried) - TOLERANCE, *peers]))
            one = best[name].how  # with one thread of torch and no loader process
            ways = [replace(one, threads=n) for n in range(2, self.threads + 1)]
            if name not in (OURS, "deepctr"):  # neither has loader processes; ours reads in a thread
                ways.append(replace(one, workers=1))
            best[name] = max([best[name], *(self.train(name, way, folder, 1, 0) for way in ways)], key=_speed)
        return {name: trained.how for name, trained in best.items()}

    def train(self, name: str, how: Chosen, folder: Path, epochs: int, seed: int) -> Trained:
        parts = str(folder / "train"), str(folder / "eval"), str(self.scores)
        settings = settings_of(name, self.network, how, folder)
        answer = self.systems[name].ask(Job(self.network, self.labels, settings, epochs, seed, how.threads, *parts))
        truth, scores = Arrays.read(folder / "eval", self.labels).labels, np.load(self.scores)[-1]
        one = np.ones(len(truth))
        trained = Trained(how, answer, statistics.fmean(auc(scores[:, at], truth[:, at], one).value for at in self.judged))
        speed = f"{answer.rows_per_second:,.0f} rows/s, {answer.rows_per_cpu_second:,.0f} rows/CPU s"
        print(f"{self.network} {name:<8} {how} AUC {trained.auc:.4f} {speed}", flush=True)
        return trained


def fastest(tried: Sequence[Trained], floor: float) -> Trained:
    """The most rows a second among those whose AUC is not below `floor`; where there is none, the best AUC."""
    enough = [trained for trained in tried if trained.auc >= floor]
    return max(enough, key=_speed) if enough else max(tried, key=lambda trained: trained.auc)


def settings_of(name: str, network: str, how: Chosen, folder: Path) -> Settings:
    """The settings of SIZES by the system's own names. No penalties for the peers: they cost time."""
    if name != OURS:
        own = {"batch_size": how.batch_size, "learning_rate": how.learning_rate, "workers": how.workers}
        none = {"l2_embedding": 0.0, "l2_linear": 0.0, "weight_decay": 0.0, "gate": [], "tower": []}
        return SIZES | own | none | {"structure": "stacked", "number_dim": 1}
    rows = Arrays.read(folder / "train", ())
    width = rows.ids.shape[1] * SIZES["embedding_dim"] + rows.numbers.shape[1]
    own = {"optimizer.batch_size": how.batch_size, "optimizer.learning_rate": how.learning_rate}
    shape = {"network.cross_rank": width // 2} if network == "dcn" else {}
    shape |= {"network.cross_layers": SIZES["cross_layers"] if network == "dcn" else 0}
    shape |= {"network.experts": 1 if network == "dcn" else SIZES["experts"]}
    return own | shape | {f"network.{name}": SIZES[name] for name in ("embedding_dim", "hidden", "dropout")}


def show(network: str, rounds: list[dict[str, Trained]]) -> None:
    """A row a system. `ours /`: how many times as many rows a second, and a CPU second, ours trains."""
    print(
        f"\n{network:<14} {'batch':>5} {'rate':>6} {'threads':>7} {'workers':>7} {'dense':>7} {'mult-adds':>9} {'tables':>8}"
        f" {'AUC':>7} {'rows/s':>9} {'ours /':>7} {'rows/CPU s':>10} {'ours /':>7} {'inputs s':>8}"
    )
    for name in ALL:
        own = [round_[name] for round_ in rounds]
        speed, frugality = (
            [_rate(round_[OURS], what) / _rate(round_[name], what) for round_ in rounds]
            for what in ("rows_per_second", "rows_per_cpu_second")
        )
        how, sizes = own[0].how, own[0].answer
        print(
            f"{LIBRARIES.get(name, name):<14} {how.batch_size:5} {how.learning_rate:6} {how.threads:7} {how.workers:7} "
            f"{sizes.dense_parameters:7,} {sizes.multiply_adds:9,} {sizes.table_parameters:8,} "
            f"{statistics.fmean(x.auc for x in own):7.4f} "
            f"{statistics.median(_rate(x, 'rows_per_second') for x in own):9,.0f} {statistics.median(speed):7.2f} "
            f"{statistics.median(_rate(x, 'rows_per_cpu_second') for x in own):10,.0f} {statistics.median(frugality):7.2f} "
            f"{statistics.median(x.answer.other_seconds for x in own):8.2f}",
            flush=True,
        )


def encoding_speed(folder: Path) -> None:
    """Of what comes before training and is the same for all systems: encoders fitted, rows encoded."""
    features, table = bench_recipe().active_features, pq.read_table(folder)
    started = time.monotonic()
    columns = columns_of(table, features)
    fit(columns, table.column(WEIGHT).to_numpy(), features).encode(columns)
    seconds = time.monotonic() - started
    print(f"encoding: {table.num_rows:,} rows in {seconds:.2f} s, {table.num_rows / seconds:,.0f} rows/s")


def _rate(trained: Trained, what: str) -> float:
    return float(getattr(trained.answer, what))


def _speed(trained: Trained) -> float:
    return trained.answer.rows_per_second


if __name__ == "__main__":
    main()
