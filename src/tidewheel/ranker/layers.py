"""The blocks of the ranker. Legend: B rows, F_c categorical features, D embedding size, X width, E experts, T labels.

Each has its ONNX nodes in export_blocks.py and its cost in network.py.
"""

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
    """E multi-layer perceptrons side by side, on one input or each on its own; ReLU after each layer."""

    def __init__(self, width: int, hidden: tuple[int, ...], experts: int, dropout: float) -> None:
        super().__init__()
        widths = (width, *hidden)
        self.weights = nn.ParameterList(torch.randn(experts, a, b) * math.sqrt(2.0 / a) for a, b in itertools.pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(experts, 1, b) for b in hidden)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """x (B, X) for all, or (E, B, X) -> (E, B, H), H = hidden[-1]."""
        h = x if x.dim() == 3 else x.unsqueeze(0)
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


class ExtractionLevel(nn.Module):
    """One level of progressive layered extraction (PLE, Tang et al. 2020, eq. 1-5): shared experts and each label's own.

    The stream of label t mixes its own experts with the shared ones; the shared stream, which the last level lacks, mixes
    all. An expert reads the stream that it belongs to. One product serves all gates: what a stream may not see is masked.
    """

    owners: Tensor
    mask: Tensor

    def __init__(
        self, width: int, hidden: tuple[int, ...], shared: int, own: int, labels: int, is_last: bool, dropout: float
    ) -> None:
        super().__init__()
        owners = torch.tensor([t for t in range(labels) for _ in range(own)] + [labels] * shared)  # (E)
        self.streams = labels if is_last else labels + 1
        streams = torch.arange(self.streams).unsqueeze(1)
        is_seen = (owners == streams) | (owners == labels) | (streams == labels)  # (S, E)
        mask = torch.zeros(is_seen.shape).masked_fill(~is_seen, -math.inf).unsqueeze(1)
        self.register_buffer("owners", owners, persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.experts = Experts(width, hidden, len(owners), dropout)
        self.gates = nn.Parameter(torch.zeros(self.streams, width, len(owners)))

    def forward(self, z: Tensor) -> Tensor:
        """z (B, X), one input for all, or (T + 1, B, X), the labels' streams and the shared one -> (S, B, H)."""
        h = self.experts(z if z.dim() == 2 else z[self.owners])  # (E, B, H)
        mix = torch.softmax(torch.matmul(z if z.dim() == 2 else z[: self.streams], self.gates) + self.mask, dim=2)  # (S, B, E)
        return torch.matmul(mix.transpose(0, 1), h.transpose(0, 1)).transpose(0, 1)


class TaskHeads(nn.Module):
    """One linear head a label on the label's own stream: logit_t = <head_t, z_t> + b_t."""

    def __init__(self, hidden: int, labels: int) -> None:
        super().__init__()
        self.heads = nn.Parameter(torch.randn(labels, hidden) / math.sqrt(hidden))
        self.bias = nn.Parameter(torch.zeros(labels))

    def forward(self, z: Tensor) -> Tensor:
        """z (T, B, H) -> (B, T)."""
        return (z.transpose(0, 1) * self.heads).sum(dim=2) + self.bias


class ContextGate(nn.Module):
    """The context scales every other column by 0 to 2 (EPNet, PEPNet, Chang et al. 2023).

    o' = 2 sigmoid(relu([c, o] W_1 + b_1) W_2 + b_2) * o. The gate looks at o without changing it: no gradient flows back
    there, so that embeddings are learned from what is ranked alone. It starts at 1: the network as it is without context.
    """

    context: Tensor
    others: Tensor

    def __init__(self, width: int, context: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        others = [column for column in range(width) if column not in set(context)]
        self.register_buffer("context", torch.tensor(context, dtype=torch.int64), persistent=False)
        self.register_buffer("others", torch.tensor(others, dtype=torch.int64), persistent=False)
        self.down = nn.Parameter(torch.randn(width, hidden) * math.sqrt(2.0 / width))
        self.down_bias = nn.Parameter(torch.zeros(hidden))
        self.up = nn.Parameter(torch.zeros(hidden, len(others)))
        self.up_bias = nn.Parameter(torch.zeros(len(others)))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, X) -> (B, X): first the context's columns as they are, then the others, scaled."""
        c, o = x[:, self.context], x[:, self.others]
        h = torch.relu(torch.cat([c, o.detach()], dim=1) @ self.down + self.down_bias)
        return torch.cat([c, 2 * torch.sigmoid(h @ self.up + self.up_bias) * o], dim=1)
