"""The ranker against DeepCTR-Torch, FuxiCTR and torch-rechub on the real log: AUC on five evaluation days, three seeds each.

    uv venv .cache/peers && uv pip install --python .cache/peers -r bench/peers.txt
    python -m bench.ranker_vs_peers --data DIR --out OUT [--seeds 3] [--trials 10]

DIR is KuaiRand-Pure. Five windows of five training days and one evaluation day each end 2022-05-02 … 2022-05-06; our ingest
and sample make their rows, and all systems get the same ones, encoded alike (bench/log_windows.py). Weights are 1 in this log.

Tuning: on the first window's training days without its last, judged on that last one, never on an evaluation day. Every
system has as many trials: a library --trials of its DCN, one network a label, and as many of its MMoE; we twice that of
our ranker (bench/search_space.py). A library stops early, after the epoch whose AUC falls, and the best is taken. What wins
there is trained on all five days of each window, for each seed. A library's better model on the *evaluation* days counts as
the library, and the best library as the peer, both of which favour the peer.

Everything is appended to OUT/results.jsonl as it is measured, and not measured again by the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.log_windows import bench_recipe, make_windows
from bench.paired import Comparison, Day, Run, compare
from bench.peer_job import Arrays, Job
from bench.search_space import MODELS, Model
from bench.systems import LIBRARIES, OURS, System
from tidewheel.evaluation.metrics.auc import auc

ENDS = tuple(f"2022-05-0{day}" for day in range(2, 7))
EPOCHS = "optimizer.epochs"  # of ours, which is a setting

Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="keeps windows, results and scores; a later run goes on from it"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10, help="of each model of a library; ours has twice as many")
    parser.add_argument("--only", default=",".join((OURS, *LIBRARIES)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gated-only", action="store_true", help="no networks of one label that is not gated")
    parser.add_argument("--replicates", type=int, default=400, help="of the bootstrap over users")
    options = parser.parse_args()
    bench = Bench(options.out, make_windows(options.data, ENDS, options.out / "windows"), options.threads, options.gated_only)
    models = [model for model in MODELS if model.system in options.only.split(",")]
    for model in models:
        for trial in range(options.trials * (2 if model.system == OURS else 1)):
            for labels in bench.tasks(model):
                bench.trial(model, labels, trial)
    for seed, end, model in itertools.product(range(options.seeds), ENDS, models):
        for labels in bench.tasks(model):
            bench.final(model, labels, end, seed)
    bench.close()
    report(bench, models, options.replicates)


class Bench:
    """What is measured, by key; each is measured once."""

    def __init__(self, out: Path, windows: dict[str, Path], threads: int, is_gated_only: bool) -> None:
        self.out, self.windows, self.threads, self.is_gated_only = out, windows, threads, is_gated_only
        self.gated = tuple(label.name for label in bench_recipe().labels if label.gated)
        self.systems: dict[str, System] = {}
        (out / "scores").mkdir(parents=True, exist_ok=True)
        self.results = out / "results.jsonl"
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        self.found: dict[str, Found] = {found["key"]: found for found in map(json.loads, lines)}

    def tasks(self, model: Model) -> list[tuple[str, ...]]:
        """The labels of each network of a model."""
        if model.is_multi_task:
            return [bench_recipe().label_names]
        return [(name,) for name in (self.gated if self.is_gated_only else bench_recipe().label_names)]

    def trial(self, model: Model, labels: tuple[str, ...], trial: int) -> Found:
        """Train on the first days of the tuning window and judge on its last one."""
        settings = model.settings(trial)
        epochs = settings.get(EPOCHS, model.max_epochs)
        return self._measured("trial", model, labels, settings, epochs, "tune", seed=0)

    def best(self, model: Model, labels: tuple[str, ...]) -> tuple[Found, int]:
        """The trial, and its epochs, with the best mean AUC of the gated labels among `labels`."""
        columns = [at for at, label in enumerate(labels) if label in self.gated] or [0]
        candidates = [
            (found, number, np.mean([epoch[at] for at in columns]))
            for found in self.found.values()
            if (found["phase"], found["model"], tuple(found["labels"])) == ("trial", model.key, labels)
            for number, epoch in enumerate(found["auc"], start=1)
        ]
        found, epochs, _ = max(candidates, key=lambda candidate: candidate[2])
        return found, found["epochs"] if model.system == OURS else epochs

    def final(self, model: Model, labels: tuple[str, ...], end: str, seed: int) -> Found:
        """Train what won on all days of a window, and score its evaluation day."""
        trial, epochs = self.best(model, labels)
        return self._measured("final", model, labels, trial["settings"], epochs, end, seed)

    def scores(self, model: Model, label: str) -> dict[Run, np.ndarray]:
        """Scores (N,) of the label by run; empty where the model has no such network."""
        for labels in self.tasks(model):
            if label in labels:
                return {
                    (found["window"], found["seed"]): np.load(self.out / found["scores"])[-1][:, labels.index(label)]
                    for found in self._finals(model, labels)
                }
        return {}

    def _finals(self, model: Model, labels: tuple[str, ...]) -> Iterator[Found]:
        """Runs of the settings that win now: more trials may have been made since others ran."""
        trial, epochs = self.best(model, labels)
        for found in self.found.values():
            is_model = (found["phase"], found["model"], tuple(found["labels"])) == ("final", model.key, labels)
            if is_model and (found["settings"], found["epochs"]) == (trial["settings"], epochs):
                yield found

    def day(self, end: str, label: str) -> Day:
        part = self.windows[end] / "eval"
        return Day(np.load(part / "users.npy"), Arrays.read(part, (label,)).labels[:, 0])

    def _measured(
        self, phase: str, model: Model, labels: tuple[str, ...], settings: Found, epochs: int, window: str, seed: int
    ) -> Found:
        what = {"phase": phase, "model": model.key, "labels": list(labels), "settings": settings, "epochs": epochs}
        what |= {"window": window, "seed": seed}
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        if key in self.found:
            return self.found[key]
        folder, scores = self.windows[window], f"scores/{key}.npy"
        own = {name: value for name, value in settings.items() if name not in ("model", EPOCHS)}
        stops_on = [label for label in labels if label in self.gated] or labels
        job = Job(
            settings.get("model", model.name),
            labels,
            own,
            epochs,
            seed,
            self.threads,
            str(folder / "train"),
            str(folder / "eval"),
            str(self.out / scores),
            tuple(stops_on) if phase == "trial" and model.system != OURS else (),
        )
        answer = self._system(model.system).ask(job)
        found = what | {"key": key, "scores": scores, "answer": asdict(answer)}
        truth = Arrays.read(folder / "eval", labels).labels
        one = np.ones(len(truth))
        found["auc"] = [
            [auc(epoch[:, at], truth[:, at], one) for at in range(len(labels))] for epoch in np.load(self.out / scores)
        ]
        if phase == "trial":
            (self.out / scores).unlink()
        with self.results.open("a") as file:
            file.write(json.dumps(found) + "\n")
        self.found[key] = found
        shown = " ".join(f"{value:.4f}" for value in max(found["auc"], key=lambda epoch: epoch[0]))
        print(
            f"{phase} {model.key:<14} {window:<10} seed {seed} {','.join(labels)}: {shown}  {answer.seconds:.1f} s", flush=True
        )
        return found

    def _system(self, name: str) -> System:
        if name not in self.systems:
            self.systems[name] = System(name, self.out, self.threads)
        return self.systems[name]

    def close(self) -> None:
        for system in self.systems.values():
            system.__exit__(None, None, None)


def report(bench: Bench, models: list[Model], replicates: int) -> None:
    """Settings that won, then a table a label of every model against ours, best first."""
    for model in models:
        for labels in bench.tasks(model):
            found, epochs = bench.best(model, labels)
            print(f"\n{model.key} {','.join(labels)}: {epochs} epochs, {json.dumps(found['settings'])}")
    ours = next((model for model in models if model.system == OURS), None)
    if ours is None:
        return
    for label in bench_recipe().label_names:
        found = list(_comparisons(bench, ours, models, label, replicates))
        print(
            f"\n{label:<22} {'AUC':>7} {'ours':>7} {'ours -':>8} {'won':>5}  {'over runs':<20} {'over windows':<20} over users"
        )
        for model, x in sorted(found, key=lambda row: -row[1].peer):
            spans = [f"[{low:+.4f}, {high:+.4f}]" for low, high in (x.over_runs, x.over_windows, x.over_users)]
            name = f"{LIBRARIES[model.system]} {model.name}"
            print(
                f"{name:<22} {x.peer:7.4f} {x.ours:7.4f} {x.difference:+8.4f} {x.won:5.0%}  "
                f"{spans[0]:<20} {spans[1]:<20} {spans[2]}"
            )


def _comparisons(
    bench: Bench, ours: Model, models: list[Model], label: str, replicates: int
) -> Iterator[tuple[Model, Comparison]]:
    own = bench.scores(ours, label)
    days = {end: bench.day(end, label) for end in {window for window, _ in own}}
    for model in models:
        theirs = bench.scores(model, label)
        if model.system != OURS and theirs:
            yield model, compare(own, theirs, days, replicates)


if __name__ == "__main__":
    main()
