"""The multi-task ranker, and the student, which is the same network with smaller numbers.

Legend: B rows, F_c categorical and F_n numeric columns, D embedding size, X = F_c * D + F_n, E experts, T labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tidewheel.contracts.base import Contract
from tidewheel.contracts.recipe import NetworkConfig
from tidewheel.errors import ContractError
from tidewheel.ranker.encoding import Encoders
from tidewheel.ranker.layers import Embeddings, Experts, GatedHeads, LowRankCross


class Network(Contract):
    """All that is needed to rebuild the network around its weights."""

    schema_: Literal["tidewheel/network/v1"] = Field(default="tidewheel/network/v1", alias="schema")
    config: NetworkConfig
    sizes: tuple[int, ...]  # (F_c) ids of each categorical feature
    num_numbers: int = Field(ge=0)  # F_n
    labels: tuple[str, ...] = Field(min_length=1)

    @classmethod
    def of(cls, config: NetworkConfig, encoders: Encoders, labels: tuple[str, ...]) -> Network:
        return cls(config=config, sizes=encoders.sizes, num_numbers=encoders.num_numbers, labels=labels)


class Ranker(nn.Module):
    """Embeddings and numbers -> cross layers -> experts -> a gate and a head a label, plus a linear path around it all."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        config = network.config
        width = len(network.sizes) * config.embedding_dim + network.num_numbers
        labels = len(network.labels)
        self.network = network
        self.embeddings = Embeddings(network.sizes, config.embedding_dim)
        self.crosses = nn.ModuleList(LowRankCross(width, config.cross_rank) for _ in range(config.cross_layers))
        self.experts = Experts(width, config.hidden, config.experts, config.dropout)
        self.heads = GatedHeads(width, config.hidden[-1] if config.hidden else width, config.experts, labels)
        self.wide = nn.Parameter(torch.zeros(width, labels))
        self.wide_table = nn.Parameter(torch.zeros(self.embeddings.table.shape[0], labels))

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        """ids (B, F_c) int64, numbers (B, F_n) float32 -> logits (B, T) float32."""
        rows = ids + self.embeddings.offsets
        x0 = torch.cat([self.embeddings(rows), numbers], dim=1)  # (B, X)
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        deep = self.heads(x, self.experts(x))
        return deep + x0 @ self.wide + nn.functional.embedding(rows, self.wide_table).sum(dim=1)

    @torch.no_grad()
    def start_at(self, rates: Tensor) -> None:
        """Set the heads' bias so that an untrained network predicts each label's weighted positive rate, (T,) in (0, 1)."""
        self.heads.bias.copy_(torch.logit(rates.clamp(1e-4, 1 - 1e-4)))


def save_ranker(ranker: Ranker, weights: Path, network: Path) -> None:
    """Write weights (safetensors) and network (JSON)."""
    from safetensors.torch import save_file

    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in ranker.state_dict().items()}, str(weights))
    ranker.network.write(network)


def load_ranker(weights: Path, network: Path) -> Ranker:
    """Rebuild a ranker from its two files.

    Raises:
        ContractError: a file is missing or damaged, or the weights are those of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    ranker = Ranker(Network.read(network))
    try:
        ranker.load_state_dict(load_file(str(weights)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ContractError(f"{weights}: does not fit {network.name} ({str(error).splitlines()[0]})") from error
    return ranker
