"""The same loop under Ray Train: data-parallel workers, on this machine or in a Ray cluster. The only `ray` import.

Every worker reads the encoded rows from one folder, which in a cluster must lie on storage that all nodes mount.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, prepare_model
from safetensors.torch import load_file, save_file

from tidewheel.contracts.progress import Progress
from tidewheel.contracts.recipe import LabelConfig, TrainConfig
from tidewheel.errors import RetryableError
from tidewheel.ranker.bundle import NETWORK, WEIGHTS
from tidewheel.ranker.model import Network, Ranker, load_ranker, save_ranker
from tidewheel.training import loop
from tidewheel.training.checkpoint import Checkpoints
from tidewheel.training.loader import Rows
from tidewheel.training.train import new_ranker, objective_of, work_of

ROWS = "rows.safetensors"
# Less than one CPU a worker: with all CPUs taken, Ray's own tasks would wait for the workers that wait for them.
CPUS_A_WORKER = 0.5
MAX_FAILURES = 2  # restarts of the worker group; each goes on from the last checkpoint


def _start() -> None:
    """Start Ray on this machine; a busy one may let its server miss its time, so three tries.

    Raises:
        RetryableError: it did not start.
    """
    for tries_left in (2, 1, 0):
        try:
            ray.init(include_dashboard=False, log_to_driver=False)
            return
        except RuntimeError as error:
            ray.shutdown()
            if not tries_left:
                raise RetryableError(
                    f"train: Ray did not start ({error}); try again, or set train.engine=in_process"
                ) from error


def fit_distributed(
    rows: Rows,
    network: Network,
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    out: Path,
    progress: Progress,
    checkpoints: Path | None,
) -> Ranker:
    """Train with `config.num_workers` workers, which share each batch; `fit_here` with the same arguments gives the same
    ranker up to rounding where there is no dropout.

    Raises:
        RetryableError: Ray did not start, or the workers failed more often than they are restarted.
    """
    shared = out.parent if checkpoints is None else checkpoints.parent
    shared.mkdir(parents=True, exist_ok=True)
    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # a busy machine needs more than the usual 30
        _start()
    try:
        with tempfile.TemporaryDirectory(prefix="workers-", dir=shared) as folder:
            scratch = Path(folder)
            _write_rows(rows, scratch / ROWS)
            settings = {
                "scratch": folder,
                "network": network.to_json(),
                "config": config.to_json(),
                "labels": [label.to_json() for label in labels],
                "checkpoints": None if checkpoints is None else str(checkpoints),
                "work": work_of(rows, network, config),
            }
            progress(0.0, f"{config.num_workers} workers")
            _run_workers(settings, config, scratch)
            ranker = load_ranker(scratch / WEIGHTS, scratch / NETWORK).eval()
    finally:
        if started:
            ray.shutdown()
    if checkpoints is not None:
        Checkpoints(checkpoints, config.checkpoint_every_steps, "").clear()
    progress(1.0, "workers done")
    return ranker


def _run_workers(settings: dict[str, Any], config: TrainConfig, scratch: Path) -> None:
    is_gpu = config.device.startswith("cuda")
    trainer = TorchTrainer(
        _worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=is_gpu,
            resources_per_worker={"CPU": CPUS_A_WORKER} | ({"GPU": 1} if is_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            storage_path=str(scratch / "ray"), name="train", failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES)
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray's errors have no common base; all mean that the workers gave up
        raise RetryableError(f"ray: the workers failed ({str(error).strip().splitlines()[-1]}); run again") from error


def _worker(settings: dict[str, Any]) -> None:
    """What each worker runs. Rank 0 writes the checkpoints and the weights."""
    context = ray.train.get_context()
    config = TrainConfig.parse(settings["config"], "train")
    labels = tuple(LabelConfig.parse(text, "label") for text in settings["labels"])
    scratch = Path(settings["scratch"])
    rows = _read_rows(scratch / ROWS)
    saved = None
    if settings["checkpoints"] is not None:
        saved = Checkpoints(Path(settings["checkpoints"]), config.checkpoint_every_steps, settings["work"])
    ranker = new_ranker(rows, Network.parse(settings["network"], "network"), config.seed, config.task_weighting)
    torch.manual_seed(config.seed + context.get_world_rank())  # dropout differs between workers
    model = prepare_model(ranker)
    device = next(model.parameters()).device
    objective = objective_of(labels, config, str(device), ranker.log_variances)
    worker = loop.Worker(context.get_world_rank(), context.get_world_size())
    loop.fit(model, rows.to(str(device)), config.optimizer, objective, config.seed, checkpoints=saved, worker=worker)
    if worker.rank == 0:
        save_ranker(ranker, scratch / WEIGHTS, scratch / NETWORK)


def _write_rows(rows: Rows, path: Path) -> None:
    tensors = {"ids": rows.ids, "numbers": rows.numbers, "labels": rows.labels, "weights": rows.weights}
    if rows.soft_labels is not None:
        tensors["soft_labels"] = rows.soft_labels
    save_file({name: value.contiguous() for name, value in tensors.items()}, str(path))


def _read_rows(path: Path) -> Rows:
    tensors = load_file(str(path))
    return Rows(tensors["ids"], tensors["numbers"], tensors["labels"], tensors["weights"], tensors.get("soft_labels"))
