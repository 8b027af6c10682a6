"""torch-rechub as a peer: DCNv2 (full matrix or low-rank mixture) and MMOE with its own trainers. See bench/peer_job.py."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE
from torch_rechub.models.ranking import DCNv2
from torch_rechub.trainers import CTRTrainer, MTLTrainer
from torch_rechub.utils.data import DataGenerator

from bench.peer_job import Arrays, Job, run, serve

NUMBERS = "numbers"  # all numeric columns as one dense feature: one value a row to collate instead of F_n
NEVER = 10**6  # epochs without improvement until it stops: the driver chooses the epoch


class Rechub:
    """One of its models with the trainer that belongs to it."""

    def __init__(self, job: Job, train: Arrays) -> None:
        own = job.settings
        dim = own["embedding_dim"]
        features = [SparseFeature(n, s, embed_dim=dim) for n, s in zip(train.names, train.sizes, strict=True)]
        features.append(DenseFeature(NUMBERS, embed_dim=train.numbers.shape[1]))
        deep = {"dims": list(own["hidden"]), "dropout": own["dropout"]}
        self.is_multi_task = job.model == "mmoe"
        shared: dict[str, Any] = {
            "optimizer_params": {"lr": own["learning_rate"], "weight_decay": own["weight_decay"]},
            "n_epoch": 1,
            "earlystop_patience": NEVER,
            "model_path": tempfile.mkdtemp(prefix="rechub-"),
        }
        if self.is_multi_task:
            tower = {"dims": list(own["tower"]), "dropout": own["dropout"]}
            tasks = ["classification"] * len(job.labels)
            self.module = MMOE(features, tasks, own["experts"], deep, [dict(tower) for _ in job.labels])
            self.trainer = MTLTrainer(self.module, tasks, **shared)
        else:
            self.module = DCNv2(
                features,
                own["cross_layers"],
                deep,
                model_structure=own["structure"],
                use_low_rank_mixture=job.model == "dcnmix",
                low_rank=own.get("rank", 32),
                num_experts=own.get("experts", 4),
            )
            self.trainer = CTRTrainer(self.module, **shared)
        x, y = self._inputs(train)
        few_x, few_y = self._inputs(train.few())
        self.loader, self.few, _ = DataGenerator(x, y).generate_dataloader(
            few_x, few_y, few_x, few_y, batch_size=own["batch_size"], num_workers=own.get("workers", 0)
        )

    def _inputs(self, rows: Arrays) -> tuple[dict[str, Any], np.ndarray]:
        ids = {name: np.ascontiguousarray(rows.ids[:, at]) for at, name in enumerate(rows.names)}
        return ids | {NUMBERS: rows.numbers}, rows.labels if self.is_multi_task else rows.labels[:, 0]

    def fit(self, epochs: int) -> None:
        self.trainer.n_epoch = epochs
        self.trainer.fit(self.loader, self.few)

    def scores(self, rows: Arrays) -> np.ndarray:
        inputs, _ = self._inputs(rows)
        self.module.eval()
        found = []
        with torch.no_grad():
            for start in range(0, len(rows.ids), 8192):
                part = {name: torch.from_numpy(values[start : start + 8192]) for name, values in inputs.items()}
                found.append(self.module(part).reshape(-1, rows.labels.shape[1]).numpy())
        return np.concatenate(found)


if __name__ == "__main__":
    serve(lambda job: run(Rechub, job))
