"""`placement` of a recipe: what each step asks of a cluster. It decides nothing about what a run makes; a laptop ignores it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tidewheel.contracts.base import Contract

GPU = "nvidia.com/gpu"  # taint of GPU nodes as well, which a step with GPUs tolerates
POOL_LABEL = "tidewheel/pool"  # of nodes (helm/gpu-node-pools)
Cpu = Annotated[str, StringConstraints(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$")]
Memory = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")]
Name = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?)?$")]


class Toleration(Contract):
    """A taint of nodes that a step does not mind, in Kubernetes' words; an empty effect is any."""

    key: str = Field(min_length=1)
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    @model_validator(mode="after")
    def _exists_has_no_value(self) -> Self:
        if self.value and self.operator == "Exists":
            raise ValueError(f"value {self.value!r} with operator Exists; expected operator Equal, or no value")
        return self


class StepPlacement(Contract):
    """What the pod of one step asks for.

    cpu: requested, not limited. memory: requested and the limit. gpus: of a node of `pool`, whose taint is tolerated.
    pool: the label `tidewheel/pool` of its nodes, empty: any node. queue, priority: of Kueue, empty: it waits for no quota.
    shm: size of /dev/shm, empty: the runtime's 64 MB. timeout_seconds: after which it is stopped and has failed.
    retries: after a lost pod or a RetryableError; any other error fails at once.
    """

    cpu: Cpu = "500m"
    memory: Memory = "1Gi"
    gpus: int = Field(default=0, ge=0, le=64)
    pool: Name = ""
    tolerations: tuple[Toleration, ...] = ()
    queue: Name = ""
    priority: Name = ""
    shm: Memory | Literal[""] = ""
    timeout_seconds: int = Field(default=4 * 3600, ge=60)
    retries: int = Field(default=2, ge=0, le=10)

    @model_validator(mode="after")
    def _priority_is_of_a_queue(self) -> Self:
        if self.priority and not self.queue:
            raise ValueError(f"priority {self.priority} without a queue; expected the name of a LocalQueue in queue")
        return self


class Placement(Contract):
    """What every step asks for."""

    ingest: StepPlacement = StepPlacement(cpu="1", memory="2Gi")
    sample: StepPlacement = StepPlacement(cpu="1", memory="2Gi")
    validate_data: StepPlacement = StepPlacement(cpu="1", memory="2Gi")
    train: StepPlacement = StepPlacement(cpu="1", memory="4Gi", timeout_seconds=12 * 3600)
    distill: StepPlacement = StepPlacement(cpu="1", memory="4Gi")
    evaluate: StepPlacement = StepPlacement(cpu="1", memory="2Gi")
    deploy: StepPlacement = StepPlacement(memory="2Gi", timeout_seconds=24 * 3600)
    conclude: StepPlacement = StepPlacement()

    def without_retries(self) -> Self:
        """The same with one try a step: nobody takes pods away from a laptop, and whoever sits there sees the error at once."""
        once = {step: getattr(self, step).model_copy(update={"retries": 0}) for step in type(self).model_fields}
        return self.model_copy(update=once)
