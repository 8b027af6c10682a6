"""Which rung of memory fits: what bounds it, and the one error where nothing higher is left. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidewheel.contracts.memory import highest
from tidewheel.contracts.placement import PodPlacement, bytes_of
from tidewheel.errors import ConfigError, RetryableError

MIB = 2**20


@dataclass(frozen=True)
class Bound:
    """The most memory that a pod may have, and by whom. is_for_now: others use the rest, and may give it back."""

    limit_bytes: int
    whose: str
    remedy: str
    is_for_now: bool = False


def bound_of(name: str, asked: PodPlacement) -> Bound:
    """What the recipe itself says of `placement.<name>`."""
    key = "max_memory" if asked.max_memory else "four times memory, for want of max_memory,"
    return Bound(highest(asked), f"{key} of placement.{name}", f"raise placement.{name}.max_memory")


def fit(name: str, wanted_bytes: int, killed_bytes: int, asked: PodPlacement, bounds: Sequence[Bound]) -> int:
    """What a pod gets of the rung that it wants: never less than `memory`, of which it is made, and whole MiB.

    Args:
        name: of the step or kind of pod, below `placement`.
        killed_bytes: what the try before this one was killed with; 0: it was not.

    Raises:
        ConfigError: it was killed with as much as it may ever have.
        RetryableError: the same, while others use what it could have.
    """
    least = min((bound_of(name, asked), *bounds), key=lambda bound: (bound.limit_bytes, bound.is_for_now))
    given = max(bytes_of(asked.memory), min(wanted_bytes, least.limit_bytes // MIB * MIB))
    if given <= killed_bytes:
        said = f"placement.{name}: {shown(killed_bytes)} of memory was not enough, and it may not have more than "
        error = RetryableError if least.is_for_now else ConfigError
        raise error(f"{said}{shown(least.limit_bytes)}: {least.whose}; {least.remedy}, or lower what it works on at once")
    return given


def shown(amount: int) -> str:
    """`1.5Gi`, `192Mi`: as Kubernetes and recipes write it."""
    if amount >= 1024 * MIB:
        return f"{amount / (1024 * MIB):.4g}Gi"
    return f"{amount / MIB:.4g}Mi"


def quantity(amount: int) -> str:
    """The same for the API server, exactly."""
    return f"{amount // MIB}Mi"
