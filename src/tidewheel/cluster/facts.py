"""What was seen of a cluster, as its API server gave it. Nothing here judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from tidewheel.cluster.api import Answer, Api, Unseen, items
from tidewheel.cluster.needs import WITH_USERS, Right, System, rights, systems
from tidewheel.contracts.placement import SETTINGS, Placement
from tidewheel.contracts.target import EmbeddedTarget, Target

MANY = 500  # objects of a kind that are looked at, at most
IN_WORK = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True)
class Facts:
    """`num_workers`: of the recipe's `train`. `resources`, `controllers`: by name of the system.

    `cluster_queues`: by name, of the local queues of the namespace.
    """

    namespace: str
    target: Target | None
    placement: Placement
    num_workers: int
    version: Answer
    identity: Answer
    about: Answer
    accounts: Answer
    settings: Answer
    quotas: Answer
    limits: Answer
    local_queues: Answer
    storage_classes: Answer
    claims: Answer
    claim_events: Answer
    pods: Answer
    has_users: bool
    resources: Mapping[str, Answer] = field(default_factory=dict)
    controllers: Mapping[str, Answer] = field(default_factory=dict)
    cluster_queues: Mapping[str, Answer] = field(default_factory=dict)
    rights: Mapping[Right, bool | Unseen] = field(default_factory=dict)


def first_contact(api: Api) -> tuple[Answer, Answer]:
    """(version, identity). The identity is absent where the API server is older than SelfSubjectReview."""
    version = api.ask("/version")
    if isinstance(version, Unseen):
        return version, version
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    return version, api.ask("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)


def look(
    api: Api,
    namespace: str,
    target: Target | None,
    placement: Placement,
    num_workers: int,
    version: Answer,
    identity: Answer,
) -> Facts:
    """Ask for everything else, in the order of its weight: what comes last is missing when the time is up."""
    within, core = f"/namespaces/{quote(namespace)}", f"/api/v1/namespaces/{quote(namespace)}"
    wanted = systems(target)
    resources = {each.name: api.ask(f"/apis/{each.group}/{each.version}") for each in wanted if each.group}
    has_users = _has(api, WITH_USERS)
    has_rayjobs = has_resource(resources["kuberay"], "rayjobs")
    about = api.ask(core)
    allowed = {right: _allowed(api, right) for right in rights(namespace, target, has_users, has_rayjobs)}
    has_queues = has_resource(resources["kueue"], "localqueues")
    queues = api.ask(f"/apis/kueue.x-k8s.io/v1beta2{within}/localqueues") if has_queues else resources["kueue"]
    claims = api.ask(listing(f"{core}/persistentvolumeclaims", limit=MANY))
    of_claims = listing(f"{core}/events", fieldSelector="involvedObject.kind=PersistentVolumeClaim", limit=MANY)
    return Facts(
        namespace=namespace,
        target=None if isinstance(target, EmbeddedTarget) else target,
        placement=placement,
        num_workers=num_workers,
        version=version,
        identity=identity,
        about=about,
        accounts=api.ask(f"{core}/serviceaccounts"),
        settings=api.ask(f"{core}/configmaps/{SETTINGS}"),
        quotas=api.ask(f"{core}/resourcequotas"),
        limits=api.ask(f"{core}/limitranges"),
        local_queues=queues,
        storage_classes=api.ask("/apis/storage.k8s.io/v1/storageclasses"),
        claims=claims,
        claim_events=api.ask(of_claims) if pending(claims) else {"items": []},
        pods=api.ask(listing(f"{core}/pods", fieldSelector=IN_WORK, limit=MANY)),
        has_users=has_users,
        resources=resources,
        controllers={each.name: _controller(api, each) for each in wanted if each.controller},
        cluster_queues={
            name: api.ask(f"/apis/kueue.x-k8s.io/v1beta2/clusterqueues/{quote(name)}")
            for name in sorted({queue["spec"].get("clusterQueue", "") for queue in items(queues)} - {""})
        },
        rights=allowed,
    )


def has_resource(answer: Answer, resource: str) -> bool:
    """Whether a discovery answer names it."""
    return not isinstance(answer, Unseen) and any(each["name"] == resource for each in answer.get("resources") or ())


def pending(claims: Answer) -> list[Mapping[str, object]]:
    return [claim for claim in items(claims) if claim.get("status", {}).get("phase") == "Pending"]


def _has(api: Api, path: str) -> bool:
    where, _, resource = path.rpartition("/")
    return has_resource(api.ask(where), resource)


def _controller(api: Api, system: System) -> Answer:
    return api.ask(listing("/apis/apps/v1/deployments", fieldSelector=f"metadata.name={system.controller}"))


def _allowed(api: Api, right: Right) -> bool | Unseen:
    kind, _, part = right.resource.partition("/")
    resource, _, group = kind.partition(".")
    asked = {"namespace": right.namespace, "verb": right.verb, "group": group, "resource": resource, "subresource": part}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    said = api.ask("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return said if isinstance(said, Unseen) else bool(said.get("status", {}).get("allowed"))


def listing(path: str, **query: str | int) -> str:
    return f"{path}?{urlencode(query)}"
