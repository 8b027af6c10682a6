"""The ranker against DeepCTR-Torch, FuxiCTR and torch-rechub on the real log: AUC on five evaluation days, three seeds each.

    uv venv .cache/peers && uv pip install --python .cache/peers -r bench/peers.txt
    python -m bench.ranker_vs_peers --data DIR --out OUT [--seeds 3] [--trials 10]

DIR is KuaiRand-Pure. Five windows of five training days and one evaluation day each end 2022-05-02 … 2022-05-06; our ingest
and sample make their rows, and all systems get the same ones, encoded alike (bench/log_windows.py). Weights are 1 in this log.

Tuning: within the first window's training days, judged on the last of them after training on those before it, and on the
last but one after training on those before that; never on an evaluation day. The mean of both decides. Every system has as
many trials: a library --trials of its DCN, one network a label, and as many of its MMoE; we twice that of our ranker
(bench/search_space.py). A library stops early, after the epoch whose AUC falls, and the best is taken. What wins is trained
on all five days of each window, for each seed. A library's better model on the *evaluation* days counts as the library, and
the best library as the peer, both of which favour the peer.

Everything is appended to OUT/results.jsonl as it is measured, and not measured again by the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from bench.log_windows import ENDS, TUNING, bench_recipe, make_windows
from bench.paired import Comparison, Day, Run, compare
from bench.peer_job import Arrays, Job
from bench.search_space import MODELS, Model
from bench.systems import LIBRARIES, OURS, System
from bench.work import ROOT
from tidewheel.evaluation.metrics import auc

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
    parser.add_argument("--threads", type=int, default=1, help="of each library")
    parser.add_argument("--parallel", type=int, default=2, help="systems that train at a time")
    parser.add_argument("--gated-only", action="store_true", help="no networks of one label that is not gated")
    parser.add_argument("--report-only", action="store_true", help="the tables of what is measured so far")
    parser.add_argument("--replicates", type=int, default=400, help="of the bootstrap over users")
    options = parser.parse_args()
    bench = Bench(options.out, make_windows(options.data, ENDS, options.out / "windows"), options.threads, options.gated_only)
    models = [model for model in MODELS if model.system in options.only.split(",")]
    if not options.report_only:
        systems = dict.fromkeys(model.system for model in models)
        with ThreadPoolExecutor(options.parallel) as pool:
            list(pool.map(partial(measure, bench, models, options.trials, options.seeds), systems))
    report(bench, models, options.replicates)


def measure(bench: Bench, models: list[Model], trials: int, seeds: int, system: str) -> None:
    """All trials of a system's models, then all runs of what won, in a process of its own."""
    own = [model for model in models if model.system == system]
    with System(system, bench.out, bench.threads) as process:
        for model in own:
            for trial, labels in itertools.product(range(trials * (2 if system == OURS else 1)), bench.tasks(model)):
                for window in TUNING:
                    bench.trial(process, model, labels, trial, window)
        for seed, end, model in itertools.product(range(seeds), ENDS, own):
            for labels in bench.tasks(model):
                bench.final(process, model, labels, end, seed)


@dataclass(frozen=True)
class Training:
    """One training of a model's network for `labels`, in the phase `trial` or `final`."""

    phase: str
    model: Model
    labels: tuple[str, ...]
    settings: Found
    epochs: int
    window: str
    seed: int

    def facts(self) -> Found:
        """All that its result depends on; of ours also the code, so that other code is measured again."""
        names = ("phase", "settings", "epochs", "window", "seed")
        found = {name: getattr(self, name) for name in names} | {"model": self.model.key, "labels": list(self.labels)}
        return found | ({"code": code_digest()} if self.model.system == OURS else {})

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()[:16]

    def job(self, folder: Path, scores: Path, threads: int, gated: tuple[str, ...]) -> Job:
        """What a trial of a library stops on: the gated labels of its network, or the only one."""
        own = {name: value for name, value in self.settings.items() if name not in ("model", EPOCHS)}
        name, parts = self.settings.get("model", self.model.name), (str(folder / "train"), str(folder / "eval"), str(scores))
        stops_on = tuple(label for label in self.labels if label in gated) or self.labels
        is_stopped = self.phase == "trial" and self.model.system != OURS
        return Job(name, self.labels, own, self.epochs, self.seed, threads, *parts, stops_on if is_stopped else ())


@cache
def code_digest() -> str:
    """Of the code that trains and scores, and of the recipe."""
    sources = [*sorted((ROOT / "src/tidewheel").glob("*/*.py")), ROOT / "recipes/kuairand.yaml"]
    used = [path for path in sources if path.parent.name in ("ranker", "training", "recipes")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in used)).hexdigest()[:12]


