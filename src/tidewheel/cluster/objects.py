"""What a cluster has of runs: the Retrain, Jobs, RayJobs and pods of each, and the workload that production is served by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidewheel.cluster.api import Unseen, Why
from tidewheel.cluster.checks.waiting import unconfigured, without_image, without_node
from tidewheel.cluster.facts import IN_WORK
from tidewheel.cluster.reach import Objects, Reach, reach
from tidewheel.contracts import labels
from tidewheel.contracts.base import Contract
from tidewheel.contracts.target import ArgoTarget, DeploymentTarget, Target
from tidewheel.errors import RetryableError

OURS = ",".join("=".join(each) for each in labels.OURS.items())
RUN_LABELS = (labels.KUBEFLOW_RUN, labels.RUN)  # Kubeflow's, on what it makes, and that of what steps make
KINDS = {  # plural -> kind, where it is
    "retrains": ("Retrain", "/apis/tidewheel.dev/v1alpha1"),
    "jobs": ("Job", "/apis/batch/v1"),
    "rayjobs": ("RayJob", "/apis/ray.io/v1"),
    "pods": ("Pod", "/api/v1"),
}
SECONDS = 20.0  # for all questions
MOST = 100  # runs in one question: an address has its limits
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")  # what a label can be; a longer run id is on nothing


class Seen(Contract):
    """One object, and how it is, in words."""

    kind: str
    namespace: str
    name: str
    state: str


class OnCluster(Contract):
    """`runs`: run id -> its objects. `unseen`: what could not be looked at, and why."""

    context: str
    runs: dict[str, tuple[Seen, ...]]
    targets: tuple[Seen, ...]
    unseen: tuple[str, ...] = ()


def on_cluster(known: Sequence[str], targets: Mapping[str, Target], namespace: str) -> OnCluster:
    """Ask the cluster of the kubeconfig or of this pod.

    Args:
        known: ids of runs, the newest last; those whose pods are at work are shown beside them.
        targets: where the production of a recipe is served.
        namespace: where runs are, for an account that may not look at all; empty: that of the context.

    Raises:
        ConfigError: no kubeconfig.
        RetryableError: it does not answer.
    """
    found = reach(SECONDS, namespace)
    if found is None:
        raise RetryableError(
            "cluster: the kubeconfig's credential plugin does not end; kubectl version hangs at the same place"
        )
    place, within = found
    return gathered(within, place.context, known, targets)


def gathered(within: Reach, context: str, known: Sequence[str], targets: Mapping[str, Target]) -> OnCluster:
    """One question a kind and label, however many runs there are; what this account may not see is said.

    Raises:
        RetryableError: the API server does not answer.
    """
    at_work = within.listed("/api/v1", "pods", labelSelector=OURS, fieldSelector=IN_WORK)
    if isinstance(at_work, Unseen) and at_work.why is not Why.FORBIDDEN:
        raise RetryableError(f"context {context}: {at_work.words}; tidewheel doctor --cluster says more")
    run_ids = [run_id for run_id in dict.fromkeys([*map(_run_of, _seen(at_work)), *reversed(known)]) if LABEL.fullmatch(run_id)]
    runs: dict[str, list[Seen]] = {run_id: [] for run_id in run_ids[:MOST]}
    unseen = [f"objects of {len(run_ids) - MOST} older runs: {MOST} are asked for at once"] if len(run_ids) > MOST else []
    for plural, (kind, group) in KINDS.items():
        answers = [_of_runs(within, group, plural, label, runs) for label in RUN_LABELS] if runs else []
        for each in {each["metadata"]["uid"]: each for answer in answers for each in _seen(answer)}.values():
            runs.setdefault(_run_of(each), []).append(_shown(kind, each))
        why = next((answer for answer in answers if isinstance(answer, Unseen)), None)
        if why is not None and why.why is not Why.ABSENT:  # of a kind that is not installed there is nothing
            unseen.append(f"{plural}: {why.words}")
    served = [
        _target(within, name, target) for name, target in targets.items() if isinstance(target, ArgoTarget | DeploymentTarget)
    ]
    shown = {run_id: tuple(sorted(objects, key=_order)) for run_id, objects in runs.items() if objects}
    return OnCluster(context=context, runs=shown, targets=tuple(served), unseen=tuple(unseen))


def _of_runs(within: Reach, group: str, plural: str, label: str, run_ids: Iterable[str]) -> Objects | Unseen:
    return within.listed(group, plural, labelSelector=f"{label} in ({','.join(run_ids)})")


def _seen(answer: Objects | Unseen) -> Objects:
    return [] if isinstance(answer, Unseen) else answer


def _run_of(found: Mapping[str, Any]) -> str:
    labels = found["metadata"].get("labels") or {}
    return next((labels[label] for label in RUN_LABELS if label in labels), "")


def _order(seen: Seen) -> tuple[int, str]:
    return [kind for kind, _ in KINDS.values()].index(seen.kind), seen.name


def _shown(kind: str, found: Mapping[str, Any]) -> Seen:
    metadata = found["metadata"]
    return Seen(kind=kind, namespace=metadata.get("namespace", ""), name=metadata["name"], state=STATES[kind](found))


def _pod(found: Mapping[str, Any]) -> str:
    step = (found["metadata"].get("labels") or {}).get("tidewheel/step", "")
    held = next((finding.found for finding in (*without_image(found), *unconfigured(found), *without_node(found))), "")
    phase = found.get("status", {}).get("phase", "Unknown")
    return f"{f'{step} ' if step else ''}{phase}{f', {held}' if held and phase == 'Pending' else ''}"


def _job(found: Mapping[str, Any]) -> str:
    status = found.get("status") or {}
    ended = next((each["type"] for each in status.get("conditions") or () if each["status"] == "True"), "")
    return ended or f"{status.get('active', 0)} active"


def _ray_job(found: Mapping[str, Any]) -> str:
    status = found.get("status") or {}
    return " ".join(filter(None, (status.get("jobDeploymentStatus"), status.get("jobStatus")))) or "new"


def _retrain(found: Mapping[str, Any]) -> str:
    status = found.get("status") or {}
    return ", ".join(filter(None, (status.get("outcome"), status.get("step"), status.get("verdict")))) or "new"


STATES = {"Pod": _pod, "Job": _job, "RayJob": _ray_job, "Retrain": _retrain}


def _target(within: Reach, recipe: str, target: ArgoTarget | DeploymentTarget) -> Seen:
    is_rollout = isinstance(target, ArgoTarget)
    group, plural = ("argoproj.io/v1alpha1", "rollouts") if is_rollout else ("apps/v1", "deployments")
    found = within.api.ask(f"/apis/{group}/namespaces/{target.namespace}/{plural}/{target.name}")
    if isinstance(found, Unseen):
        state = f"not seen: {found.words}"
    else:
        status, wanted = found.get("status") or {}, found["spec"].get("replicas", 1)
        phase = f"{status['phase']}, " if status.get("phase") else ""
        state = f"{phase}{status.get('readyReplicas', 0)} of {wanted} pods ready, serves {recipe}"
    return Seen(kind="Rollout" if is_rollout else "Deployment", namespace=target.namespace, name=target.name, state=state)
