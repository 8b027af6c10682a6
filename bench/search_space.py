"""What the trials of bench/ranker_vs_peers.py draw from: a table a model, each row a setting and its values.

The first trial of each model is the system's own defaults (ours: recipes/kuairand.yaml; libraries: their class defaults,
and where they have none, the settings of their examples). The others draw every setting at random. To try an option more,
add a row.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.peer_job import Settings

Space = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Model:
    """One model of a system. `is_multi_task`: one network for all labels, else one for each of the gated ones.

    `max_epochs` of a library are all looked at in every trial, as early stopping would; ours, whose learning rate falls
    toward the last epoch, draws `epochs` like any other setting.
    """

    system: str
    name: str
    is_multi_task: bool
    defaults: Settings
    space: Space
    max_epochs: int = 4

    @property
    def key(self) -> str:
        return f"{self.system}/{self.name}"

    def settings(self, trial: int) -> Settings:
        """The same trial gives the same settings, whatever other rows of the table are drawn from."""
        if trial == 0:
            return dict(self.defaults)
        drawn = {}
        for name, values in self.space.items():
            seed = zlib.crc32(f"{self.key} {name} {trial}".encode())
            drawn[name] = values[int(np.random.default_rng(seed).integers(len(values)))]
        return drawn


_SHARED: Space = {
    "learning_rate": (3e-4, 5e-4, 1e-3, 2e-3, 4e-3),
    "batch_size": (256, 512, 1024, 2048, 4096),
    "embedding_dim": (4, 8, 16, 32),
    "dropout": (0.0, 0.1, 0.2, 0.3, 0.5),
    "hidden": ([64], [128, 64], [256, 128], [128, 128]),
}
_DCN: Space = {"model": ("dcn", "dcnmix"), "cross_layers": (1, 2, 3), "rank": (16, 32, 64), "experts": (1, 2, 4)}
_MMOE: Space = {"model": ("mmoe",), "experts": (2, 3, 4, 8), "tower": ([], [16], [32], [64])}
_STRUCTURE: Space = {"structure": ("parallel", "stacked")}

# Its loss is summed over the batch, so its penalties are a batch size smaller than the other libraries'.
_DEEPCTR: Space = {"l2_embedding": (0.0, 1e-5, 1e-3, 1e-2, 0.1), "l2_linear": (0.0, 1e-5, 1e-3), "batch_norm": (False, True)}
_FUXICTR: Space = {
    "l2_embedding": (0.0, 1e-6, 1e-5, 1e-4, 5e-4),
    "l2_network": (0.0, 1e-6, 1e-5),
    "batch_norm": (False, True),
    "number_dim": (1, 8),
}
_RECHUB: Space = {"weight_decay": (0.0, 1e-6, 1e-5, 1e-4, 1e-3)}

_OURS: Space = {
    "optimizer.learning_rate": (5e-4, 1e-3, 2e-3, 4e-3),
    "optimizer.batch_size": (256, 512, 1024, 2048),
    "optimizer.epochs": (1, 2, 3, 4),
    "optimizer.weight_decay": (0.0, 1e-5, 1e-2, 0.1),
    "optimizer.embedding_weight_decay": (0.01, 0.1, 0.3, 1.0),
    "optimizer.embedding_learning_ratio": (0.1, 0.3, 1.0),
    "optimizer.wide_rate": (0.005, 0.01, 0.02, 0.04),
    "optimizer.wide_memory": (100.0, 400.0, 1600.0, 6400.0),
    "network.embedding_dim": (4, 8, 16, 32),
    "network.cross_layers": (1, 2, 3),
    "network.cross_rank": (16, 32, 64),
    "network.experts": (1, 2, 3, 6),
    "network.hidden": ([64], [128, 64], [256, 128], [128, 128]),
    "network.dropout": (0.0, 0.1, 0.2, 0.3),
    "network.cross": ("stacked", "parallel"),
    "network.mixture": ("mmoe", "ple"),
}
_OURS_DEFAULTS: Settings = {
    "optimizer.epochs": 2,
    "optimizer.batch_size": 1024,
    "optimizer.learning_rate": 0.001,
}

_DEEP: Settings = {"learning_rate": 1e-3, "dropout": 0.0, "batch_norm": False}
_DEEPCTR_DEFAULTS = _DEEP | {"batch_size": 256, "embedding_dim": 4, "l2_embedding": 1e-5, "l2_linear": 1e-5}
_FUXICTR_DEFAULTS = _DEEP | {"batch_size": 4096, "embedding_dim": 10, "l2_embedding": 1e-5, "l2_network": 0.0, "number_dim": 10}
_RECHUB_DEFAULTS = _DEEP | {"batch_size": 2048, "embedding_dim": 16, "dropout": 0.2, "weight_decay": 1e-5}
_DCN_DEFAULTS: Settings = {"model": "dcn", "cross_layers": 2, "hidden": [128, 128], "rank": 32, "experts": 4}
_MMOE_DEFAULTS: Settings = {"model": "mmoe", "experts": 3, "hidden": [256, 128], "gate": [], "tower": [64]}
_PARALLEL: Settings = {"structure": "parallel"}
_GATE: Space = {"gate": ([], [64])}

MODELS = (
    Model("ours", "ranker", True, _OURS_DEFAULTS, _OURS),
    Model("deepctr", "dcn", False, _DEEPCTR_DEFAULTS | _DCN_DEFAULTS, _SHARED | _DCN | _DEEPCTR),
    Model("deepctr", "mmoe", True, _DEEPCTR_DEFAULTS | _MMOE_DEFAULTS | {"gate": [64]}, _SHARED | _MMOE | _GATE | _DEEPCTR),
    Model("fuxictr", "dcn", False, _FUXICTR_DEFAULTS | _DCN_DEFAULTS | _PARALLEL, _SHARED | _DCN | _STRUCTURE | _FUXICTR),
    Model("fuxictr", "mmoe", True, _FUXICTR_DEFAULTS | _MMOE_DEFAULTS, _SHARED | _MMOE | _GATE | _FUXICTR),
    Model("rechub", "dcn", False, _RECHUB_DEFAULTS | _DCN_DEFAULTS | _PARALLEL, _SHARED | _DCN | _STRUCTURE | _RECHUB),
    Model("rechub", "mmoe", True, _RECHUB_DEFAULTS | _MMOE_DEFAULTS, _SHARED | _MMOE | _RECHUB),
)