class Bench:
    """What is measured, by key; each is measured once."""

    def __init__(self, out: Path, windows: dict[str, Path], threads: int, is_gated_only: bool) -> None:
        self.out, self.windows, self.threads, self.is_gated_only = out, windows, threads, is_gated_only
        self.gated = tuple(label.name for label in bench_recipe().labels if label.gated)
        self.writing = Lock()
        (out / "scores").mkdir(parents=True, exist_ok=True)
        self.results = out / "results.jsonl"
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        self.found: dict[str, Found] = {found["key"]: found for found in map(json.loads, lines)}

    def tasks(self, model: Model) -> list[tuple[str, ...]]:
        """The labels of each network of a model."""
        if model.is_multi_task:
            return [bench_recipe().label_names]
        return [(name,) for name in (self.gated if self.is_gated_only else bench_recipe().label_names)]

    def trial(self, process: System, model: Model, labels: tuple[str, ...], trial: int, window: str) -> Found:
        """Train on the first days of a tuning window and judge on its last one."""
        settings = model.settings(trial)
        epochs = settings.get(EPOCHS, model.max_epochs)
        return self._measured(process, Training("trial", model, labels, settings, epochs, window, 0))

    def best(self, model: Model, labels: tuple[str, ...]) -> tuple[Found, int]:
        """The settings and epochs with the best AUC, a mean over the gated labels among `labels` and the tuning windows."""
        columns = [at for at, label in enumerate(labels) if label in self.gated] or [0]
        trials: dict[str, dict[str, Found]] = defaultdict(dict)
        for found in self.of(model, labels, "trial"):
            trials[json.dumps(found["settings"], sort_keys=True)][found["window"]] = found
        candidates = [
            (float(np.mean([found["auc"][epoch][at] for found in windows.values() for at in columns])), epoch + 1, settings)
            for settings, windows in trials.items()
            if windows.keys() == set(TUNING)
            for epoch in range(min(len(found["auc"]) for found in windows.values()))
        ]
        _, epochs, found = max(candidates)
        settings = json.loads(found)
        return settings, settings.get(EPOCHS, epochs)

    def of(self, model: Model, labels: tuple[str, ...], phase: str) -> list[Found]:
        """What is measured of a network, with the code of today."""
        code = code_digest() if model.system == OURS else None
        wanted = (phase, model.key, list(labels), code)
        return [x for x in list(self.found.values()) if (x["phase"], x["model"], x["labels"], x.get("code")) == wanted]

    def final(self, process: System, model: Model, labels: tuple[str, ...], end: str, seed: int) -> Found:
        """Train what won on all days of a window, and score its evaluation day."""
        settings, epochs = self.best(model, labels)
        return self._measured(process, Training("final", model, labels, settings, epochs, end, seed))

    def scores(self, model: Model, label: str) -> dict[Run, np.ndarray]:
        """Scores (N,) of the label by run; empty where the model has no such network."""
        for labels in self.tasks(model):
            if label in labels and self.of(model, labels, "trial"):
                return {
                    (found["window"], found["seed"]): np.load(self.out / f"scores/{found['key']}.npy")[-1][
                        :, labels.index(label)
                    ]
                    for found in self._finals(model, labels)
                }
        return {}

    def _finals(self, model: Model, labels: tuple[str, ...]) -> Iterator[Found]:
        """Runs of the settings that win now: more trials may have been made since others ran."""
        settings, epochs = self.best(model, labels)
        for found in self.of(model, labels, "final"):
            if (found["settings"], found["epochs"]) == (settings, epochs):
                yield found

    def day(self, end: str, label: str) -> Day:
        part = self.windows[end] / "eval"
        return Day(np.load(part / "users.npy"), Arrays.read(part, (label,)).labels[:, 0])

    def _measured(self, process: System, training: Training) -> Found:
        if training.key in self.found:
            return self.found[training.key]
        folder, scores = self.windows[training.window], self.out / f"scores/{training.key}.npy"
        answer = process.ask(training.job(folder, scores, self.threads, self.gated))
        truth = Arrays.read(folder / "eval", training.labels).labels
        one = np.ones(len(truth))
        aucs = [[auc(epoch[:, at], truth[:, at], one).value for at in range(truth.shape[1])] for epoch in np.load(scores)]
        if training.phase == "trial":
            scores.unlink()
        found = training.facts() | {"key": training.key, "auc": aucs, "answer": asdict(answer)}
        with self.writing, self.results.open("a") as file:
            file.write(json.dumps(found) + "\n")
            self.found[training.key] = found
        shown = " ".join(f"{value:.4f}" for value in max(aucs))
        labels = ",".join(training.labels)
        print(
            f"{training.phase} {training.model.key:<14} {training.window:<10} seed {training.seed} {labels}: {shown}  "
            f"{answer.seconds:.1f} s",
            flush=True,
        )
        return found


def report(bench: Bench, models: list[Model], replicates: int) -> None:
    """Settings that won, then a table a label of every model against ours, best first."""
    for model in models:
        for labels in bench.tasks(model):
            if not bench.of(model, labels, "trial"):
                continue
            settings, epochs = bench.best(model, labels)
            print(f"\n{model.key} {','.join(labels)}: {epochs} epochs, {json.dumps(settings)}")
    ours = next((model for model in models if model.system == OURS), None)
    if ours is None:
        return
    for label in bench_recipe().label_names:
        found = list(_comparisons(bench, ours, models, label, replicates))
        print(f"\n{label:<22} runs     AUC    ours   ours -   won  {'over runs':<20} {'over windows':<20} over users")
        for model, x in sorted(found, key=lambda row: -row[1].peer):
            spans = [f"[{low:+.4f}, {high:+.4f}]" for low, high in (x.over_runs, x.over_windows, x.over_users)]
            name = f"{LIBRARIES[model.system]} {model.name}"
            print(
                f"{name:<22} {x.runs:4} {x.peer:7.4f} {x.ours:7.4f} {x.difference:+8.4f} {x.won:5.0%}  "
                f"{spans[0]:<20} {spans[1]:<20} {spans[2]}"
            )


def _comparisons(
    bench: Bench, ours: Model, models: list[Model], label: str, replicates: int
) -> Iterator[tuple[Model, Comparison]]:
    own = bench.scores(ours, label)
    days = {end: bench.day(end, label) for end in {window for window, _ in own}}
    for model in models:
        theirs = bench.scores(model, label)
        both = sorted(own.keys() & theirs.keys())
        if model.system != OURS and both:
            yield model, compare({run: own[run] for run in both}, {run: theirs[run] for run in both}, days, replicates)


if __name__ == "__main__":
    main()
