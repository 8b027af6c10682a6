"""Schedules of a file against those of a backend: a pure plan, and an executor that may die between any two calls.

A recurring run cannot be edited, and deleting one kills its run. So another one is made beside it, disabled; then it is
enabled, the old one disabled, and the old one is deleted by a later apply, once its run ended.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from tidewheel.cluster.backend import Order, Parameters, Recurring, RecurringRun, Version
from tidewheel.contracts.base import digest_of

MARKER = re.compile(r"tidewheel/schedules/v1 group=(\S+) name=(\S+) digest=([0-9a-f]{64})")
SETTLING_SECONDS = 5.0  # by then the backend has heard of a run that began before its schedule was disabled


class Kind(StrEnum):
    """What is done to a recurring run."""

    CREATE = "create"
    ENABLE = "enable"
    DISABLE = "disable"
    DELETE = "delete"


@dataclass(frozen=True)
class Wanted:
    """A schedule of the file, with its recipe compiled."""

    group: str
    name: str
    recipe: str
    pipeline: bytes
    pipeline_digest: str
    cron: str
    parameters: Parameters
    service_account: str
    is_enabled: bool

    @property
    def digest(self) -> str:
        """Of all that cannot be changed in place."""
        return digest_of(
            {
                "pipeline": self.pipeline_digest,
                "cron": self.cron,
                "parameters": dict(self.parameters),
                "service_account": self.service_account,
            }
        )

    @property
    def title(self) -> str:
        return f"tidewheel-{self.name}"

    @property
    def description(self) -> str:
        """For people, and how the next apply knows its own; at most 255 characters, which is what a backend keeps."""
        marker = f"tidewheel/schedules/v1 group={self.group} name={self.name} digest={self.digest}"
        return f"Made by tidewheel: change schedules.yaml. {marker}"


@dataclass(frozen=True)
class Found:
    """A recurring run of our group in the backend. `digest` is what it was made from."""

    id: str
    name: str
    digest: str
    cron: str
    parameters: Parameters
    is_enabled: bool
    created_at: datetime
    is_ours: bool = True

    def difference(self, wanted: Wanted) -> str:
        """Why it is not the wanted one; empty when it is."""
        if self.digest != wanted.digest:
            return "recipe, cron, reason or account changed"
        if self.cron != wanted.cron:
            return f"its cron was changed by hand to {self.cron}"
        if dict(self.parameters) != dict(wanted.parameters):
            return "its parameters were changed by hand"
        return "" if self.is_ours else "its concurrency or catch-up was changed by hand"


@dataclass(frozen=True)
class Action:
    """One call. `id` is empty for one that is still to be made; `is_enabled` says how it is made."""

    kind: Kind
    name: str
    why: str
    id: str = ""
    is_enabled: bool = False


@dataclass(frozen=True)
class Applied:
    """What was done, and which deletions wait for the end of a run."""

    done: tuple[Action, ...]
    waiting: tuple[Action, ...]


def found_of(group: str, recurring_runs: Iterable[RecurringRun]) -> list[Found]:
    """Those that tidewheel made for this group; whatever others made is not looked at."""
    found = []
    for each in recurring_runs:
        marker = MARKER.search(each.description)
        if marker and marker[1] == group and each.title == f"tidewheel-{marker[2]}":
            state = (each.cron, each.parameters, each.is_enabled, each.created_at, each.is_ours)
            found.append(Found(each.id, marker[2], marker[3], *state))
    return found


def plan(wanted: Sequence[Wanted], found: Sequence[Found]) -> list[Action]:
    """Every call that makes the found ones the wanted ones, in the order in which they are safe."""
    names = {each.name for each in wanted}
    actions = [action for each in wanted for action in _plan_one(each, [other for other in found if other.name == each.name])]
    actions += [action for each in found if each.name not in names for action in _retire(each, "not in the file any more")]
    return [each for each in actions if each.kind is not Kind.DELETE] + [each for each in actions if each.kind is Kind.DELETE]


def _plan_one(wanted: Wanted, found: Sequence[Found]) -> list[Action]:
    """First the wanted one is there and enabled, then the others are not."""
    right = sorted(
        (each for each in found if not each.difference(wanted)),
        key=lambda each: (not each.is_enabled, each.created_at, each.id),
    )
    others = [each for each in found if each not in right[:1]]
    actions = []
    if not right:
        why = "changed" if others else "new"
        is_switch = any(each.is_enabled for each in others)
        actions.append(Action(Kind.CREATE, wanted.name, why, is_enabled=wanted.is_enabled and not is_switch))
        if wanted.is_enabled and is_switch:
            actions.append(Action(Kind.ENABLE, wanted.name, "takes over"))
    elif wanted.is_enabled and not right[0].is_enabled:
        why = "takes over" if any(each.is_enabled for each in others) else "the file enables it"
        actions.append(Action(Kind.ENABLE, wanted.name, why, right[0].id))
    elif right[0].is_enabled and not wanted.is_enabled:
        actions.append(Action(Kind.DISABLE, wanted.name, "the file disables it", right[0].id))
    for each in others:
        actions += _retire(each, each.difference(wanted) or "there are two of it")
    return actions


def _retire(found: Found, why: str) -> list[Action]:
    """Disabled now and deleted by a later apply: this one cannot know yet whether a run began just before."""
    return [Action(Kind.DISABLE if found.is_enabled else Kind.DELETE, found.name, why, found.id)]


def apply(backend: Recurring, group: str, wanted: Sequence[Wanted], *, pause: Callable[[float], None] = time.sleep) -> Applied:
    """Make the backend's schedules of the group the wanted ones. Killed anywhere, the next call finishes it.

    Raises:
        TidewheelError: the backend refused a call or does not answer; what was done so far holds.
    """
    actions = plan(wanted, found_of(group, backend.recurring_runs()))
    making = _Making(backend, {each.name: each for each in wanted})
    done: list[Action] = []
    for action in actions:
        if action.kind is not Kind.DELETE:
            done.append(making.perform(action))
    deletions = [action for action in actions if action.kind is Kind.DELETE]
    if not deletions:
        return Applied(tuple(done), ())
    pause(SETTLING_SECONDS)
    busy = backend.in_flight()
    for action in deletions:
        if action.id not in busy:
            backend.delete_recurring_run(action.id)
            done.append(action)
    return Applied(tuple(done), tuple(action for action in deletions if action.id in busy))


class _Making:
    """Performs what is not a deletion: each pipeline is uploaded once, each experiment asked for once."""

    def __init__(self, backend: Recurring, wanted: dict[str, Wanted]) -> None:
        self._backend = backend
        self._wanted = wanted
        self._versions: dict[tuple[str, str], Version] = {}
        self._experiments: dict[str, str] = {}
        self._made: dict[str, str] = {}

    def perform(self, action: Action) -> Action:
        """The action with the id of what it made."""
        if action.kind is Kind.CREATE:
            made = self._create(self._wanted[action.name], action.is_enabled)
            self._made[action.name] = made
            return replace(action, id=made)
        action = action if action.id else replace(action, id=self._made[action.name])
        (self._backend.enable if action.kind is Kind.ENABLE else self._backend.disable)(action.id)
        return action

    def _create(self, wanted: Wanted, is_enabled: bool) -> str:
        key = (wanted.recipe, wanted.pipeline_digest)
        if key not in self._versions:
            self._versions[key] = self._backend.upload(wanted.recipe, wanted.pipeline)
        if wanted.recipe not in self._experiments:
            self._experiments[wanted.recipe] = self._backend.experiment(wanted.recipe)
        order = Order(
            title=wanted.title,
            description=wanted.description,
            version=self._versions[key],
            experiment_id=self._experiments[wanted.recipe],
            parameters=wanted.parameters,
            service_account=wanted.service_account,
        )
        return self._backend.create_recurring_run(order, wanted.cron, is_enabled=is_enabled)
