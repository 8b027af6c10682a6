"""AdamW for the network and its embeddings, Adagrad for the linear weights of single ids.

torch.optim imports a whole compiler (3.6 s on two cores) for the same few lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tidewheel.contracts.recipe import OptimizerConfig

BETAS = (0.9, 0.999)
EPSILON = 1e-8
EMBEDDINGS, WIDE_TABLE = "embeddings.table", "wide_table"


class Optimizer:
    """Updates named parameters in place. All of its state is in `state()` and `steps`.

    AdamW: Loshchilov and Hutter 2019, algorithm 2. Adam divides by the size of a row's few gradients, so that an id's only
    impression moves it as far as a hundred would, and a negative as far as a rare positive; in the linear weights, where
    that decides, the step is Adagrad's (Duchi et al. 2011, fig. 1) on gradients summed over rows, with an accumulator
    that starts at 1: rare ids move by rate * residual, frequent ones ever less.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, wide_scale: Tensor) -> None:
        self.config = config
        self.wide_scale = wide_scale
        self.parameters = dict(parameters)
        self.first = {name: torch.zeros_like(value) for name, value in self.parameters.items() if name != WIDE_TABLE}
        self.second = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, share: float) -> None:
        """One update at `share` of the learning rates, from the gradients, which are dropped afterwards."""
        self.steps += 1
        for name, value in self.parameters.items():
            if value.grad is None:
                continue
            if name == WIDE_TABLE:
                self._adagrad(value, value.grad, self.second[name], share * self.config.wide_rate)
            elif name == EMBEDDINGS:
                rate = share * self.config.learning_rate * self.config.embedding_learning_ratio
                self._adamw(name, value, value.grad, rate, self.config.embedding_weight_decay)
            else:
                self._adamw(name, value, value.grad, share * self.config.learning_rate, self.config.weight_decay)
            value.grad = None

    def _adamw(self, name: str, value: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        first, second = self.first[name], self.second[name]
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        if decay:
            value.mul_(1 - rate * decay)
        correction = math.sqrt(1 - BETAS[1] ** self.steps)
        value.addcdiv_(first, second.sqrt().div_(correction).add_(EPSILON), value=-rate / (1 - BETAS[0] ** self.steps))

    def _adagrad(self, value: Tensor, gradient: Tensor, squares: Tensor, rate: float) -> None:
        summed = gradient * (self.config.batch_size * self.wide_scale)
        squares.addcmul_(summed, summed)
        value.addcdiv_(summed, (1 + squares).sqrt_(), value=-rate)

    def state(self) -> dict[str, Tensor]:
        """The moments of every parameter; `steps` is kept by the caller."""
        return {f"first.{n}": t for n, t in self.first.items()} | {f"second.{n}": t for n, t in self.second.items()}

    def restore(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Take up `state()` of the same parameters after `steps` steps."""
        for name, moment in self.first.items():
            moment.copy_(state[f"first.{name}"])
        for name, moment in self.second.items():
            moment.copy_(state[f"second.{name}"])
        self.steps = steps
