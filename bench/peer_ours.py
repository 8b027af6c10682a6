"""Ours beside the peers: the one place of these benches that knows how we train. See bench/peer_job.py.

Settings are dotted names below `train` of a recipe: `optimizer.learning_rate`, `network.embedding_dim`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from bench.log_windows import ROWS, bench_recipe
from bench.peer_job import Answer, Job, Stopwatch, multiply_adds, serve
from tidewheel.contracts.learning import TrainConfig
from tidewheel.ranker import columns_of
from tidewheel.ranker.model import load_ranker
from tidewheel.ranker.scorer import GraphScorer
from tidewheel.training import loop
from tidewheel.training.train import train


def ours(job: Job) -> Answer:
    """Train on the Parquet files of the job's folder and score with the exported graph."""
    torch.set_num_threads(job.threads)
    recipe = bench_recipe()
    labels = tuple(label for label in recipe.labels if label.name in job.labels)
    config = nested({"seed": job.seed, "optimizer.epochs": job.epochs} | job.settings)
    watch = Watch(loop.fit)
    with tempfile.TemporaryDirectory(prefix="ours-") as scratch:
        out, started = Path(scratch), time.monotonic()
        loop.fit = watch
        try:
            manifest = train(Path(job.train, ROWS), recipe.active_features, labels, config, None, out)
        finally:
            loop.fit = watch.fit
        elsewhere = time.monotonic() - started - watch.answer.seconds
        columns = columns_of(pq.read_table(Path(job.score, ROWS)), recipe.active_features)
        scores = GraphScorer(out, manifest).logits(columns)
        ranker = load_ranker(out / manifest.weights, out / manifest.network)
    np.save(job.scores, np.stack([scores[label] for label in job.labels], axis=1)[None])
    sizes = {True: 0, False: 0}
    for name, parameter in ranker.named_parameters():
        sizes["table" in name] += parameter.numel()
    return replace(
        watch.answer,
        rows=watch.answer.rows * job.epochs,
        other_seconds=elsewhere,
        dense_parameters=sizes[False],
        table_parameters=sizes[True],
        multiply_adds=multiply_adds(lambda: ranker(*watch.example)) // len(watch.example[0]),
    )


class Watch:
    """`loop.fit` with a stopwatch around it."""

    def __init__(self, fit: Callable[..., float]) -> None:
        self.fit = fit

    def __call__(self, model: torch.nn.Module, rows: Any, *more: Any, **named: Any) -> float:
        watch = Stopwatch()
        loss = self.fit(model, rows, *more, **named)
        self.answer = Answer(len(rows), watch.seconds(), watch.cpu_seconds(), 0.0, 0, 0, 0)
        self.example = (
            torch.zeros(256, len(model.network.sizes), dtype=torch.int64),
            torch.zeros(256, model.network.num_numbers),
        )
        return loss


def nested(settings: dict[str, Any]) -> TrainConfig:
    """`{"optimizer.epochs": 2}` as the section `train` of a recipe."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        *path, last = name.split(".")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return TrainConfig.model_validate(found)


if __name__ == "__main__":
    serve(ours)
