"""Train the multi-task ranker on a dataset's training rows, with a teacher when there is one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.learning import TrainConfig
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.training import TrainingReport
from tidewheel.ranker.bundle import ENCODERS, GRAPH, NETWORK, WEIGHTS, OpenBundle
from tidewheel.ranker.export import export_graph
from tidewheel.ranker.model import Network, Ranker, save_ranker
from tidewheel.store import Store
from tidewheel.training import loop
from tidewheel.training.checkpoint import Checkpoints
from tidewheel.training.driver import Driver
from tidewheel.training.encode import encoded_rows, fitted_encoders
from tidewheel.training.loader import ShuffledRows
from tidewheel.training.memory import enough_memory
from tidewheel.training.rows import EncodedRows
from tidewheel.training.teaching import Teacher


def train(
    train_dir: Path,
    features: tuple[FeatureSpec, ...],
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    teacher: OpenBundle | None,
    out: Path,
    progress: Progress = silent,
    scratch: Path | None = None,
    checkpoints: Store | None = None,
    tell: Callable[[TrainingReport], None] = lambda report: None,
    driver: Driver | None = None,
) -> ModelManifest:
    """Train a ranker and write weights, network, encoders and ONNX graph (logits) into `out`.

    Args:
        train_dir: folder of Parquet with the features, the labels and `weight`.
        teacher: production's bundle whose uncalibrated twin gives soft labels, or None.
        scratch: folder for the encoded rows, found again by a later call with the same arguments; removed when it is done.
            None: a temporary one. Workers on other machines must see it too.
        checkpoints: where training that was stopped goes on from. None: no checkpoints.
        tell: gets how the training of the first member went.
        driver: where Ray's driver runs, with engine `ray`; None: on this machine.

    Returns:
        The manifest, without generation, inputs and files: those are the caller's.

    Raises:
        ContractError: rows, columns or weights are not what the recipe promises, or the teacher lacks a feature.
        ConfigError: the loss is no longer finite, or there is no such device.
        RetryableError: there is not enough memory, or workers failed too often.
    """
    names = tuple(label.name for label in labels)
    is_here = config.engine == "in_process" or (driver is None and "RAY_ADDRESS" not in os.environ)
    if is_here:  # a cluster may have what this machine has not
        loop.check_device(config.device)
    with enough_memory("train", config.optimizer.batch_size), _folder(scratch) as folder:
        encoders = fitted_encoders(train_dir, features, names, folder, _span(progress, 0.0, 0.03))
        taught_by = None if teacher is None else Teacher.of_bundle(teacher, names, config.teacher.scores == "inline")
        rows = encoded_rows(train_dir, encoders, names, folder, taught_by, _span(progress, 0.03, 0.1))
        encoders.write(out / ENCODERS)
        network = Network.of(config.network, encoders, names)
        done = _span(progress, 0.1, 0.97)
        members = _fit_members(rows, network, labels, config, teacher, out, done, checkpoints, tell, driver)
    progress(1.0, "ranker written")
    return ModelManifest(
        features=features,
        labels=names,
        network=NETWORK,
        encoders=ENCODERS,
        weights=WEIGHTS,
        graph=GRAPH,
        members=members,
        teacher=None if teacher is None else teacher.digest,
        generation=0 if teacher is None else teacher.manifest.lineage.generation + 1,
        inputs={},
    )


def _fit_members(
    rows: EncodedRows,
    network: Network,
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    teacher: OpenBundle | None,
    out: Path,
    progress: Progress,
    checkpoints: Store | None,
    tell: Callable[[TrainingReport], None],
    driver: Driver | None,
) -> tuple[str, ...]:
    """Train and write every member, one after the other; returns the graphs of all but the first."""
    graphs = (GRAPH, *(f"graph-{at}.onnx" for at in range(1, config.ensemble)))
    for at, graph in enumerate(graphs):
        one = config.model_copy(update={"seed": config.seed + at, "ensemble": 1})
        done = _span(progress, at / config.ensemble, (at + 1) / config.ensemble)
        if config.engine == "ray":
            from tidewheel.training.distributed import fit_distributed

            ranker, report = fit_distributed(rows, network, labels, one, teacher, done, checkpoints, driver)
        else:
            ranker, report = fit_here(rows, network, labels, one, done, checkpoints)
        export_graph(ranker, out / graph)
        if at == 0:
            save_ranker(ranker, out / WEIGHTS, out / NETWORK)
            tell(report)
    return graphs[1:]


@contextmanager
def _folder(scratch: Path | None) -> Iterator[Path]:
    """A folder for encoded rows, which goes when the work in it is done; what fails or dies leaves `scratch` to the next try.

    Another process that does the same work at the same time gets a folder of its own.
    """
    with ExitStack() as stack:
        beside = scratch.parent if scratch else None  # where workers on other machines look, too
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((scratch / "lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                scratch = None
        if scratch is None:
            yield Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidewheel-", dir=beside)))
        else:
            yield scratch
            shutil.rmtree(scratch, ignore_errors=True)


def fit_here(
    rows: EncodedRows,
    network: Network,
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    progress: Progress = silent,
    checkpoints: Store | None = None,
) -> tuple[Ranker, TrainingReport]:
    """Train in this process; equal arguments give equal weights. Leaves torch's global random state as it was."""
    loop.use_threads()
    saved = checkpoints_of(checkpoints, rows, network, config)
    with torch.random.fork_rng(devices=[]):
        ranker = new_ranker(rows.rates, network, config.seed, config.task_weighting).to(config.device)
        objective = objective_of(labels, config, config.device, ranker.log_variances)
        report = loop.fit(ranker, ShuffledRows(rows), config.optimizer, objective, config.seed, progress, saved)
    if saved is not None:
        saved.clear()
    return ranker.to("cpu"), report


def new_ranker(rates: Tensor, network: Network, seed: int, task_weighting: str = "fixed") -> Ranker:
    """A ranker with seeded parameters that predicts the weighted positive rates (T,); seeds torch's random state."""
    torch.manual_seed(seed)
    ranker = Ranker(network)
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


# What does not change the weights, or only their last bits: a checkpoint may be resumed on other machines.
NOT_WORK = {"engine", "num_workers", "device", "checkpoint_every_steps", "max_failures", "max_preemption_failures"}


def checkpoints_of(store: Store | None, rows: EncodedRows, network: Network, config: TrainConfig) -> Checkpoints | None:
    """Where this work's checkpoints are, or None without a store."""
    return None if store is None else Checkpoints(store, work_of(rows, network, config), config.checkpoint_every_steps)


def work_of(rows: EncodedRows, network: Network, config: TrainConfig) -> str:
    """Digest of what training depends on, every byte of the rows included: no checkpoint of other work is resumed."""
    made_of = [network, rows.manifest]
    return digest_of([*(part.model_dump(mode="json") for part in made_of), config.model_dump(mode="json", exclude=NOT_WORK)])


def _span(progress: Progress, start: float, end: float) -> Progress:
    """Progress of a part as progress of the whole."""
    return lambda share, words: progress(start + (end - start) * share, words)
