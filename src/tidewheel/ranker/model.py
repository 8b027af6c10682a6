"""The multi-task ranker, and the student, which is the same network with smaller numbers. docs/model.md draws it.

Legend: B rows, F_c categorical and F_n numeric columns, S columns of the items of Q sequences, D embedding size,
X = F_c * D + F_n + Q * D, E experts, T labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from tidewheel.errors import ContractError
from tidewheel.ranker.kernels import lookup
from tidewheel.ranker.layers import ContextGate, Embeddings, Experts, ExtractionLevel, GatedHeads, LowRankCross, TaskHeads
from tidewheel.ranker.loss import best_log_variances
from tidewheel.ranker.network import Network
from tidewheel.ranker.sequence import SequenceEncoder

__all__ = ["Network", "Ranker", "load_ranker", "save_ranker"]

LOG_VARIANCES = "log_variances"


class Ranker(nn.Module):
    """Embeddings, numbers and sequences -> cross layers -> experts -> a head a label, plus a linear path around it all.

    `log_variances` (T,) is there only while the labels' weights are learned (tidewheel.ranker.loss). Training updates and
    checkpoints it like the rest; it is never saved with the network, which does not read it.
    """

    context: ContextGate | None
    experts: Experts | nn.Sequential
    heads: GatedHeads | TaskHeads
    cross_heads: nn.Parameter | None
    log_variances: nn.Parameter | None

    def __init__(self, network: Network) -> None:
        super().__init__()
        config, width, labels = network.config, network.width, len(network.labels)
        last = config.hidden[-1] if config.hidden else width
        self.network = network
        self.embeddings = Embeddings(network.sizes, config.embedding_dim)
        self.sequences = nn.ModuleList(_sequences(network, self.embeddings.offsets))
        self.crosses = nn.ModuleList(LowRankCross(width, config.cross_rank) for _ in range(config.cross_layers))
        if config.mixture == "ple":
            self.experts = nn.Sequential(*_levels(network))
            self.heads = TaskHeads(last, labels)
        else:
            self.experts = Experts(width, config.hidden, config.experts, config.dropout)
            self.heads = GatedHeads(width, last, config.experts, labels)
        self.wide = nn.Parameter(torch.zeros(width, labels))
        self.wide_table = nn.Parameter(torch.zeros(self.embeddings.table.shape[0], labels))
        is_parallel, is_gated = config.cross == "parallel", config.context == "epnet"
        self.cross_heads = nn.Parameter(torch.zeros(width, labels)) if is_parallel else None
        self.context = ContextGate(width, network.context_columns, config.context_width) if is_gated else None
        self.register_parameter(LOG_VARIANCES, None)

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        """ids (B, F_c + S) int64, numbers (B, F_n + S) float32 -> logits (B, T) float32."""
        rows = ids[:, : len(self.network.sizes)] + self.embeddings.offsets
        summaries = [sequence(ids, numbers, self.embeddings.table) for sequence in self.sequences]
        columns = torch.cat([self.embeddings(rows), numbers[:, : self.network.num_numbers], *summaries], dim=1)  # (B, X)
        x0 = columns if self.context is None else self.context(columns)
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        if self.cross_heads is None:
            deep = self._deep(x)
        else:  # side by side (DCN V2, Wang et al. 2021, fig. 1 b): a head reads the sum of both towers' linear images
            deep = self._deep(x0) + x @ self.cross_heads
        return deep + columns @ self.wide + lookup(rows, self.wide_table).sum(dim=1)

    def _deep(self, x: Tensor) -> Tensor:
        """Experts and heads: x (B, X) -> (B, T)."""
        h = self.experts(x)
        return self.heads(x, h) if isinstance(self.heads, GatedHeads) else self.heads(h)

    @torch.no_grad()
    def start_at(self, rates: Tensor) -> None:
        """Set the heads' bias so that an untrained network predicts each label's weighted positive rate, (T,) in (0, 1)."""
        self.heads.bias.copy_(torch.logit(rates.clamp(1e-4, 1 - 1e-4)))

    def learn_task_weights(self, rates: Tensor) -> None:
        """Add log variances that are best for a network which predicts each label's rate, (T,) in (0, 1)."""
        self.log_variances = nn.Parameter(best_log_variances(rates.clamp(1e-4, 1 - 1e-4)))


def _sequences(network: Network, offsets: Tensor) -> Iterator[SequenceEncoder]:
    config = network.config
    for place in network.sequences:
        offset = int(offsets[place.of])
        yield SequenceEncoder(place, offset, config.embedding_dim, config.sequence_hidden, config.time_mask_hours)


def _levels(network: Network) -> Iterator[ExtractionLevel]:
    config, labels = network.config, len(network.labels)
    for level in range(config.levels):
        yield ExtractionLevel(
            network.width if level == 0 else config.hidden[-1],
            config.hidden,
            shared=config.experts,
            own=config.task_experts,
            labels=labels,
            is_last=level == config.levels - 1,
            dropout=config.dropout,
        )


def save_ranker(ranker: Ranker, weights: Path, network: Path) -> None:
    """Write weights (safetensors) and network (JSON)."""
    from safetensors.torch import save_file

    weights.parent.mkdir(parents=True, exist_ok=True)
    served = {name: value for name, value in ranker.state_dict().items() if name != LOG_VARIANCES}
    save_file({name: value.detach().cpu().contiguous() for name, value in served.items()}, str(weights))
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
