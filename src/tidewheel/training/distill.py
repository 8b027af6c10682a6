"""Distill the ranker into the compact student that is served, and publish it as one bundle."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tidewheel.contracts.bundle import BundleManifest, Lineage, ModelEntry
from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.learning import DistillConfig
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.contracts.report import Latency
from tidewheel.contracts.schema import feature_digest
from tidewheel.errors import ContractError
from tidewheel.ranker.bundle import PROFILE, RANKER, publish, ranker_entry
from tidewheel.ranker.calibration import Calibrators, fit_calibrator
from tidewheel.ranker.encoding import Encoded, Encoders
from tidewheel.ranker.export import RUNTIME, export_graph
from tidewheel.ranker.histogram import Slices
from tidewheel.ranker.latency import CANDIDATES, measure, refuse_slow
from tidewheel.ranker.model import Network, Ranker, save_ranker
from tidewheel.ranker.scorer import CHUNK_ROWS, GraphScorer
from tidewheel.store import Store
from tidewheel.training import loop
from tidewheel.training.encode import encoded_rows
from tidewheel.training.loader import ShuffledRows
from tidewheel.training.memory import enough_memory
from tidewheel.training.rows import EncodedRows
from tidewheel.training.teaching import Teacher
from tidewheel.training.train import new_ranker


class Distilled(NamedTuple):
    """A published bundle and what its student costs."""

    digest: str
    bundle: BundleManifest
    latency: Latency


def distill(
    model_folder: Path,
    manifest: ModelManifest,
    train_dir: Path,
    calibration_dir: Path,
    config: DistillConfig,
    labels: tuple[LabelConfig, ...],
    profile: Path,
    lineage: Lineage,
    store: Store,
    name: str,
    out: Path,
    progress: Progress = silent,
) -> Distilled:
    """Distill a ranker into a student, calibrate it on rows that neither was trained on, and publish the bundle.

    Args:
        model_folder, manifest: the trained ranker.
        train_dir, calibration_dir: folders of Parquet with the features, the labels and `weight`.
        profile: JSON file that drift checks of the next run compare with; copied into the bundle.
        out: an empty staging folder of `store`; it becomes the bundle.

    Raises:
        ConfigError: the student is slower than `config` allows; nothing is published.
        ContractError: the ranker was trained on other labels, or rows, columns or weights are not as promised.
    """
    names = tuple(label.name for label in labels)
    if manifest.labels != names:
        raise ContractError(
            f"{model_folder}: trained on {', '.join(manifest.labels)}; expected {', '.join(names)}; train again"
        )
    encoders = Encoders.read(model_folder / manifest.encoders)
    loop.use_threads()
    teacher = Teacher.of_ranker(GraphScorer(model_folder, manifest, threads=torch.get_num_threads()), manifest, names)
    own = encoders.without(config.without_features)
    with (
        enough_memory("distill", config.optimizer.batch_size),
        tempfile.TemporaryDirectory(prefix="rows-", dir=out.parent) as folder,
    ):
        rows = encoded_rows(train_dir, own, names, Path(folder) / "train", teacher)
        progress(0.15, f"{len(rows):,} rows scored by the ranker")
        student = fit_student(rows, Network.of(config.network, own, names), labels, config, progress)
        held_out = encoded_rows(calibration_dir, own, names, Path(folder) / "calibration")
        calibrators = calibrate(student, held_out, own, config)
        request = next(held_out.in_order(CANDIDATES))
        progress(0.95, f"calibrated on {len(held_out):,} rows")

    entry = write_student(student, own, calibrators, out)
    latency = measure(out / entry.graph, names, Encoded(request.ids.numpy().astype(np.int64), request.numbers.numpy()))
    refuse_slow(latency, config.max_microseconds_per_candidate)
    shutil.copyfile(profile, out / PROFILE)
    bundle = _manifest(name, entry, own, names, lineage)
    return Distilled(*publish(store, out, bundle), latency)


def _manifest(name: str, entry: ModelEntry, own: Encoders, labels: tuple[str, ...], lineage: Lineage) -> BundleManifest:
    """The student's features are the allowlist: what servers ask for and what the digest is of."""
    return BundleManifest(
        name=name,
        models={RANKER: entry},
        features=own.features,
        feature_digest=feature_digest(own.features),
        labels=labels,
        profile=PROFILE,
        lineage=lineage,
        runtime=RUNTIME,
    )


def write_student(student: Ranker, encoders: Encoders, calibrators: Calibrators, out: Path) -> ModelEntry:
    """Write the student, its uncalibrated twin and all that they need into the folder of a bundle."""
    entry = ranker_entry(student.network.labels)
    save_ranker(student, out / entry.weights, out / entry.network)
    encoders.write(out / entry.encoders)
    calibrators.write(out / entry.calibrators)
    export_graph(student, out / entry.graph, calibrators)
    export_graph(student, out / entry.uncalibrated_graph)
    return entry


def fit_student(
    rows: EncodedRows, network: Network, labels: tuple[LabelConfig, ...], config: DistillConfig, progress: Progress = silent
) -> Ranker:
    """Train a student toward `rows.soft_labels` and the labels; equal arguments give equal weights."""
    objective = loop.Objective(
        task_weights=torch.tensor([label.task_weight for label in labels]),
        hard_weight=1 - config.soft_weight,
        soft_weight=lambda share: config.soft_weight,
    )
    with torch.random.fork_rng(devices=[]):
        student = new_ranker(rows.rates, network, config.seed)
        loop.fit(
            student,
            ShuffledRows(rows),
            config.optimizer,
            objective,
            config.seed,
            lambda s, words: progress(0.15 + 0.75 * s, words),
        )
    return student


@torch.no_grad()
def calibrate(student: Ranker, rows: EncodedRows, encoders: Encoders, config: DistillConfig) -> Calibrators:
    """One calibrator a label, fitted with the rows' weights; the rows are all that it learns from."""
    names = [feature.name for feature in encoders.categorical]
    column = [names.index(config.calibration_slice)] if config.calibration_slice else []
    parts = [
        (student(batch.ids, batch.numbers), batch.labels, batch.weights, batch.ids[:, column])
        for batch in rows.in_order(CHUNK_ROWS)
    ]
    logits, targets, weights, ids = (
        torch.cat(part).numpy() for part in zip(*parts, strict=True)
    )  # (N, T), (N, T), (N,), (N, 0 or 1)
    slices = Slices(config.calibration_slice, column[0], ids[:, 0], config.min_slice_rows) if column else None
    fitted = {}
    for at, label in enumerate(student.network.labels):
        kind = config.calibrators.get(label, config.calibrator)
        fitted[label] = fit_calibrator(kind, logits[:, at], targets[:, at], weights, slices)
    return Calibrators(by_label=fitted)
