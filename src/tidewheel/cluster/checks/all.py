"""Every check, in the order in which a reader wants them."""

from __future__ import annotations

from tidewheel.cluster.api import Unseen, Why
from tidewheel.cluster.checks.namespace import namespace
from tidewheel.cluster.checks.queues import queues
from tidewheel.cluster.checks.rights import rights
from tidewheel.cluster.checks.room import room
from tidewheel.cluster.checks.storage import storage, volumes
from tidewheel.cluster.checks.systems import installed, kubernetes, lasting
from tidewheel.cluster.checks.waiting import containers, images, unscheduled
from tidewheel.cluster.facts import Facts
from tidewheel.cluster.finding import Finding


def findings(facts: Facts) -> list[Finding]:
    """Never raises on what an API server says, never asks it."""
    everywhere = [kubernetes(facts), *installed(facts), *lasting(facts), *namespace(facts), *rights(facts), storage(facts)]
    if isinstance(facts.about, Unseen) and facts.about.why is Why.ABSENT:
        return everywhere  # nothing can be in a namespace that is not there
    return [
        *everywhere,
        *room(facts),
        *queues(facts),
        *volumes(facts),
        *images(facts),
        *containers(facts),
        *unscheduled(facts),
    ]
