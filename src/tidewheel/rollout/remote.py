"""A canary whose servers somebody else runs, and whose steps somebody else takes: each is judged when it is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import DeployConfig, LabelConfig
from tidewheel.contracts.rollout import CanaryRecord, CanaryResult
from tidewheel.rollout.canary import Canary
from tidewheel.rollout.controller import JOURNALS, Controller, Journal
from tidewheel.rollout.plan import Arm
from tidewheel.rollout.router import Server, routing
from tidewheel.rollout.traffic import Traffic
from tidewheel.store import Store
from tidewheel.store.records import read_all


def journal_name(canary: str, revision: str) -> str:
    """One journal a canary and revision of the pods: the same bundle in other pods is another thing to judge."""
    return f"{canary}-{revision}"


def lead_step(
    number: int,
    config: DeployConfig,
    labels: Sequence[LabelConfig],
    servers: Mapping[Arm, Server],
    traffic: Traffic,
    journal: Journal,
    progress: Progress = silent,
) -> tuple[CanaryResult, bool]:
    """Lead the canary until step `number` (from 1) has ended, or the canary has; what was seen, and whether it has.

    A step that nobody was asked about before is led first. What the journal holds counts: asked again, the same is said.
    One request is asked at a time: where the candidate has fewer pods than production, several would wait for each other there,
    and the latency found would be the judge's own doing.

    Raises:
        ContractError: the journal is damaged.
        RetryableError: another controller took the lead.
    """
    canary = Canary(config, has_control=True, is_closed_loop=traffic.is_closed_loop)
    controller = Controller(canary, journal, progress)
    if not controller.has_ended and len(canary.result().steps) < number:
        with routing(config, labels, servers, traffic, senders=1) as router:
            controller.resume(router)
            while not controller.has_ended and len(canary.result().steps) < number:
                controller.advance(router)
    return canary.result(), controller.has_ended


def seen(
    store: Store, journal: str, config: DeployConfig, is_closed_loop: bool, has_control: bool = True
) -> tuple[CanaryResult, bool]:
    """What a canary's journal holds, and whether it has ended; whoever leads it goes on leading.

    Raises:
        ContractError: the journal is damaged.
    """
    canary = Canary(config, has_control=has_control, is_closed_loop=is_closed_loop)
    for record in read_all(store, f"{JOURNALS}/{journal}", CanaryRecord, "canary"):
        if record.batch is not None and canary.step is not None:
            canary.add(record.batch)
    return canary.result(), canary.step is None
