"""The training loop. It knows no engine: alone or as one of several workers, it runs the same lines."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import OptimizerConfig
from tidewheel.errors import ConfigError
from tidewheel.ranker.loss import multi_task_loss
from tidewheel.training.checkpoint import Checkpoints
from tidewheel.training.loader import Rows, batches, num_batches
from tidewheel.training.optimizer import Optimizer

MAX_THREADS = 8  # more cores than this only wait for each other on networks of this size


@dataclass(frozen=True)
class Objective:
    """What training minimizes: `soft_weight` is the weight of the soft labels at a share of the steps."""

    task_weights: Tensor  # (T,)
    hard_weight: float
    soft_weight: Callable[[float], float | Tensor]  # one for all labels or (T,)
    log_variances: Tensor | None = None  # (T,) parameters of the model where the labels' weights are learned

    def loss(self, logits: Tensor, batch: Rows, share: float) -> Tensor:
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


@dataclass(frozen=True)
class Worker:
    """Which of the workers this is. Only rank 0 writes checkpoints."""

    rank: int = 0
    size: int = 1


def use_threads() -> None:
    """Let torch use half of the cores that this process may run on.

    Its threads spin while they wait for each other. Where something else runs on their cores a step then takes ten times
    as long (measured on two cores), and the second thread gains a third at best.
    """
    torch.set_num_threads(max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)) // 2)))


def fit(
    model: nn.Module,
    rows: Rows,
    config: OptimizerConfig,
    objective: Objective,
    seed: int,
    progress: Progress = silent,
    checkpoints: Checkpoints | None = None,
    worker: Worker = Worker(),
) -> float:
    """Train `model` in place; returns the mean loss of the last epoch's batches that this call ran.

    The result is a function of the model's parameters, the rows, the configuration and torch's random state alone, and
    with checkpoints it is the same however often training was stopped.

    Raises:
        ConfigError: the loss is no longer finite.
    """
    named = [(name.removeprefix("module."), value) for name, value in model.named_parameters()]
    plain: nn.Module = getattr(model, "module", model)  # what a data-parallel wrapper wraps
    scale = wide_scale(rows, objective.task_weights)
    optimizer = Optimizer(named, config, scale)
    steps_an_epoch = num_batches(len(rows), config.batch_size)
    total = steps_an_epoch * config.epochs
    done = checkpoints.resume(plain, optimizer) if checkpoints else 0
    losses: list[float] = []
    model.train()
    for epoch in range(done // steps_an_epoch, config.epochs):
        losses = []
        for batch in batches(rows, config.batch_size, seed, epoch, done - epoch * steps_an_epoch, worker.rank, worker.size):
            loss = objective.loss(model(batch.ids, batch.numbers), batch, done / total)
            loss.backward()  # type: ignore[no-untyped-call]
            if objective.log_variances is not None:  # the scale takes the learned weight out too, as it was in this gradient
                optimizer.wide_scale = scale * objective.log_variances.detach().exp()
            optimizer.step(schedule(done, total))
            losses.append(loss.item())
            done += 1
            if done % 10 == 0:
                progress(done / total, f"epoch {epoch + 1} of {config.epochs}, loss {losses[-1]:.4f}")
            if checkpoints and worker.rank == 0 and done % checkpoints.every_steps == 0 and done < total:
                checkpoints.save(plain, optimizer)
    model.eval()
    mean = sum(losses) / len(losses) if losses else 0.0
    if not math.isfinite(mean):
        raise ConfigError(f"training: the loss is {mean} after {done} steps; lower learning_rate ({config.learning_rate:g})")
    return mean


def schedule(step: int, total: int) -> float:
    """Share of the learning rate at a step: rises over the first 5% of steps, then falls in a line toward 0."""
    warm = max(1, total // 20)
    return min((step + 1) / warm, (total - step) / max(1, total - warm))


def wide_scale(rows: Rows, task_weights: Tensor) -> Tensor:
    """(T,) what the gradients of the ids' linear weights are multiplied by, a label.

    It takes the task weight out again, since these weights are shared with no other label, and measures residuals in
    deviations of a fair coin: single users and items differ more in a rare label's logit than in a common one's.
    """
    rates = ((rows.weights.unsqueeze(1) * rows.labels).sum(dim=0) / rows.weights.sum()).clamp(1e-3, 1 - 1e-3)
    return 0.5 / (task_weights * (rates * (1 - rates)).sqrt())
