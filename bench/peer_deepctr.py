"""DeepCTR-Torch as a peer: DCN (full matrix), DCN-Mix and MMOE with its own `fit`. See bench/peer_job.py."""

from __future__ import annotations

import numpy as np
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import DCN, DCNMix
from deepctr_torch.models.multitask import MMOE

from bench.peer_job import Arrays, Job, run, serve

NUMBERS = "numbers"  # all numeric columns as one dense feature: one slice of the batch instead of F_n


class DeepCtr:
    """One of its models. Single-task ones have its linear part beside them, as its documentation shows."""

    def __init__(self, job: Job, train: Arrays) -> None:
        own = job.settings
        columns = [SparseFeat(n, s, embedding_dim=own["embedding_dim"]) for n, s in zip(train.names, train.sizes, strict=True)]
        columns.append(DenseFeat(NUMBERS, train.numbers.shape[1]))
        shared = {"l2_reg_embedding": own["l2_embedding"], "seed": job.seed, "dnn_dropout": own["dropout"]}
        if "batch_norm" in own:
            shared["dnn_use_bn"] = own["batch_norm"]
        if job.model == "mmoe":
            self.module = MMOE(
                columns,
                num_experts=own["experts"],
                expert_dnn_hidden_units=tuple(own["hidden"]),
                gate_dnn_hidden_units=tuple(own["gate"]),
                tower_dnn_hidden_units=tuple(own["tower"]),
                task_types=["binary"] * len(job.labels),
                task_names=list(job.labels),
                **shared,
            )
            loss: object = ["binary_crossentropy"] * len(job.labels)
        else:
            shared |= {"cross_num": own["cross_layers"], "dnn_hidden_units": tuple(own["hidden"])}
            shared |= {"l2_reg_linear": own["l2_linear"]}
            if job.model == "dcn":
                self.module = DCN(columns, columns, cross_parameterization="matrix", **shared)
            else:
                self.module = DCNMix(columns, columns, low_rank=own["rank"], num_experts=own["experts"], **shared)
            loss = "binary_crossentropy"
        self.module.compile(torch.optim.Adam(self.module.parameters(), lr=own["learning_rate"]), loss, metrics=[])
        self.batch_size = own["batch_size"]
        self.inputs, self.labels = _inputs(train), train.labels

    def fit(self, epochs: int) -> None:
        self.module.fit(self.inputs, self.labels, batch_size=self.batch_size, epochs=epochs, verbose=0)

    def scores(self, rows: Arrays) -> np.ndarray:
        return self.module.predict(_inputs(rows), 8192)


def _inputs(rows: Arrays) -> dict[str, np.ndarray]:
    """Its ids and numbers travel in one float32 matrix; ids below 2^24 survive that."""
    ids = {name: rows.ids[:, [at]].astype(np.float32) for at, name in enumerate(rows.names)}
    return ids | {NUMBERS: rows.numbers}


if __name__ == "__main__":
    serve(lambda job: run(DeepCtr, job))
