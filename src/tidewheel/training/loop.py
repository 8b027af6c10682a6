"""The training loop. It knows no engine: alone or as one of several workers, it runs the same lines."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, nn

from tidewheel.contracts.learning import OptimizerConfig
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.training import TrainingReport
from tidewheel.errors import ConfigError
from tidewheel.ranker.loss import multi_task_loss
from tidewheel.training.checkpoint import Checkpoints
from tidewheel.training.loader import ALONE, RowSource, Worker, num_batches
from tidewheel.training.optimizer import Optimizer
from tidewheel.training.rows import Batch
from tidewheel.training.watchdog import Watchdog

MAX_THREADS = 8  # more cores than this only wait for each other on networks of this size
LOOK_EVERY = 10  # steps between two looks at the losses: on a GPU each look waits for it
STALL_FACTOR = 20.0


@dataclass(frozen=True)
class Objective:
    """What training minimizes: `soft_weight` is the weight of the soft labels at a share of the steps."""

    task_weights: Tensor  # (T,)
    hard_weight: float
    soft_weight: Callable[[float], float | Tensor]  # one for all labels or (T,)
    log_variances: Tensor | None = None  # (T,) parameters of the model where the labels' weights are learned

    def loss(self, logits: Tensor, batch: Batch, share: float) -> Tensor:
        """logits (B, T) of a batch at a share of the steps -> scalar."""
        return multi_task_loss(
            logits,
            batch.labels,
            batch.weights,
            self.task_weights,
            batch.soft_labels,
            self.hard_weight,
            self.soft_weight(share),
            self.log_variances,
        )


def use_threads() -> None:
    """Let torch use half of the cores that this process may run on, or as many as `OMP_NUM_THREADS` says.

    Its threads spin while they wait for each other. Where something else runs on their cores a step then takes ten times
    as long (measured on two cores), and the second thread gains a third at best.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)) // 2)))


def check_device(device: str) -> None:
    """Raises: ConfigError: torch cannot use it on this machine."""
    number = int(device.partition(":")[2] or 0)
    if device.startswith("cuda") and number >= torch.cuda.device_count():
        has = f"this machine has {torch.cuda.device_count()} GPUs that torch can use"
        raise ConfigError(f"train.device is {device}, and {has}; set it to cpu, or run where there is one")


def fit(
    model: nn.Module,
    rows: RowSource,
    config: OptimizerConfig,
    objective: Objective,
    seed: int,
    progress: Progress = silent,
    checkpoints: Checkpoints | None = None,
    worker: Worker = ALONE,
    max_steps: int | None = None,
) -> TrainingReport:
    """Train `model` in place, on the device where it is.

    The result is a function of the model's parameters, the rows, the configuration and the seed alone: with checkpoints it
    is the same however often training was stopped.

    Args:
        worker: only rank 0 writes checkpoints; all resume from them.
        max_steps: stop after so many steps of this call, for measuring.

    Raises:
        ConfigError: the loss is no longer finite; the last checkpoint, written while it was, stays.
    """
    named = {name.removeprefix("module."): value for name, value in model.named_parameters()}
    device = str(next(iter(named.values())).device)
    scale = wide_scale(rows.rates.to(device), objective.task_weights)
    optimizer = Optimizer(named.items(), config, scale)
    total = num_batches(len(rows), config.batch_size) * config.epochs
    resumed = checkpoints.resume(named, optimizer) if checkpoints else 0
    last = total if max_steps is None else min(total, resumed + max_steps)
    losses, watchdog = _Losses(config, checkpoints), Watchdog(STALL_FACTOR, first_step=resumed + 1)
    feed = _batches(rows, config, seed, resumed, worker, device)
    precision = torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=config.precision == "bfloat16")
    seen, began = 0, time.monotonic()
    model.train()
    with closing(feed), watchdog.watching():
        for step in range(resumed + 1, last + 1):
            share = (step - 1) / total
            with watchdog.step():
                with watchdog.waiting():
                    batch = next(feed)
                torch.manual_seed(step_seed(seed, step, worker.rank))  # dropout: a resumed step draws what it drew before
                with precision:
                    logits = model(batch.ids, batch.numbers)
                loss = objective.loss(logits.float(), batch, share)
                loss.backward()  # type: ignore[no-untyped-call]
                if objective.log_variances is not None:  # the scale takes the learned weight out too, as in this gradient
                    optimizer.wide_scale = scale * objective.log_variances.detach().exp()
                optimizer.step(schedule(step - 1, total))
            losses.add(loss)
            seen += len(batch)
            is_saved = checkpoints and worker.rank == 0 and step % checkpoints.every_steps == 0 and step < total
            if step % LOOK_EVERY == 0 or step == last or is_saved:
                losses.look(step)
                progress(step / total, f"step {step} of {total}, loss {losses.last:.4f}")
            if checkpoints and is_saved and _is_finite(named):  # if not, the next look at the losses says so
                checkpoints.save(named, optimizer)
    if not _is_finite(named):
        losses.refuse(last, math.nan)
    model.eval()
    notes = tuple(checkpoints.notes) if checkpoints else ()
    return _report(watchdog, seen, time.monotonic() - began, last - resumed, resumed, losses.mean, notes)


