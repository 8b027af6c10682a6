"""`placement` of a recipe: what each step asks of a cluster. It decides nothing about what a run makes; a laptop ignores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tidewheel.contracts.base import Contract

GPU = "nvidia.com/gpu"  # taint of GPU nodes as well, which a step with GPUs tolerates
POOL_LABEL = "tidewheel/pool"  # of nodes (helm/gpu-node-pools)
HOME_MOUNT = "/var/lib/tidewheel"  # in pods: the volume that all pods of a run share
POD_VARIABLE, PLACED_VARIABLE = "TIDEWHEEL_POD", "TIDEWHEEL_PLACED"  # a pod's name; what it is told of its placement
SETTINGS = "tidewheel"  # ConfigMap of the namespace (docs/operations/manifests.md); without it no pod of a run starts
SECRETS = ("tidewheel-store", "tidewheel-mlflow")  # where they are
MOUNTED = "/etc/tidewheel"  # in pods: a folder a ConfigMap or Secret, a file a variable
BACKOFF_SECONDS = 30  # before the first retry of a step; each waits twice as long as the one before
RETRYING_SECONDS = 3600  # no retry begins later than that after the first try did (kfp's default)
START_SECONDS = 120  # until a pod has begun
WITH_EXECUTORS = ("ingest", "sample", "validate_data")
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


class PodPlacement(Contract):
    """What a pod asks for.

    cpu: requested, not limited. memory: requested and the limit. max_memory: how far that climbs once it was not enough,
    empty: to four times `memory`. gpus: of a node of `pool`, whose taint is tolerated. pool: the label `tidewheel/pool` of
    its nodes, empty: any node. shm: size of /dev/shm, empty: the runtime's 64 MB.
    """

    cpu: Cpu = "500m"
    memory: Memory = "1Gi"
    max_memory: Memory | Literal[""] = ""
    gpus: int = Field(default=0, ge=0, le=64)
    pool: Name = ""
    tolerations: tuple[Toleration, ...] = ()
    shm: Memory | Literal[""] = ""

    @model_validator(mode="after")
    def _memory_only_climbs(self) -> Self:
        if self.max_memory and bytes_of(self.max_memory) < bytes_of(self.memory):
            raise ValueError(f"max_memory {self.max_memory} is less than memory {self.memory}; expected at least that")
        return self


class StepPlacement(PodPlacement):
    """What the pod of one step asks for.

    queue, priority: of Kueue, empty: it waits for no quota. timeout_seconds: after which it is stopped and has failed.
    retries: after a lost pod or a RetryableError; any other error fails at once.
    """

    queue: Name = ""
    priority: Name = ""
    timeout_seconds: int = Field(default=4 * 3600, ge=60)
    retries: int = Field(default=2, ge=0, le=10)

    @model_validator(mode="after")
    def _priority_is_of_a_queue(self) -> Self:
        if self.priority and not self.queue:
            raise ValueError(f"priority {self.priority} without a queue; expected the name of a LocalQueue in queue")
        return self

    @property
    def queue_labels(self) -> dict[str, str]:
        """By which Kueue queues the step's pod, and whatever it starts; none where it waits for no quota."""
        found = {"kueue.x-k8s.io/queue-name": self.queue, "kueue.x-k8s.io/priority-class": self.priority}
        return {label: name for label, name in found.items() if name}


RAY_HEAD = PodPlacement(cpu="250m", memory="3Gi")  # Ray's own processes, the driver and its controller: 1.9 GB were measured


class Executors(PodPlacement):
    """What each Spark executor of a step asks for, and how many there are."""

    count: int = Field(default=2, ge=1, le=1000)


class Placement(Contract):
    """What every step asks for, and the pods that steps start.

    workers: of the RayJob that `train` starts, one for each of `train.num_workers`; None: workers live in its own pod.
    executors: of the Spark that `ingest`, `sample` and `validate_data` start; None: their engine is in their own pod.
    volume: a PersistentVolumeClaim that lies at TIDEWHEEL_HOME in all of them, writable from many nodes where they are on many;
    empty: each pod has a home of its own, and shares the store alone.
    """

    ingest: StepPlacement = StepPlacement(cpu="1", memory="2Gi")
    sample: StepPlacement = StepPlacement(cpu="1", memory="2Gi")
    validate_data: StepPlacement = StepPlacement(cpu="1", memory="2Gi")
    train: StepPlacement = StepPlacement(cpu="1", memory="4Gi", timeout_seconds=12 * 3600)
    distill: StepPlacement = StepPlacement(cpu="1", memory="4Gi")
    evaluate: StepPlacement = StepPlacement(cpu="1", memory="2Gi")
    deploy: StepPlacement = StepPlacement(memory="2Gi", timeout_seconds=24 * 3600)
    conclude: StepPlacement = StepPlacement()
    workers: PodPlacement | None = None
    executors: Executors | None = None
    volume: Name = ""

    @model_validator(mode="after")
    def _children_share_a_volume(self) -> Self:
        for name in ("workers", "executors"):
            if getattr(self, name) is not None and not self.volume:
                raise ValueError(
                    f"{name} without a volume; expected in volume the name of a claim that their pods share with the step"
                )
        return self

    def on_a_laptop(self) -> Self:
        """The same with one try a step and no pods beside it: nobody takes pods away from a laptop, and whoever sits there
        sees the error at once."""
        once = {step: placed.model_copy(update={"retries": 0}) for step, placed in self.steps().items()}
        return self.model_copy(update=once | {"workers": None, "executors": None, "volume": ""})

    def at_once(self, num_workers: int) -> dict[str, dict[str, PodPlacement]]:
        """The pods without which each step does not work, by name: its own, and of those that it starts the least."""
        found: dict[str, dict[str, PodPlacement]] = {step: {step: placed} for step, placed in self.steps().items()}
        if self.workers is not None:
            workers = {f"worker {number} of train": self.workers for number in range(1, num_workers + 1)}
            found["train"] |= {"the head of train's Ray": RAY_HEAD} | workers
        if self.executors is not None:
            for step in WITH_EXECUTORS:
                found[step][f"an executor of {step}"] = self.executors
        return found

    def steps(self) -> dict[str, StepPlacement]:
        """By the name of the step."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in fields.items() if isinstance(value, StepPlacement)}


class Placed(Contract):
    """What a step in a pod is told of the placement that it has, in `TIDEWHEEL_PLACED`."""

    step: StepPlacement
    workers: PodPlacement | None = None
    executors: Executors | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self | None:
        """None where this is no pod of a pipeline."""
        text = environment.get(PLACED_VARIABLE)
        return cls.parse(text, PLACED_VARIABLE) if text else None


def retrying_seconds(retries: int) -> int:
    """How long after a failure retries of its step may still begin by themselves; whoever comes later is a person."""
    return min(BACKOFF_SECONDS * (2**retries - 1), RETRYING_SECONDS) + START_SECONDS * retries


def bytes_of(memory: str) -> int:
    """Of an amount such as `512Mi`."""
    return int(memory[:-2]) * 2 ** {"Mi": 20, "Gi": 30, "Ti": 40}[memory[-2:]]
