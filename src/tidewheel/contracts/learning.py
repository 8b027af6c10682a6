"""How rankers and students are trained: the sections `train` and `distill` of a recipe."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tidewheel.contracts.base import Contract
from tidewheel.contracts.network import NetworkConfig
from tidewheel.contracts.sampling import Share
from tidewheel.contracts.student import CalibratorKind
from tidewheel.contracts.teacher import TeacherRules

NotNegative = Annotated[float, Field(ge=0)]


class OptimizerConfig(Contract):
    """AdamW for the network, with decays of their own for the embedding table; Adagrad for the linear weight of each id.

    `wide_rate` is what an impression moves the logit of a new id by, per unit of residual, for a label of rate one half; the
    step falls with the root of 1 + (sum of squared residuals so far) / `wide_memory`. `precision`: of the network's
    matrix products; weights, moments and loss are float32 always.
    """

    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=0.001, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    embedding_weight_decay: float = Field(default=0.1, ge=0)
    embedding_learning_ratio: float = Field(default=0.3, gt=0)  # of the embedding table's learning rate to the others'
    wide_rate: float = Field(default=0.02, ge=0)
    wide_memory: float = Field(default=1600.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"


class DistillationConfig(Contract):
    """Weight of the teacher's soft labels in the loss, against 1 of the labels.

    From `weight` at the first step to `final_weight` after the last, in a line or half a cosine (slow, fast, slow); `constant`
    stays at `weight`. Rising, labels are learned first and rankings then stay near the teacher's: they move less by the day,
    at no loss of AUC (docs/evidence/model-plane.md). A label of `by_label` gets so many times that. `scores`: the teacher
    scores all rows once before training, or `inline` each batch as it is read, which costs its time every epoch; the
    numbers are the same.
    """

    weight: float = Field(default=0.0, ge=0)
    final_weight: float = Field(default=0.8, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    by_label: dict[str, NotNegative] = {}
    scores: Literal["precomputed", "inline"] = "precomputed"

    @model_validator(mode="after")
    def _a_constant_has_one_weight(self) -> Self:
        if self.schedule == "constant" and "final_weight" in self.model_fields_set and self.final_weight != self.weight:
            raise ValueError(f"schedule is constant; final_weight {self.final_weight:g} differs from weight {self.weight:g}")
        if self.schedule == "constant" and "weight" not in self.model_fields_set:
            raise ValueError("schedule is constant; expected a weight beside it")
        return self

    def at(self, share: float) -> float:
        """The weight at a share of the steps, 0 to 1."""
        if self.schedule == "constant":
            return self.weight
        left = 1 - share if self.schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
        return left * self.weight + (1 - left) * self.final_weight


class TrainConfig(Contract):
    """`ensemble`: so many rankers with seeds from `seed` on; their mean is judged and teaches the student.

    `task_weighting`: `uncertainty` learns how much each label counts, on top of its `task_weight` (docs/model.md).

    `max_failures`: restarts of Ray's workers, or of Ray itself, after something broke; `max_preemption_failures`: those
    after a node was taken away by whoever owns it, which says nothing about the work. Both go on from the last checkpoint.
    """

    engine: Literal["in_process", "ray"] = "in_process"
    num_workers: int = Field(default=2, ge=1)  # of Ray; in process there is one
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:[0-9]+)?)$")
    seed: int = 0
    ensemble: int = Field(default=1, ge=1)
    network: NetworkConfig = NetworkConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    task_weighting: Literal["fixed", "uncertainty"] = "fixed"
    teaching: TeacherRules = TeacherRules()
    teacher: DistillationConfig = DistillationConfig()
    checkpoint_every_steps: int = Field(default=50, ge=1)
    max_failures: int = Field(default=2, ge=0)
    max_preemption_failures: int = Field(default=16, ge=0)


class DistillConfig(Contract):
    """The student learns the ranker's probabilities with weight `soft_weight` and the labels with the rest (docs/distill.md).

    It takes the ranker's features but `without_features`. Labels get `calibrator`, those of `calibrators` their own; histogram
    has a map for each value of `calibration_slice` with `min_slice_rows` effective rows. A student slower than
    `max_microseconds_per_candidate` is not published; 0: not asked.
    """

    network: NetworkConfig = NetworkConfig(embedding_dim=8, cross_layers=1, experts=1, hidden=(64,), dropout=0.0)
    optimizer: OptimizerConfig = OptimizerConfig(wide_rate=0.03, wide_memory=400, embedding_learning_ratio=1.0)
    soft_weight: Share = 0.9
    seed: int = 0
    without_features: tuple[str, ...] = ()
    calibrator: CalibratorKind = "platt"
    calibrators: dict[str, CalibratorKind] = {}
    calibration_slice: str = ""
    min_slice_rows: int = Field(default=500, ge=1)
    max_microseconds_per_candidate: NotNegative = 0.0
