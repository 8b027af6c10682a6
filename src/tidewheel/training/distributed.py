"""The same loop under Ray Train: data-parallel workers, on this machine or in a Ray cluster. The only `ray` import.

`fit_distributed` has a driver run in a process of its own, here or wherever a `Driver` puts it, since a driver dies with Ray's
head; the driver starts the workers. Rows, checkpoints and results pass through folders, which in a cluster must lie on storage
that all nodes mount.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field

from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.learning import TrainConfig
from tidewheel.contracts.progress import Progress
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.contracts.training import TrainingReport
from tidewheel.errors import KINDS, RetryableError, TidewheelError
from tidewheel.ranker.bundle import NETWORK, WEIGHTS, OpenBundle, open_bundle
from tidewheel.ranker.model import Network, Ranker, load_ranker, save_ranker
from tidewheel.store import Store
from tidewheel.store.settings import take_settings
from tidewheel.training import loop
from tidewheel.training.driver import Driver, Here
from tidewheel.training.loader import ShuffledRows, Worker
from tidewheel.training.memory import enough_memory
from tidewheel.training.rows import EncodedRows
from tidewheel.training.teaching import Teacher
from tidewheel.training.train import checkpoints_of, new_ranker, objective_of

SETTINGS, REPORT, FAILURE, PROGRESS = "settings.json", "report.json", "failure.json", "progress.json"
STARTS = "starts"  # of drivers, a byte each
# Less than one CPU a worker: with all CPUs taken, Ray's own tasks would wait for the workers that wait for them.
CPUS_A_WORKER = 0.5


class Settings(Contract):
    """What driver and workers are told. Paths hold on every node."""

    rows: str
    network: Network
    config: TrainConfig
    labels: tuple[LabelConfig, ...]
    teacher: str | None  # folder of its bundle, where it scores inline
    store: str | None
    cache: str


class Failure(Contract):
    """An error that trying again would only repeat."""

    schema_: Literal["tidewheel/failure/v1"] = Field(default="tidewheel/failure/v1", alias="schema")
    kind: str
    message: str


def fit_distributed(
    rows: EncodedRows,
    network: Network,
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    teacher: OpenBundle | None,
    progress: Progress,
    checkpoints: Store | None,
    driver: Driver | None = None,
) -> tuple[Ranker, TrainingReport]:
    """Train with `config.num_workers` workers, which share each batch; `fit_here` with the same arguments gives the same
    ranker up to rounding where there is no dropout.

    A worker that dies is replaced by Ray; a head or driver that dies is started again. All go on from the last checkpoint.
    A call that was killed may be made again with the same arguments: it takes what its driver made in the meantime.

    Args:
        driver: where the driver runs; None: beside this process.

    Raises:
        ConfigError: the loss is no longer finite.
        RetryableError: workers, head or driver died more often than `config.max_failures`.
    """
    driver = driver or Here(config.max_failures)
    settings = Settings(
        rows=str(rows.folder),
        network=network,
        config=config,
        labels=labels,
        teacher=str(teacher.folder) if teacher is not None and rows.teach is not None else None,
        store=None if checkpoints is None else checkpoints.url,
        cache=str(rows.folder / "cache"),
    )
    folder = rows.folder / f"workers-{digest_of([driver.owner, settings.model_dump(mode='json')])[:16]}"
    folder.mkdir(exist_ok=True)
    try:
        if not (folder / REPORT).exists():
            _drive(driver, folder, settings, progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # the next try begins with nothing but the checkpoints
        raise
    ranker = load_ranker(folder / WEIGHTS, folder / NETWORK).eval()
    report = TrainingReport.read(folder / REPORT)
    if (saved := checkpoints_of(checkpoints, rows, network, config)) is not None:
        saved.clear()
    return ranker, report


def _drive(driver: Driver, folder: Path, settings: Settings, progress: Progress) -> None:
    """Have the driver run until its result is in the folder."""
    settings.write(folder / SETTINGS)
    progress(0.0, f"{settings.config.num_workers} workers")

    def tell(words: str) -> None:
        if words:
            progress(0.0, words)
        else:
            _pass_on(folder / PROGRESS, progress)

    died = driver.run(folder, lambda: (folder / REPORT).exists() or (folder / FAILURE).exists(), tell)
    if (folder / REPORT).exists():  # it comes last
        return
    if (folder / FAILURE).exists():
        failure = Failure.read(folder / FAILURE)
        raise KINDS.get(failure.kind, TidewheelError)(failure.message)
    raise RetryableError(f"train: Ray's driver died ({died or 'it left no result'}); run again")


def _pass_on(path: Path, progress: Progress) -> None:
    if path.exists():
        share, words = json.loads(path.read_text(encoding="utf-8"))
        progress(share, words)


def drive(folder: Path, one_a_node: bool = False) -> None:
    """The driver: start Ray, or join the cluster that `RAY_ADDRESS` names, and train.

    Workers that failed more often than they are restarted leave a failure in the folder; any other error is Ray's end, and this
    process's: whoever started it starts it again.

    Args:
        one_a_node: no two workers on a node of Ray.
    """
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import FailureConfig  # what ray.train gives at run time, and type checkers do not see
    from ray.train.v2.api.exceptions import PreemptionError, WorkerGroupError

    config = Settings.read(folder / SETTINGS).config
    if not _may_start(folder, config):
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # a busy machine needs more than the usual 30
    ray.init(include_dashboard=False, log_to_driver=False)
    is_gpu = config.device.startswith("cuda")
    trainer = TorchTrainer(
        work,
        train_loop_config={"folder": str(folder)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=is_gpu,
            resources_per_worker={"CPU": CPUS_A_WORKER} | ({"GPU": 1} if is_gpu else {}),
            placement_strategy="STRICT_SPREAD" if one_a_node else "PACK",
        ),
        run_config=ray.train.RunConfig(
            storage_path=str(folder / "ray"),
            name="train",
            failure_config=FailureConfig(
                max_failures=config.max_failures, max_preemption_failures=config.max_preemption_failures
            ),
        ),
    )
    try:
        trainer.fit()
    except (WorkerGroupError, PreemptionError) as error:
        limit = "max_preemption_failures" if _is_preemption(error) else "max_failures"
        said = " ".join(str(error).split())[:500]
        _fail(folder, RetryableError(f"train: workers were lost more often than {limit} {getattr(config, limit)} ({said})"))


def _may_start(folder: Path, config: TrainConfig) -> bool:
    """Whether another driver may start; else the folder has a failure that says so.

    A driver that dies is counted by whoever starts it again; one whose head was taken away is started by nobody who counts.
    """
    with (folder / STARTS).open("ab") as stream:
        stream.write(b".")
    starts, allowed = (folder / STARTS).stat().st_size, 1 + config.max_failures + config.max_preemption_failures
    if starts == 1:
        (folder / FAILURE).unlink(missing_ok=True)  # of a driver that outlived the step that asked for it
    if starts > allowed:
        words = "max_failures and max_preemption_failures together allow"
        _fail(folder, RetryableError(f"train: Ray's head or driver was lost {starts - 1} times, more often than {words}"))
    return starts <= allowed


def _is_preemption(error: Exception) -> bool:
    """Whether a worker's node was taken away, announced or not: what Ray Train counts apart."""
    from ray.train.v2.api.exceptions import PreemptionError, WorkerGroupError

    if not isinstance(error, WorkerGroupError):
        return isinstance(error, PreemptionError)
    causes = (getattr(cause, "health_check_failure", cause) for cause in error.worker_failures.values())
    return any(getattr(cause, "preempted", False) for cause in causes)


