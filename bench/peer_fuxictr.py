"""FuxiCTR as a peer: DCNv2 and MMoE with its own `fit` and loader. See bench/peer_job.py.

Its package ships the layers, base models, loop and loader, but of its model zoo neither DCNv2 for plain rows nor MMoE: they
are put together here from its layers the way that zoo describes them.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetMix, CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel, MultiTaskModel
from torch import Tensor, nn

from bench.peer_job import Arrays, Job, run, serve


class Dcn(BaseModel):
    """Cross layers and a perceptron, `parallel` or `stacked`, on the embeddings of all features."""

    def __init__(self, feature_map: FeatureMap, own: dict[str, Any], is_mixture: bool, shared: dict[str, Any]) -> None:
        super().__init__(feature_map, model_id="dcn", **shared)
        self.embedding_layer = FeatureEmbedding(feature_map, own["embedding_dim"])
        width = feature_map.sum_emb_out_dim()
        if is_mixture:
            self.crossnet: nn.Module = CrossNetMix(width, own["cross_layers"], own["rank"], own["experts"])
        else:
            self.crossnet = CrossNetV2(width, own["cross_layers"])
        self.is_stacked = own["structure"] == "stacked"
        self.deep = _perceptron(width, own)
        self.fc = nn.Linear(own["hidden"][-1] + (0 if self.is_stacked else width), 1)
        _ready(self, own)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns (B,) -> {y_pred: (B, 1)}."""
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        crossed = self.crossnet(x)
        top = self.deep(crossed) if self.is_stacked else torch.cat([crossed, self.deep(x)], dim=1)
        return {"y_pred": self.output_activation(self.fc(top))}


class Mmoe(MultiTaskModel):
    """Experts, and for each label a gate and a tower."""

    def __init__(self, feature_map: FeatureMap, own: dict[str, Any], shared: dict[str, Any]) -> None:
        labels = feature_map.labels
        super().__init__(feature_map, "mmoe", ["binary_classification"] * len(labels), len(labels), **shared)
        self.embedding_layer = FeatureEmbedding(feature_map, own["embedding_dim"])
        width = feature_map.sum_emb_out_dim()
        self.experts = nn.ModuleList(_perceptron(width, own) for _ in range(own["experts"]))
        self.gates = nn.ModuleList(MLP_Block(width, list(own["gate"]), output_dim=own["experts"]) for _ in labels)
        tower = own | {"hidden": own["tower"]}
        self.towers = nn.ModuleList(_perceptron(own["hidden"][-1], tower, output_dim=1) for _ in labels)
        _ready(self, own)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns (B,) -> {<label>_pred: (B, 1)}."""
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        experts = torch.stack([expert(x) for expert in self.experts], dim=1)  # (B, E, H)
        found = {}
        for at, label in enumerate(self.feature_map.labels):
            mix = torch.softmax(self.gates[at](x), dim=1).unsqueeze(1)  # (B, 1, E)
            logit = self.towers[at](torch.bmm(mix, experts).squeeze(1))
            found[f"{label}_pred"] = self.output_activation[at](logit)
        return found


def _perceptron(width: int, own: dict[str, Any], output_dim: int | None = None) -> nn.Module:
    return MLP_Block(
        width,
        list(own["hidden"]),
        output_dim=output_dim,
        dropout_rates=own["dropout"],
        batch_norm=own.get("batch_norm", False),
    )


def _ready(model: BaseModel, own: dict[str, Any]) -> None:
    model.compile("adam", "binary_crossentropy", own["learning_rate"])
    model.reset_parameters()
    model.model_to_device()


class Fuxi:
    """One of the models with loaders over an NPZ file, the format that it keeps whole in memory."""

    def __init__(self, job: Job, train: Arrays) -> None:
        own, self.labels = job.settings, job.labels
        self.folder = Path(tempfile.mkdtemp(prefix="fuxictr-"))
        self.map = _feature_map(self.folder, train, job.labels, own)
        shared = {
            "verbose": 0,
            "model_root": str(self.folder),
            "metrics": ["logloss"],
            "monitor": "logloss",
            "monitor_mode": "min",
            "embedding_regularizer": own["l2_embedding"] or None,
            "net_regularizer": own.get("l2_network") or None,
        }
        Path(self.folder, "bench").mkdir()
        if job.model == "mmoe":
            self.module: BaseModel = Mmoe(self.map, own, shared)
        else:
            self.module = Dcn(self.map, own, job.model == "dcnmix", shared)
        size, workers = own["batch_size"], own.get("workers", 0)
        self.loader = self._loader(train, "train", size, workers)
        self.few = self._loader(train.few(), "valid", size, 0)

    def _loader(self, rows: Arrays, name: str, batch_size: int, workers: int) -> Any:
        path = self.folder / f"{name}.npz"
        np.savez(path, **_columns(rows, self.labels))
        loaders = RankDataLoader(
            self.map, "train", str(path), batch_size=batch_size, shuffle=name == "train", num_workers=workers
        )
        return loaders[0]

    def fit(self, epochs: int) -> None:
        """Looks at a few rows after the last epoch alone, so that the last weights are the ones kept."""
        self.module._eval_steps = len(self.loader) * epochs
        self.module.fit(self.loader, epochs=epochs, validation_data=self.few)

    def scores(self, rows: Arrays) -> np.ndarray:
        self.module.eval()
        found = []
        columns = {name: torch.from_numpy(values) for name, values in _columns(rows, self.labels).items()}
        with torch.no_grad():
            for start in range(0, len(rows.ids), 8192):
                answer = self.module({name: values[start : start + 8192] for name, values in columns.items()})
                found.append(np.concatenate([value.numpy() for value in answer.values()], axis=1))
        return np.concatenate(found)


def _columns(rows: Arrays, labels: tuple[str, ...]) -> dict[str, np.ndarray]:
    ids = {name: rows.ids[:, at].astype(np.float32) for at, name in enumerate(rows.names)}
    numbers = {f"number_{at}": rows.numbers[:, at] for at in range(rows.numbers.shape[1])}
    return ids | numbers | {label: rows.labels[:, at] for at, label in enumerate(labels)}


def _feature_map(folder: Path, rows: Arrays, labels: tuple[str, ...], own: dict[str, Any]) -> FeatureMap:
    """Its description of the columns; numbers have `number_dim` dimensions each."""
    found = FeatureMap("bench", str(folder))
    ids = [(n, {"type": "categorical", "source": "", "vocab_size": s}) for n, s in zip(rows.names, rows.sizes, strict=True)]
    number = {"type": "numeric", "source": "", "embedding_dim": own["number_dim"]}
    found.features = OrderedDict(ids + [(f"number_{at}", dict(number)) for at in range(rows.numbers.shape[1])])
    found.labels = list(labels)
    found.default_emb_dim = own["embedding_dim"]
    found.num_fields = found.get_num_fields()
    found.total_features = sum(rows.sizes)
    found.set_column_index()
    return found


if __name__ == "__main__":
    serve(lambda job: run(Fuxi, job))
