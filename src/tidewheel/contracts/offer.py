"""What a canary on a cluster is about: written once by `deploy`, read by whoever judges a step of it."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.evidence import Baseline
from tidewheel.contracts.steps import DeployPart

OFFERS = "offers"  # folder of the store


class CanaryOffer(Contract):
    """A candidate, what it is compared with, on which traffic and under which plan."""

    schema_: Literal["tidewheel/canary-offer/v1"] = Field(default="tidewheel/canary-offer/v1", alias="schema")
    part: DeployPart
    run_id: str
    window_end: AwareDatetime
    candidate: str
    baseline: Baseline
    evaluation: DatasetManifest  # replayed where the log is a recorded one
    reason: str

    @property
    def key(self) -> str:
        """`<recipe>/<digest>`: the same while the same is compared under the same plan and nothing else was decided."""
        plan = {
            "candidate": self.candidate,
            "production": self.baseline.production,
            "decided": self.baseline.ledger_number,
            "plan": self.part.model_dump(mode="json"),
            "window_end": self.window_end.isoformat(),
        }
        return f"{self.part.recipe}/{digest_of(plan)[:16]}"

    @property
    def name(self) -> str:
        return name_of(self.key)


def name_of(key: str) -> str:
    """Name of the offer in the store."""
    return f"{OFFERS}/{key}.json"