def _report(
    watchdog: Watchdog, rows: int, seconds: float, steps: int, resumed: int, loss: float, notes: tuple[str, ...]
) -> TrainingReport:
    return TrainingReport(
        rows=rows,
        steps=steps,
        resumed_at=resumed,
        loss=loss,
        seconds=seconds,
        rows_per_second=rows / seconds if seconds else 0.0,
        data_wait_share=min(1.0, watchdog.waited_seconds / seconds) if seconds else 0.0,
        median_step_seconds=watchdog.median_seconds,
        stalls=tuple(watchdog.stalls),
        notes=notes,
    )


def _is_finite(named: Mapping[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(value.sum())) for value in named.values())


def _batches(
    rows: RowSource, config: OptimizerConfig, seed: int, done: int, worker: Worker, device: str
) -> Generator[Batch, None, None]:
    """The batches of all epochs after the first `done`."""
    an_epoch = num_batches(len(rows), config.batch_size)
    for epoch in range(done // an_epoch, config.epochs):
        skip = done - epoch * an_epoch if epoch == done // an_epoch else 0
        yield from rows.batches(config.batch_size, seed, epoch, skip, worker, device)


class _Losses:
    """The losses of the latest steps, looked at a few at a time; `mean` is that of all, fading."""

    def __init__(self, config: OptimizerConfig, checkpoints: Checkpoints | None) -> None:
        self.config, self.checkpoints = config, checkpoints
        self.last = self.mean = 0.0
        self._new: list[Tensor] = []
        self._looked = 0

    def add(self, loss: Tensor) -> None:
        self._new.append(loss.detach())

    def look(self, step: int) -> None:
        """Take in the losses since the last look, up to that of `step`.

        Raises:
            ConfigError: one is not finite.
        """
        if not self._new:
            return
        values = torch.stack(self._new).tolist()
        self._new.clear()
        for at, value in enumerate(values, start=step - len(values) + 1):
            if not math.isfinite(value):
                self.refuse(at, value)
            self.last = value
        fresh = sum(values) / len(values)
        self.mean = 0.9 * self.mean + 0.1 * fresh if self._looked else fresh
        self._looked += 1

    def refuse(self, step: int, value: float) -> NoReturn:
        kept = ""
        if self.checkpoints is not None:
            self.checkpoints.settle()
            if newest := self.checkpoints.newest_step():
                kept = f"; the checkpoint of step {newest} is kept"
        raise ConfigError(
            f"training: the loss is {value} at step {step}, after {self.last:.4f}{kept}; "
            f"lower learning_rate ({self.config.learning_rate:g})"
        )


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of the random numbers of one step of one worker, below 2^63."""
    return ((seed * 1_000_003 + step) * 1_009 + rank) % (1 << 63)


def schedule(step: int, total: int) -> float:
    """Share of the learning rate at a step: rises over the first 5% of steps, then falls in a line toward 0."""
    warm = max(1, total // 20)
    return min((step + 1) / warm, (total - step) / max(1, total - warm))


def wide_scale(rates: Tensor, task_weights: Tensor) -> Tensor:
    """(T,) what the gradients of the ids' linear weights are multiplied by, a label: (4 r (1 - r))^-1.5 / task weight.

    It takes the task weight out again, since these weights are shared with no other label. A residual of a rare label says
    more: 1 / (r (1 - r)) of it is Newton's step on the logit, and the rest is that single users differ more in the logit
    of a rare label than of a common one (measured: docs/evidence/model-plane.md).

    Args:
        rates: (T,) weighted share of positives.
    """
    rates = rates.clamp(1e-3, 1 - 1e-3)
    return (4 * rates * (1 - rates)) ** -1.5 / task_weights
