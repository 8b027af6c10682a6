"""AdamW for the network and its embeddings, Adagrad for the linear weights of single ids.

torch.optim imports a whole compiler (3.6 s on two cores); its fused kernels are here without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tidewheel.contracts.learning import OptimizerConfig

BETAS = (0.9, 0.999)
EPSILON = 1e-8
EMBEDDINGS, WIDE_TABLE = "embeddings.table", "wide_table"


class Optimizer:
    """Updates named parameters in place. All of its state is in `state()` and `steps`.

    AdamW: Loshchilov and Hutter 2019, algorithm 2. Adam divides by the size of a row's few gradients, so that an id's only
    impression moves it as far as a hundred would, and a negative as far as a rare positive; in the linear weights, where
    that decides, the step is Adagrad's (Duchi et al. 2011, fig. 1) on gradients summed over rows, with an accumulator
    that starts at `wide_memory` M and a rate of wide_rate * sqrt(M): ids that are new move by wide_rate * residual, ids
    that have seen squared residuals of M or more ever less.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, wide_scale: Tensor) -> None:
        self.config = config
        self.wide_scale = wide_scale
        self.parameters = dict(parameters)
        self.first = {name: torch.zeros_like(value) for name, value in self.parameters.items() if name != WIDE_TABLE}
        self.second = {
            name: torch.full_like(value, config.wide_memory if name == WIDE_TABLE else 0.0)
            for name, value in self.parameters.items()
        }
        self.steps = 0

    @torch.no_grad()
    def step(self, share: float) -> None:
        """One update at `share` of the learning rates, from the gradients, which are dropped afterwards."""
        self.steps += 1
        config, rate = self.config, share * self.config.learning_rate
        given = {name for name, value in self.parameters.items() if value.grad is not None}
        self._adamw(sorted(given - {EMBEDDINGS, WIDE_TABLE}), rate, config.weight_decay)
        self._adamw(sorted(given & {EMBEDDINGS}), rate * config.embedding_learning_ratio, config.embedding_weight_decay)
        if WIDE_TABLE in given:
            self._adagrad(WIDE_TABLE, share * config.wide_rate * config.wide_memory**0.5)
        for value in self.parameters.values():
            value.grad = None

    def _adamw(self, names: list[str], rate: float, decay: float) -> None:
        if not names:
            return
        values = [self.parameters[name] for name in names]
        torch._fused_adamw_(
            list[Tensor](values),
            [value.grad for value in values if value.grad is not None],
            [self.first[name] for name in names],
            [self.second[name] for name in names],
            [],
            [torch.tensor(float(self.steps), device=value.device) for value in values],
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def _adagrad(self, name: str, rate: float) -> None:
        value, squares = self.parameters[name], self.second[name]
        assert value.grad is not None
        summed = value.grad.mul_(self.config.batch_size * self.wide_scale)
        torch._fused_adagrad_(
            [value],
            [summed],
            [squares],
            [torch.tensor(float(self.steps), device=value.device)],
            lr=rate,
            lr_decay=0.0,
            weight_decay=0.0,
            eps=0.0,
            maximize=False,
        )

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
