"""Train the multi-task ranker on a dataset's training rows, with a teacher when there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import LabelConfig, TrainConfig
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.ranker.bundle import ENCODERS, GRAPH, NETWORK, WEIGHTS, OpenBundle
from tidewheel.ranker.encoding import columns_of, fit
from tidewheel.ranker.export import export_graph
from tidewheel.ranker.model import Network, Ranker, save_ranker
from tidewheel.ranker.scorer import Scorer, sigmoid
from tidewheel.training import loop
from tidewheel.training.checkpoint import Checkpoints
from tidewheel.training.loader import Rows, labels_of, read_table, rows_of, weights_of


def train(
    train_dir: Path,
    features: tuple[FeatureSpec, ...],
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    teacher: OpenBundle | None,
    out: Path,
    progress: Progress = silent,
    checkpoints: Path | None = None,
) -> ModelManifest:
    """Train a ranker and write weights, network, encoders and ONNX graph (logits) into `out`.

    Args:
        train_dir: folder of Parquet with the features, the labels and `weight`.
        teacher: production's bundle whose uncalibrated twin gives soft labels, or None.
        checkpoints: where training that was stopped goes on from; removed when it is done. None: no checkpoints.

    Returns:
        The manifest, without generation, inputs and files: those are the caller's.

    Raises:
        ContractError: rows, columns or weights are not what the recipe promises, or the teacher lacks a feature.
    """
    names = tuple(label.name for label in labels)
    table = read_table(train_dir, _needed(features, teacher), names)
    progress(0.03, f"{table.num_rows:,} rows read")
    encoders = fit(columns_of(table, features), weights_of(table, train_dir), features)
    soft_labels = None if teacher is None else soft_labels_of(teacher, table, names)
    rows = rows_of(table, encoders, names, train_dir, soft_labels)
    progress(0.1, "rows encoded")
    encoders.write(out / ENCODERS)
    network = Network.of(config.network, encoders, names)
    done = _span(progress, 0.1, 0.97)
    if config.engine == "ray":
        from tidewheel.training.distributed import fit_distributed

        ranker = fit_distributed(rows, network, labels, config, out, done, checkpoints)
    else:
        ranker = fit_here(rows, network, labels, config, done, checkpoints)
    save_ranker(ranker, out / WEIGHTS, out / NETWORK)
    export_graph(ranker, out / GRAPH)
    progress(1.0, "ranker written")
    return ModelManifest(
        features=features,
        labels=names,
        network=NETWORK,
        encoders=ENCODERS,
        weights=WEIGHTS,
        graph=GRAPH,
        teacher=None if teacher is None else teacher.digest,
        generation=0 if teacher is None else teacher.manifest.lineage.generation + 1,
        inputs={},
    )


def fit_here(
    rows: Rows,
    network: Network,
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    progress: Progress = silent,
    checkpoints: Path | None = None,
) -> Ranker:
    """Train in this process; equal arguments give equal weights. Leaves torch's global random state as it was."""
    loop.use_threads()
    saved = None
    if checkpoints is not None:
        saved = Checkpoints(checkpoints, config.checkpoint_every_steps, work_of(rows, network, config))
    with torch.random.fork_rng(devices=[]):
        ranker = new_ranker(rows, network, config.seed, config.task_weighting).to(config.device)
        objective = objective_of(labels, config, config.device, ranker.log_variances)
        loop.fit(ranker, rows.to(config.device), config.optimizer, objective, config.seed, progress, saved)
    if saved is not None:
        saved.clear()
    return ranker.to("cpu")


def new_ranker(rows: Rows, network: Network, seed: int, task_weighting: str = "fixed") -> Ranker:
    """A ranker with seeded parameters that predicts the weighted positive rates; seeds torch's random state."""
    torch.manual_seed(seed)
    ranker = Ranker(network)
    rates = (rows.weights.unsqueeze(1) * rows.labels).sum(dim=0) / rows.weights.sum()
    ranker.start_at(rates)
    if task_weighting == "uncertainty":
        ranker.learn_task_weights(rates)
    return ranker


def objective_of(
    labels: tuple[LabelConfig, ...], config: TrainConfig, device: str, log_variances: torch.Tensor | None = None
) -> loop.Objective:
    """Loss toward the labels, plus toward the teacher with the weight of its schedule, label by label."""
    teacher = config.teacher
    shares = torch.tensor([teacher.by_label.get(label.name, 1.0) for label in labels], device=device)
    return loop.Objective(
        task_weights=torch.tensor([label.task_weight for label in labels], device=device),
        hard_weight=1.0,
        soft_weight=lambda share: teacher.at(share) * shares,
        log_variances=log_variances,
    )


def soft_labels_of(teacher: OpenBundle, table: pa.Table, labels: tuple[str, ...]) -> np.ndarray:
    """(N, T) probabilities of the teacher's uncalibrated twin; a label that it does not know stays the row's own.

    Raises:
        ContractError: the table lacks a feature of the teacher.
    """
    scorer = Scorer(teacher, threads=torch.get_num_threads())
    logits = scorer.logits(columns_of(table, teacher.manifest.features))
    soft = labels_of(table, labels)
    for at, label in enumerate(labels):
        if label in logits:
            soft[:, at] = sigmoid(logits[label])
    return soft


def work_of(rows: Rows, network: Network, config: TrainConfig) -> str:
    """Digest of what training depends on, rows included, so that no checkpoint of other work is resumed."""
    tensors = [rows.ids, rows.numbers, rows.labels, rows.weights, rows.soft_labels]
    sums = [None if t is None else [list(t.shape), float(t.double().sum()), float(t[-1].double().sum())] for t in tensors]
    return digest_of(
        [network.model_dump(mode="json"), config.model_dump(mode="json", exclude={"checkpoint_every_steps"}), sums]
    )


def _needed(features: tuple[FeatureSpec, ...], teacher: OpenBundle | None) -> tuple[FeatureSpec, ...]:
    """The features to read: the model's own and what else the teacher looks at."""
    own = {feature.name for feature in features}
    return features + tuple(f for f in (teacher.manifest.features if teacher else ()) if f.name not in own)


def _span(progress: Progress, start: float, end: float) -> Progress:
    """Progress of a part as progress of the whole."""
    return lambda share, words: progress(start + (end - start) * share, words)
