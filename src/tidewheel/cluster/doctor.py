"""One look at a cluster that ends within a minute, whatever the cluster does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from tidewheel.cluster.api import Unseen
from tidewheel.cluster.checks import findings
from tidewheel.cluster.checks.contact import contact
from tidewheel.cluster.connection import connect
from tidewheel.cluster.endpoints import ENDPOINTS, Endpoint, endpoint, status_of
from tidewheel.cluster.facts import Facts, first_contact, look
from tidewheel.cluster.finding import Finding, needed
from tidewheel.cluster.watched import Watched
from tidewheel.contracts.base import Contract
from tidewheel.contracts.placement import Placement
from tidewheel.contracts.recipe import Recipe
from tidewheel.errors import ConfigError

SECONDS = 30.0  # of all questions together
GRACE_SECONDS = 10.0  # for one that does not end by itself: a plugin of the kubeconfig, a name that is being resolved
NAMESPACE = "tidewheel"  # where neither the command nor the context names one


class Asked(Contract):
    """A right, and whether this account has it; None where it could not be asked."""

    use: str
    verb: str
    resource: str
    namespace: str
    is_allowed: bool | None


class Examination(Contract):
    """Everything that `doctor --cluster` says."""

    context: str
    namespace: str
    checks: tuple[Finding, ...]
    rights: tuple[Asked, ...] = ()

    @property
    def is_in_the_way(self) -> bool:
        return any(finding.is_in_the_way for finding in self.checks)


def examine(
    namespace: str,
    recipe: Recipe | None,
    environment: Mapping[str, str],
    seconds: float = SECONDS,
    grace_seconds: float = GRACE_SECONDS,
) -> Examination:
    """Ask cluster and endpoints at the same time. Never raises for what they answer, and ends within a minute.

    Args:
        namespace: of runs; empty: that of the context.
        recipe: whose target and placement are asked for; None: no target, and what a recipe asks for that says nothing.
        seconds: for all questions together.
        grace_seconds: after that, for one that does not end by itself.
    """
    deadline = time.monotonic() + seconds
    of_cluster = Watched(lambda: _cluster(namespace, recipe, deadline))
    of_endpoints = [Watched(partial(endpoint, wanted, environment, status_of)) for wanted in ENDPOINTS]
    until = deadline + grace_seconds
    seen = of_cluster.result(until - time.monotonic()) or _stuck(namespace, seconds + grace_seconds)
    reached = [
        each.result(until - time.monotonic()) or _slow(wanted, seconds + grace_seconds)
        for wanted, each in zip(ENDPOINTS, of_endpoints, strict=True)
    ]
    return seen.model_copy(update={"checks": (*seen.checks, *reached)})


def _cluster(namespace: str, recipe: Recipe | None, deadline: float) -> Examination:
    try:
        place, api = connect(deadline)
    except ConfigError as error:
        remedy = "name a kubeconfig with KUBECONFIG, and a context of it with kubectl config use-context"
        fault = needed("api server", str(error), "a cluster and credentials for it", remedy)
        return Examination(context="", namespace=namespace, checks=(fault,))
    chosen = namespace or place.namespace or NAMESPACE
    version, identity = first_contact(api)
    found_first = contact(place, version, identity)
    if any(finding.is_in_the_way for finding in found_first):
        return Examination(context=place.context, namespace=chosen, checks=tuple(found_first))
    target, placement = (recipe.deploy.target, recipe.placement) if recipe is not None else (None, Placement())
    num_workers = recipe.train.num_workers if recipe is not None else 0
    facts = look(api, chosen, target, placement, num_workers, version, identity)
    found = (*found_first, *findings(facts))
    return Examination(context=place.context, namespace=chosen, checks=found, rights=asked(facts))


def asked(facts: Facts) -> tuple[Asked, ...]:
    """The table of verbs and resources."""
    return tuple(
        Asked(
            use=right.use,
            verb=right.verb,
            resource=right.resource,
            namespace=right.namespace,
            is_allowed=None if isinstance(answer, Unseen) else answer,
        )
        for right, answer in facts.rights.items()
    )


def _stuck(namespace: str, seconds: float) -> Examination:
    found = needed(
        "api server",
        f"no end after {seconds:.0f} s: the kubeconfig's credential plugin, a name that is resolved or an answer hangs",
        "answers within seconds",
        "run kubectl version: it hangs at the same place; log in again, or choose another context",
    )
    return Examination(context="", namespace=namespace, checks=(found,))


def _slow(wanted: Endpoint, seconds: float) -> Finding:
    found = f"no answer of what {wanted.variable} names after {seconds:.0f} s"
    return needed(wanted.name, found, "an answer within seconds", f"check {wanted.variable}, and how its name is resolved")
