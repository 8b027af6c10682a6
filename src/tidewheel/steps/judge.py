"""Judge: what the analysis of a rollout on a cluster asks at each of its steps. The canary's journal decides, whoever asks."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from tidewheel.contracts.ledger import production_after
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.verdict import Phase
from tidewheel.errors import ConfigError
from tidewheel.ranker.bundle import load_bundle
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.release import decided_by
from tidewheel.rollout import StoredJournal
from tidewheel.rollout.plan import Arm
from tidewheel.rollout.remote import journal_name, lead_step
from tidewheel.serving import RemoteServer
from tidewheel.steps.canary import decide, traffic_of
from tidewheel.steps.offers import offered
from tidewheel.store.home import Home


@dataclass(frozen=True)
class Asked:
    """One step of a canary: `canary` is the offer's key, `revision` the hash of the candidate's pods, `step` counts from 1."""

    canary: str
    revision: str
    step: int
    candidate_url: str
    production_url: str


def judge(home: Home, asked: Asked, progress: Progress = silent) -> CanaryResult:
    """Lead the canary until the asked step has ended. Once the whole canary has, the decision is written to the ledger, before
    the rollout hears of it: no pod gets further than the ledger says.

    Pods that change without a release (another image, more memory) are judged as well: the same bundle in both arms, and
    nothing is decided about it.

    Raises:
        ConfigError: there is no such canary, or the plan has no such step.
        ContractError: a bundle, the journal or the held-out rows are damaged.
        RetryableError: something else was decided since the offer, or another controller leads.
    """
    store = home.store()
    offer = offered(store, asked.canary)
    deploy = offer.part.deploy
    if not 1 <= asked.step <= len(deploy.steps):
        raise ConfigError(
            f"canary {asked.canary}: was asked about step {asked.step} of {len(deploy.steps)}; upgrade the chart with the "
            "values of tidewheel rollout plan --helm"
        )
    ledger = Ledger(store, offer.part.recipe)
    entries = ledger.entries()
    decided, serving = decided_by(entries, offer.run_id, offer.candidate), production_after(entries) or ""
    is_open = decided is None
    journal = journal_name(asked.canary, asked.revision)
    if decided is not None and decided.production == offer.candidate != serving:
        journal = f"{journal}-{serving[:12]}"  # it passed, and was taken back since: what it showed then lets nothing pass now
    arms = (offer.candidate, offer.baseline.production or "") if is_open else (serving, serving)
    candidate, production = (load_bundle(store, digest) for digest in arms)
    result, has_ended = lead_step(
        asked.step,
        deploy,
        offer.part.labels,
        {
            Arm.CANDIDATE: RemoteServer(asked.candidate_url, arms[0]),
            Arm.CONTROL: RemoteServer(asked.production_url, arms[1]),
        },
        traffic_of(offer, home, store, candidate, production),
        StoredJournal(store, journal, f"{socket.gethostname()}/{os.getpid()}"),
        progress,
    )
    if has_ended and is_open:
        decide(ledger, None, offer, candidate.manifest, result.verdict)
    return result


def phase_of(result: CanaryResult, step: int) -> Phase:
    """How a step ended; where the canary ended before it, as the canary did."""
    return result.steps[step - 1].phase if len(result.steps) >= step else result.verdict.phase