def work(told: dict[str, str]) -> None:
    """What each worker runs. Rank 0 writes the checkpoints and the weights.

    An error that would only come again is left in the folder; raised here it would have Ray start the workers again.
    """
    import ray.train
    import torch
    from ray.train.torch import prepare_model

    folder = Path(told["folder"])
    if (folder / FAILURE).exists():
        return
    take_settings(os.environ)  # of the worker's own pod: what opens the store passes through nobody's hands
    settings, context = Settings.read(folder / SETTINGS), ray.train.get_context()
    config = settings.config
    rows = _rows(settings)
    store = None if settings.store is None else Store.open(settings.store, Path(settings.cache))
    saved = checkpoints_of(store, rows, settings.network, config)
    loop.use_threads()
    ranker = new_ranker(rows.rates, settings.network, config.seed, config.task_weighting)
    model = prepare_model(ranker)
    device = str(next(model.parameters()).device)
    worker = Worker(context.get_world_rank(), context.get_world_size())

    def tell(share: float, words: str) -> None:
        if worker.rank == 0:
            partial = folder / f"{PROGRESS}.partial"
            partial.write_text(json.dumps([share, words]), encoding="utf-8")
            partial.replace(folder / PROGRESS)

    try:
        objective = objective_of(settings.labels, config, device, ranker.log_variances)
        with enough_memory("train", config.optimizer.batch_size):
            report = loop.fit(model, ShuffledRows(rows), config.optimizer, objective, config.seed, tell, saved, worker)
    except TidewheelError as error:
        if error.is_retryable:
            raise
        _fail(folder, error)
        return
    if worker.rank == 0:
        if saved is not None:
            saved.settle()
        save_ranker(ranker.cpu(), folder / WEIGHTS, folder / NETWORK)
        report.write(folder / REPORT)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _rows(settings: Settings) -> EncodedRows:
    if settings.teacher is None:
        return EncodedRows.open(Path(settings.rows))
    names = tuple(label.name for label in settings.labels)
    teacher = Teacher.of_bundle(open_bundle(Path(settings.teacher)), names, is_inline=True)
    return EncodedRows.open(Path(settings.rows), teacher.score)


def _fail(folder: Path, error: TidewheelError) -> None:
    Failure(kind=type(error).__name__, message=str(error)).write(folder / FAILURE)
