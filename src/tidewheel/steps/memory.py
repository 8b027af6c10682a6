"""The memory of a step and of the pods that it starts: with what they begin, what a kill teaches, what the store remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from tidewheel.contracts.memory import Learned, after_kill, after_success, start
from tidewheel.contracts.placement import GPU, Placed, PodPlacement, StepPlacement
from tidewheel.errors import ConfigError, ContractError, RetryableError
from tidewheel.pods.beside import is_beside, pod_of
from tidewheel.pods.bounds import bounds_in, free_in
from tidewheel.pods.ladder import Bound, fit, quantity, shown
from tidewheel.pods.memory import earlier_tries, is_queued, killed_bytes, memory_of, resize, was_oom_killed
from tidewheel.pods.own import OwnPod, own_pod
from tidewheel.pods.usage import Usage
from tidewheel.steps.shown import RECIPE_VARIABLE
from tidewheel.store.store import Store

P = TypeVar("P", bound=PodPlacement)
FOLDER = "memory"  # of the store: a folder a recipe, a record a step or kind of pod


class StepMemory:
    """Of one try of one step. Where it runs in no pod of a pipeline, it asks for nothing and learns nothing.

    given_bytes: what this try has; None: nobody limits it. beside_bytes: what a second pod should have in which the work goes
    on, because this one came through a queue and stays as it was let in; 0: it goes on here. killed_bytes: the most with
    which an earlier try of this run was killed; 0: none was. was_killed: the one just before this was. What a cluster does
    not tell or do is said with `say`; the step goes on with what it has.
    """

    def __init__(
        self,
        store: Store,
        step: str,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        pod: OwnPod | None,
        earlier: Sequence[Mapping[str, Any]],
    ) -> None:
        placed = Placed.of(environment)
        self._store, self._step, self._say = store, step, say
        self._recipe = environment.get(RECIPE_VARIABLE, "")
        self._pod = pod if placed is not None and self._recipe else None
        self._is_beside = is_beside(environment)
        self._asked = placed.step if placed is not None else StepPlacement()
        self._usage = Usage(is_pod=self._pod is not None)
        self.beside_bytes = 0
        self.given_bytes = memory_of(pod.manifest, pod.container["name"]) or None if pod is not None else None
        self.killed_bytes = killed_bytes(earlier)
        self.was_killed = was_oom_killed(earlier[-1:])

    @classmethod
    def of(cls, store: Store, step: str, environment: Mapping[str, str], say: Callable[[str], None]) -> StepMemory:
        """Of this process's own pod, if it has one and may look at it and at those before it."""
        pod, earlier = None, list[Mapping[str, Any]]()
        try:
            pod = own_pod(environment)
            earlier = earlier_tries(pod) if pod is not None else []
        except (ConfigError, RetryableError) as error:
            say(f"memory does not climb: {error}")
        return cls(store, step, environment, say, pod, earlier)

    @property
    def peak_bytes(self) -> int | None:
        return self._usage.peak_bytes

    def climb(self, now: datetime | None = None, can_leave: bool = False) -> bool:
        """Take the rung that this try should have, or say in `beside_bytes` what a second pod should; whether this pod changed.

        Args:
            can_leave: the work can go on in another pod.

        Raises:
            ConfigError: the try before was killed with as much as there may be, or as this pod can be given.
            RetryableError: the same, for now.
        """
        if self._pod is None or not self.given_bytes or self._is_beside:
            return False
        now = now or datetime.now(UTC)
        learned = self._learned(self._step)
        if self.killed_bytes:
            learned = self._put(self._step, after_kill(learned, self._asked, self.killed_bytes, now))
        wanted = max(start(learned, self._asked, now), self.given_bytes)
        if wanted <= self.given_bytes and not self.killed_bytes:
            return False
        goes_beside = can_leave and is_queued(self._pod) and self._has_gpus_beside(self._pod)
        rung = fit(self._step, wanted, self.killed_bytes, self._asked, self._bounds(goes_beside))
        if rung < wanted:
            self._say(f"memory: {shown(rung)} instead of {shown(wanted)}, which is more than there is room for")
        if rung > self.given_bytes and goes_beside:
            self.beside_bytes = rung
            return False
        return rung > self.given_bytes and self._resized(self._pod, rung)

    def killed_beside(self, killed_bytes: int, now: datetime | None = None) -> None:
        """Learn that the second pod was killed with so much: the next try begins with more.

        Raises:
            ConfigError: there may be no more.
        """
        now = now or datetime.now(UTC)
        learned = self._put(self._step, after_kill(self._learned(self._step), self._asked, killed_bytes, now))
        lasting = [bound for bound in self._bounds(goes_beside=True) if not bound.is_for_now]
        fit(self._step, start(learned, self._asked, now), killed_bytes, self._asked, lasting)

    def second_pod(self, run_id: str, command: Sequence[str]) -> tuple[OwnPod, dict[str, Any]]:
        """This pod, and the manifest of the one beside it."""
        if self._pod is None or not self.beside_bytes:
            raise ValueError("the work goes on in this pod")
        return self._pod, pod_of(self._pod, self._asked, run_id, self.beside_bytes, command)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the most that is used is noticed."""
        with self._usage.watched():
            yield

    def ended_well(self, now: datetime | None = None) -> None:
        """Learn from work that was done (nothing that was reused): enough quiet runs leave a rung."""
        if self._pod is not None and (learned := self._learned(self._step)) is not None:
            self._put(self._step, after_success(learned, self._asked, self.peak_bytes, now or datetime.now(UTC)))

    def child(self, kind: str, asked: P, count: int = 1, now: datetime | None = None) -> P:
        """What each of `count` pods of a kind (`workers`, `executors`) should ask for now: `asked` with the memory that was
        learned, as far as quotas leave it.
        """
        learned = self._learned(f"{self._step}.{kind}")
        if self._pod is None or learned is None:
            return asked
        wanted = start(learned, asked, now or datetime.now(UTC))
        rung = fit(kind, wanted, 0, asked, bounds_in(self._pod.namespace, "", asked, 0, count, self._say))
        return asked.model_copy(update={"memory": quantity(rung)})

    def child_ended(
        self, kind: str, asked: PodPlacement, killed_bytes: int, count: int = 1, now: datetime | None = None
    ) -> None:
        """Learn from how pods of a kind ended: well (0), or one of them killed with so much memory.

        Args:
            asked: as the recipe has it, not as `child` returned it.

        Raises:
            ConfigError: they were killed with as much as there may be.
        """
        name, now = f"{self._step}.{kind}", now or datetime.now(UTC)
        learned = self._learned(name)
        if killed_bytes and self._pod is not None:
            wanted = start(self._put(name, after_kill(learned, asked, killed_bytes, now)), asked, now)
            bounds = bounds_in(self._pod.namespace, "", asked, 0, count, self._say)
            fit(kind, wanted, killed_bytes, asked, [bound for bound in bounds if not bound.is_for_now])
        elif learned is not None:
            self._put(name, after_success(learned, asked, None, now))

    def _has_gpus_beside(self, pod: OwnPod) -> bool:
        """Whether its queue has as many as this step again: nobody waits for GPUs while holding some."""
        if not self._asked.gpus:
            return True
        try:
            free = free_in(pod.namespace, self._asked.queue, GPU)
        except (ConfigError, RetryableError) as error:
            self._say(f"GPUs of queue {self._asked.queue} not known: {error}")
            return False
        return free is None or free >= self._asked.gpus

    def _bounds(self, goes_beside: bool) -> list[Bound]:
        assert self._pod is not None
        given, queue = self.given_bytes or 0, self._asked.queue
        return bounds_in(
            self._pod.namespace, queue, self._asked, 0 if goes_beside else given, 1, self._say, given if goes_beside else 0
        )

    def _resized(self, pod: OwnPod, rung: int) -> bool:
        refusal = resize(pod, rung)
        if refusal is None:
            self._say(f"memory: {shown(rung)}, {shown(self.given_bytes or 0)} before")
            self.given_bytes = rung
            return True
        said = f"the pod was not given {shown(rung)} of memory while it runs ({refusal.words})"
        if (self.given_bytes or 0) > self.killed_bytes:
            self._say(f"memory: {said}; it goes on with {shown(self.given_bytes or 0)}")
            return False
        kind = RetryableError if refusal.is_for_now else ConfigError
        raise kind(
            f"placement.{self._step}: {shown(self.killed_bytes)} of memory was not enough, and {said}; "
            f"set placement.{self._step}.memory to {quantity(rung)}, which pods begin with"
        )

    def _learned(self, name: str) -> Learned | None:
        where = self._name(name)
        text = self._store.get(where)
        try:
            return Learned.parse(text, where) if text is not None else None
        except ContractError as error:
            self._say(f"memory: what was learned is not believed: {error}")
            return None

    def _put(self, name: str, learned: Learned) -> Learned:
        self._store.put(self._name(name), learned.to_json())
        return learned

    def _name(self, name: str) -> str:
        return f"{FOLDER}/{self._recipe}/{name}.json"


class ChildMemory:
    """What a step's memory says of one kind of pods that it starts."""

    def __init__(self, memory: StepMemory, kind: str) -> None:
        self._memory, self._kind = memory, kind
        self._asked, self._count = PodPlacement(), 1

    def sized(self, asked: P, count: int) -> P:
        self._asked, self._count = asked, count
        return self._memory.child(self._kind, asked, count)

    def ended(self, killed_bytes: int) -> None:
        self._memory.child_ended(self._kind, self._asked, killed_bytes, self._count)
