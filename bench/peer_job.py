"""What the drivers ask of a system's process and what it answers: JSON lines and NumPy files, so that no import is shared.

Used by bench/train_speed.py and bench/ranker_vs_peers.py. Needs NumPy alone: it also runs in the environment of
bench/peers.txt. Legend: N rows, F_c categorical and F_n numeric columns, T labels, E epochs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

Settings = dict[str, Any]


@dataclass(frozen=True)
class Arrays:
    """Encoded rows: ids (N, F_c) int32, each below its column's size, numbers (N, F_n) float32, labels (N, T) float32."""

    ids: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]  # of the columns of ids
    sizes: tuple[int, ...]

    @classmethod
    def read(cls, folder: str | Path, labels: tuple[str, ...]) -> Self:
        """The rows of a folder that bench/log_windows.py wrote, with these of its labels."""
        facts = json.loads(Path(folder, "facts.json").read_text())
        ids, numbers, found = (np.load(Path(folder, f"{name}.npy")) for name in ("ids", "numbers", "labels"))
        wanted = [facts["labels"].index(label) for label in labels]
        return cls(ids, numbers, np.ascontiguousarray(found[:, wanted]), tuple(facts["names"]), tuple(facts["sizes"]))

    def few(self) -> Arrays:
        """At most 512 rows with both values of each label, for libraries that insist on looking at some after each epoch."""
        positive = [np.flatnonzero(self.labels[:, at])[:16] for at in range(self.labels.shape[1])]
        at = np.unique(np.concatenate([np.arange(min(256, len(self.ids))), *positive]))
        return Arrays(self.ids[at], self.numbers[at], self.labels[at], self.names, self.sizes)


@dataclass(frozen=True)
class Job:
    """Train `model` on the rows of `train` and score those of `score` into the file `scores`, (E', N, T) float32.

    A model of one label has one name in `labels`. With labels in `stops_on` E' is the number of epochs until the mean AUC of
    these falls for the first time, at most `epochs`: early stopping with a patience of one. Else E' is 1.
    """

    model: str
    labels: tuple[str, ...]
    settings: Settings
    epochs: int
    seed: int
    threads: int
    train: str
    score: str
    scores: str
    stops_on: tuple[str, ...] = ()

    @classmethod
    def parse(cls, line: str) -> Self:
        found = json.loads(line)
        return cls(**(found | {name: tuple(found[name]) for name in ("labels", "stops_on")}))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Answer:
    """`seconds` and `cpu_seconds`: training alone. The dense part is all but the tables; multiply-adds are of one row."""

    rows: int
    seconds: float
    cpu_seconds: float
    other_seconds: float  # ours: all of `train` but its loop, reading and encoding included; peers: arrays to their inputs
    dense_parameters: int
    table_parameters: int
    multiply_adds: int

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def rows_per_cpu_second(self) -> float:
        return self.rows / self.cpu_seconds


class Learner(Protocol):
    """A model of a library and its data, ready for its own fit loop."""

    module: Any  # torch.nn.Module

    def fit(self, epochs: int) -> None:
        """Train for so many more epochs with the library's loop and loader."""

    def scores(self, rows: Arrays) -> np.ndarray:
        """(N, T) scores, the higher the likelier."""


def run(make: Callable[[Job, Arrays], Learner], job: Job) -> Answer:
    """Make a library's learner, train it, score with it."""
    import torch

    torch.set_num_threads(job.threads)
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # its first use imports for seconds
    torch.manual_seed(job.seed)
    np.random.seed(job.seed)
    train, score = Arrays.read(job.train, job.labels), Arrays.read(job.score, job.labels)
    started = time.monotonic()
    learner = make(job, train)
    made = time.monotonic() - started
    seconds, cpu_seconds, scores, means = 0.0, 0.0, [], [0.0]
    chunk = 1 if job.stops_on else job.epochs
    for _ in range(0, job.epochs, chunk):
        watch = Stopwatch()
        learner.fit(chunk)
        seconds, cpu_seconds = seconds + watch.seconds(), cpu_seconds + watch.cpu_seconds()
        scores.append(learner.scores(score).astype(np.float32))
        means.append(_mean_auc(scores[-1], score.labels, [job.labels.index(label) for label in job.stops_on]))
        if means[-1] < means[-2]:
            break
    np.save(job.scores, np.stack(scores))
    sizes = {True: 0, False: 0}
    for name, parameter in learner.module.named_parameters():
        sizes["embed" in name] += parameter.numel()
    adds = multiply_adds(lambda: learner.scores(train.few())) // len(train.few().ids)
    return Answer(len(train.ids) * chunk * len(scores), seconds, cpu_seconds, made, sizes[False], sizes[True], adds)


def _mean_auc(scores: np.ndarray, labels: np.ndarray, columns: list[int]) -> float:
    from sklearn.metrics import roc_auc_score

    return sum(roc_auc_score(labels[:, at], scores[:, at]) for at in columns) / max(1, len(columns))


def multiply_adds(forward: Callable[[], object]) -> int:
    """Of the matrix products of a call, as torch counts them: half of their floating point operations."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        forward()
    return counter.get_total_flops() // 2


class Stopwatch:
    """Seconds and CPU seconds, those of ended child processes included, since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), _cpu()

    def seconds(self) -> float:
        return time.monotonic() - self._wall

    def cpu_seconds(self) -> float:
        return _cpu() - self._cpu


def _cpu() -> float:
    return sum(os.times()[:4])


def serve(answer: Callable[[Job], Answer]) -> None:
    """Answer the jobs that come as lines on standard input, until it ends, on the file descriptor that is the argument.

    Standard output is left to what libraries print, some of them from threads and at import.
    """
    with os.fdopen(int(sys.argv[1]), "w") as out:
        for line in sys.stdin:
            out.write(json.dumps(asdict(answer(Job.parse(line)))) + "\n")
            out.flush()
