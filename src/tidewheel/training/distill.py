"""Distill the ranker into the compact student that is served, and publish it as one bundle."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from tidewheel.contracts.bundle import BundleManifest, Lineage
from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import DistillConfig, LabelConfig
from tidewheel.contracts.schema import feature_digest
from tidewheel.errors import ContractError
from tidewheel.ranker.bundle import PROFILE, RANKER, publish, ranker_entry
from tidewheel.ranker.calibration import Calibrators, fit_calibrator
from tidewheel.ranker.encoding import Encoders
from tidewheel.ranker.export import RUNTIME, export_graph
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
) -> tuple[str, BundleManifest]:
    """Distill a ranker into a student, calibrate it on rows that neither was trained on, and publish the bundle.

    Args:
        model_folder, manifest: the trained ranker.
        train_dir, calibration_dir: folders of Parquet with the features, the labels and `weight`.
        profile: JSON file that drift checks of the next run compare with; copied into the bundle.
        out: an empty staging folder of `store`; it becomes the bundle.

    Returns:
        Digest and manifest of the bundle.

    Raises:
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
    with (
        enough_memory("distill", config.optimizer.batch_size),
        tempfile.TemporaryDirectory(prefix="rows-", dir=out.parent) as folder,
    ):
        rows = encoded_rows(train_dir, encoders, names, Path(folder) / "train", teacher)
        progress(0.15, f"{len(rows):,} rows scored by the ranker")
        student = fit_student(rows, Network.of(config.network, encoders, names), labels, config, progress)
        held_out = encoded_rows(calibration_dir, encoders, names, Path(folder) / "calibration")
        calibrators = calibrate(student, held_out, config.calibrator)
        progress(0.95, f"calibrated on {len(held_out):,} rows")

    entry = ranker_entry(names)
    save_ranker(student, out / entry.weights, out / entry.network)
    encoders.write(out / entry.encoders)
    calibrators.write(out / entry.calibrators)
    export_graph(student, out / entry.graph, calibrators)
    export_graph(student, out / entry.uncalibrated_graph)
    shutil.copyfile(profile, out / PROFILE)
    bundle = BundleManifest(
        name=name,
        models={RANKER: entry},
        features=manifest.features,
        feature_digest=feature_digest(manifest.features),
        labels=names,
        profile=PROFILE,
        lineage=lineage,
        runtime=RUNTIME,
    )
    return publish(store, out, bundle)


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
def calibrate(student: Ranker, rows: EncodedRows, kind: str) -> Calibrators:
    """One calibrator a label, fitted with the rows' weights."""
    parts = [(student(batch.ids, batch.numbers), batch.labels, batch.weights) for batch in rows.in_order(CHUNK_ROWS)]
    logits, targets, weights = (torch.cat(column).numpy() for column in zip(*parts, strict=True))  # (N, T), (N, T), (N,)
    fitted = {
        label: fit_calibrator(kind, logits[:, at], targets[:, at], weights) for at, label in enumerate(student.network.labels)
    }
    return Calibrators(by_label=fitted)
