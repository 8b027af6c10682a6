"""What a user did lately, as the candidate sees it.

Legend: B rows, L items of a sequence, D embedding size, H hidden units, S columns of all sequences together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tidewheel.ranker.encoding import SequenceColumns
from tidewheel.ranker.kernels import lookup


class TargetAttention(nn.Module):
    """The user's items, each weighed by what the candidate makes of it (DIN, Zhou et al. 2018, eq. 3).

    summary = sum_j (1 + a([e_j, e_c, e_j * e_c, age_j])) e_j, a one hidden layer; the weights are not normalized, so that many
    items that matter make a longer vector than one. It starts as the plain sum: DIN's a would start near 0, and with it, as
    embeddings start small, the gradient of everything here.

    In training a random window of the latest items is hidden from each row (TransAct, Xia et al. 2023, section 3.3): all
    that are younger than T hours, T uniform in [0, `time_mask_hours`]. So the model does not live on what the user did last,
    which the next request will be about too.
    """

    def __init__(self, dim: int, hidden: int, time_mask_hours: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * dim + 1, hidden) * math.sqrt(2.0 / (3 * dim + 1)))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Parameter(torch.zeros(hidden, 1))
        self.time_mask_hours = time_mask_hours

    def forward(self, items: Tensor, candidate: Tensor, ages: Tensor, is_there: Tensor) -> Tensor:
        """items (B, L, D), candidate (B, D), ages (B, L) as log(1 + hours), is_there (B, L) bool -> (B, D)."""
        if self.training and self.time_mask_hours:
            hidden_hours = self.time_mask_hours * torch.rand(len(ages), 1, device=ages.device)
            is_there = is_there & (torch.expm1(ages) >= hidden_hours)
        target = candidate.unsqueeze(1).expand_as(items)
        seen = torch.cat([items, target, items * target, ages.unsqueeze(2)], dim=2)  # (B, L, 3 D + 1)
        weights = 1 + torch.relu(seen @ self.weight + self.bias) @ self.out  # (B, L, 1)
        return (weights * is_there.unsqueeze(2) * items).sum(dim=1)


class SequenceEncoder(nn.Module):
    """One sequence of the network's input: its items have the embeddings of the feature that they are of."""

    def __init__(self, place: SequenceColumns, offset: int, dim: int, hidden: int, time_mask_hours: float) -> None:
        super().__init__()
        self.place, self.offset = place, offset
        self.attention = TargetAttention(dim, hidden, time_mask_hours)

    def forward(self, ids: Tensor, numbers: Tensor, table: Tensor) -> Tensor:
        """ids (B, F_c + S), numbers (B, F_n + S), table of all embeddings (-, D) -> (B, D)."""
        place = self.place
        items = ids[:, place.first_id : place.first_id + place.length]
        ages = numbers[:, place.first_number : place.first_number + place.length]
        embedded = lookup(items + self.offset, table)
        candidate = lookup(ids[:, place.of] + self.offset, table)
        summary: Tensor = self.attention(embedded, candidate, ages, items > 0)
        return summary
