"""The blocks of the ranker. Legend: B rows, F_c categorical features, D embedding size, X width, E experts, T labels."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn


class Embeddings(nn.Module):
    """One table for all categorical features: feature f owns the rows [offset_f, offset_f + size_f).

    One lookup of one table is faster than F_c lookups, and one gradient to update.
    """

    offsets: Tensor

    def __init__(self, sizes: tuple[int, ...], dim: int) -> None:
        super().__init__()
        offsets = [sum(sizes[:at]) for at in range(len(sizes))]
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int64), persistent=False)
        # Small: an id that training hardly met says next to nothing.
        self.table = nn.Parameter(torch.randn(max(sum(sizes), 1), dim) * 0.01)

    def forward(self, rows: Tensor) -> Tensor:
        """rows (B, F_c), which are ids + offsets -> (B, F_c * D)."""
        return nn.functional.embedding(rows, self.table).flatten(1)


class LowRankCross(nn.Module):
    """x' = x0 * (U (V x) + b) + x: every pair of features multiplied, at rank R (DCN V2, Wang et al. 2021, eq. 2)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        rank = min(rank, width)
        self.down = nn.Parameter(torch.randn(width, rank) / math.sqrt(width))  # V
        self.up = nn.Parameter(torch.randn(rank, width) / math.sqrt(rank) * 0.1)  # U
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """x0, x (B, X) -> (B, X)."""
        return x0 * (x @ self.down @ self.up + self.bias) + x


class Experts(nn.Module):
    """E multi-layer perceptrons side by side on one input; ReLU after each layer."""

    def __init__(self, width: int, hidden: tuple[int, ...], experts: int, dropout: float) -> None:
        super().__init__()
        widths = (width, *hidden)
        self.weights = nn.ParameterList(torch.randn(experts, a, b) * math.sqrt(2.0 / a) for a, b in itertools.pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(experts, 1, b) for b in hidden)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """x (B, X) -> (E, B, H), H = hidden[-1]."""
        h = x.unsqueeze(0)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = torch.relu(torch.matmul(h, weight) + bias)
            h = nn.functional.dropout(h, self.dropout, self.training)
        return h


class GatedHeads(nn.Module):
    """A gate a label mixes the experts (MMoE, Ma et al. 2018, eq. 6-7), then one linear head a label.

    logit_t = <head_t, sum_e softmax(G_t x)_e h_e> + b_t
    """

    def __init__(self, width: int, hidden: int, experts: int, labels: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(width, labels * experts))
        self.heads = nn.Parameter(torch.randn(labels, hidden) / math.sqrt(hidden))
        self.bias = nn.Parameter(torch.zeros(labels))
        self.experts, self.labels = experts, labels

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """x (B, X), h (E, B, H) -> (B, T)."""
        mix = torch.softmax((x @ self.gates).view(-1, self.labels, self.experts), dim=2)  # (B, T, E)
        mixed = torch.matmul(mix, h.transpose(0, 1))  # (B, T, H)
        return (mixed * self.heads).sum(dim=2) + self.bias
