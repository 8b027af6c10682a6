"""Steps of the network whose plain torch takes longer than their arithmetic (bench/train_steps.py); exact, not approximate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def lookup(rows: Tensor, table: Tensor) -> Tensor:
    """table (N, D), rows integers below N of any shape -> that shape and D."""
    if table.is_cuda:
        return nn.functional.embedding(rows, table)
    return _Lookup.apply(rows, table)  # type: ignore[no-untyped-call]


class _Lookup(torch.autograd.Function):
    """On a CPU torch sorts the rows before it sums their gradients; adding them one by one takes a third of the time."""

    @staticmethod
    def forward(context: Any, rows: Tensor, table: Tensor) -> Tensor:
        context.save_for_backward(rows)
        context.size = table.shape
        return nn.functional.embedding(rows, table)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (rows,) = context.saved_tensors
        summed = gradients[0].new_zeros(context.size)
        return None, summed.index_add_(0, rows.flatten(), gradients[0].reshape(-1, context.size[1]))


def relu_dropout(h: Tensor, rate: float, is_training: bool) -> Tensor:
    """Dropout of relu(h), any shape; `rate` in 256ths, so that one random byte decides for an element.

    Survivors are scaled by 1 / (1 - rate), as in torch (Srivastava et al. 2014, with the scale at training).
    """
    dropped = round(rate * 256) if is_training else 0
    if not dropped:
        return torch.relu(h)
    return _ReluDropout.apply(h, dropped)  # type: ignore[no-untyped-call]


class _ReluDropout(torch.autograd.Function):
    """What was dropped or negative is 0 in the output, which is all that the gradient needs to know."""

    @staticmethod
    def forward(context: Any, h: Tensor, dropped: int) -> Tensor:
        words = torch.empty(-(-h.numel() // 8), dtype=torch.int64, device=h.device).random_(-(1 << 63), None)
        is_kept = words.view(torch.uint8)[: h.numel()].view(h.shape) >= dropped
        context.scale = 256 / (256 - dropped)
        out = torch.relu(h).mul_(is_kept).mul_(context.scale)
        context.save_for_backward(out)
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (out,) = context.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], out, 0).mul_(context.scale), None
