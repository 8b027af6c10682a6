"""What holds after the last decision, in one record for people and for other systems: a projection of the ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.retraining import Retraining

STATES = "state"  # folder of the records in the store, one record a recipe


class Served(Contract):
    """What whoever serves or calls production depends on, from its bundle's manifest."""

    feature_digest: str
    features: tuple[str, ...]  # the allowlist: what the bundle takes, and nothing else
    labels: tuple[str, ...]
    calibrators: dict[str, str]  # model of the bundle -> sha256 of its calibrators


class ReleaseState(Contract):
    """`number` and `time` are those of the ledger entry it follows from.

    `served` is null before the first release, and where the store has lost the manifest of production. `teachers` have nothing
    against them in the ledger, newest first; there are none while retraining is re-anchored. `not_teaching` says why the other
    bundles that had traffic teach nobody.
    """

    schema_: Literal["tidewheel/state/v1"] = Field(default="tidewheel/state/v1", alias="schema")
    recipe: str
    number: int = Field(ge=1)
    time: AwareDatetime
    production: str | None
    previous: str | None
    served: Served | None
    teachers: tuple[str, ...]
    not_teaching: dict[str, str]
    retraining: Retraining


def name_of(recipe: str) -> str:
    """Name of the record in the store."""
    return f"{STATES}/{recipe}.json"
