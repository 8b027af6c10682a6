"""Every bad case gives one finding with its object, its rule and its remedy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.unit.cluster.well import (
    CLAIM_EVENTS,
    CLAIMS,
    CLUSTER_QUEUE,
    CORE,
    DEFAULT,
    LASTING,
    LOCAL_QUEUES,
    PODS,
    ROLLOUT,
    STORAGE_CLASSES,
    WELL,
    claim,
    controller,
    deployment,
    event,
    limits,
    local_queue,
    quota,
    resources,
    seen,
    several,
    sick,
)
from tidewheel.cluster.api import Answer, Unseen, Why
from tidewheel.cluster.checks import findings
from tidewheel.cluster.finding import Severity
from tidewheel.contracts.placement import Executors, Placement, PodPlacement, StepPlacement
from tidewheel.contracts.target import Target

NEEDED, OPTIONAL = Severity.NEEDED, Severity.OPTIONAL
ABSENT = Unseen(Why.ABSENT, "not found")
FORBIDDEN = Unseen(Why.FORBIDDEN, 'User "ada" cannot list it')
LABEL = "pod-security.kubernetes.io/enforce"
NO_IMAGE = {
    "metadata": {"name": "step"},
    "status": {
        "containerStatuses": [
            {
                "name": "main",
                "image": "registry.local/nobody:1",
                "state": {"waiting": {"reason": "ErrImagePull", "message": "manifest\nunknown"}},
            }
        ]
    },
}
UNSCHEDULED = {
    "metadata": {"name": "worker"},
    "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes have a GPU"}]},
}


@dataclass(frozen=True)
class Case:
    """One thing that is not well: the answers that differ, and what is said of it."""

    changed: dict[str, Answer]
    want_name: str
    want_severity: Severity
    want_found: str
    want_remedy: str
    target: Target | None = None
    placement: Placement = DEFAULT


def _argo_without(variable: str) -> dict[str, Answer]:
    env = {name: value for name, value in LASTING.items() if name != variable}
    return {controller("workflow-controller"): several(deployment("argo", "registry.local/workflows:v3.6.7", env=env))}


CASES = {
    "Kubeflow Pipelines runs nowhere": Case(
        {controller("ml-pipeline"): several()},
        "kubeflow-pipelines",
        NEEDED,
        "no Deployment ml-pipeline in any namespace: runs cannot be submitted",
        "install kubeflow-pipelines 2.14.3 or newer (manifests/versions.toml)",
    ),
    "the CRD of Argo Workflows is missing": Case(
        {"/apis/argoproj.io/v1alpha1": resources("rollouts")},
        "argo-workflows",
        NEEDED,
        "the CRD workflows.argoproj.io in version v1alpha1 is not there",
        "install argo-workflows",
    ),
    "the CRD of a Rollout is missing, and nobody needs it": Case(
        {"/apis/argoproj.io/v1alpha1": resources("workflows")},
        "argo-rollouts",
        OPTIONAL,
        "rollouts.argoproj.io in version v1alpha1 is not there: no deploy.target of kind argo",
        "install argo-rollouts 1.9.1",
    ),
    "the CRD of a Rollout is missing, and the recipe's production is one": Case(
        {"/apis/argoproj.io/v1alpha1": resources("workflows")},
        "argo-rollouts",
        NEEDED,
        "rollouts.argoproj.io in version v1alpha1 is not there",
        "install argo-rollouts 1.9.1",
        ROLLOUT,
    ),
    "KubeRay serves another version of its CRD": Case(
        {"/apis/ray.io/v1": ABSENT},
        "kuberay",
        OPTIONAL,
        "rayjobs.ray.io in version v1 is not there: train has no workers of its own",
        "install kuberay 1.6.2",
    ),
    "the CRD of runs is missing": Case(
        {"/apis/tidewheel.dev/v1alpha1": ABSENT},
        "retrains",
        OPTIONAL,
        "the CRD retrains.tidewheel.dev in version v1alpha1 is not there: no kubectl get retrains",
        "kubectl apply --kustomize manifests/crds",
    ),
    "a controller is older than what was tried": Case(
        {controller("kueue-controller-manager"): several(deployment("kueue", "registry.local/kueue:v0.9.4"))},
        "kueue",
        OPTIONAL,
        "runs 0.9.4",
        "upgrade it: manifests/versions.toml",
    ),
    "the controller that the recipe needs is older than what was tried": Case(
        {controller("argo-rollouts"): several(deployment("argo-rollouts", "registry.local/argo-rollouts:v1.8.3"))},
        "argo-rollouts",
        NEEDED,
        "runs 1.8.3",
        "upgrade it",
        ROLLOUT,
    ),
    "a controller's pods are not ready": Case(
        {controller("workflow-controller"): several(deployment("argo", "registry.local/workflows:v3.6.7", 0, LASTING))},
        "argo-workflows",
        NEEDED,
        "in namespace argo-system has no ready pod",
        "kubectl --namespace argo-system describe deployment workflow-controller",
    ),
    "a step whose pod is taken away is not tried again": Case(
        _argo_without("ARGO_POD_STATUS_CAPTURE_FINALIZER"),
        "lost pods",
        OPTIONAL,
        "a step whose pod is deleted ends the run: argo in namespace argo-system",
        "kubectl --namespace argo-system set env deployment/argo ARGO_POD_STATUS_CAPTURE_FINALIZER=true",
    ),
    "a pod that a webhook does not let in is not tried again": Case(
        _argo_without("TRANSIENT_ERROR_PATTERN"),
        "refused pods",
        OPTIONAL,
        "a webhook that is away for a second ends runs: argo in namespace argo-system",
        "kubectl --namespace argo-system set env deployment/argo TRANSIENT_ERROR_PATTERN='failed calling webhook'",
    ),
    "a controller runs under another name": Case(
        {controller("kuberay-operator"): several()},
        "kuberay",
        OPTIONAL,
        "the CRD rayjobs.ray.io is there; no Deployment kuberay-operator",
        "unless its controller runs under another name",
    ),
    "a controller's image is named by digest alone": Case(
        {controller("kuberay-operator"): several(deployment("kuberay", "registry.local/operator@sha256:12.34"))},
        "kuberay",
        OPTIONAL,
        "its image names no version",
        "compare its image",
    ),
    "an account may not see controllers": Case(
        {controller("argo-rollouts"): FORBIDDEN},
        "argo-rollouts",
        OPTIONAL,
        "the CRD rollouts.argoproj.io is there; its controller is not to be seen",
        "let an administrator",
    ),
    "the namespace is not there": Case(
        {CORE: ABSENT, f"{CORE}/resourcequotas": ABSENT, PODS: ABSENT},
        "namespace",
        NEEDED,
        "namespace runs is not there",
        "--namespace, or kubectl apply --kustomize",
    ),
    "the namespace is on its way out": Case(
        {CORE: {"metadata": {}, "status": {"phase": "Terminating"}}},
        "namespace",
        NEEDED,
        "is being deleted",
        "wait until it is gone",
    ),
    "pod security refuses the backend's tasks": Case(
        {CORE: {"metadata": {"labels": {LABEL: "restricted"}}}},
        "pod security",
        NEEDED,
        "enforces restricted, which refuses task pods of Kubeflow Pipelines 2.14.3",
        "components/backend-2.14",
    ),
    "accounts are missing": Case(
        {f"{CORE}/serviceaccounts": several({"metadata": {"name": "default"}})},
        "service accounts",
        NEEDED,
        "tidewheel-step, tidewheel-ingest",
        "kubectl apply --kustomize",
    ),
    "the overlay was not filled in": Case(
        {f"{CORE}/configmaps/tidewheel": {"data": {"TIDEWHEEL_STORE": "unset://x", "MLFLOW_TRACKING_URI": "https://m"}}},
        "settings",
        NEEDED,
        "does not set TIDEWHEEL_STORE",
        "set them in the overlay",
    ),
    "there are no settings": Case(
        {f"{CORE}/configmaps/tidewheel": ABSENT}, "settings", NEEDED, "ConfigMap tidewheel in namespace runs", "kubectl apply"
    ),
    "a quota is too small for ever": Case(
        {f"{CORE}/resourcequotas": quota({"requests.memory": "500Mi"}, {})},
        "quota runs",
        NEEDED,
        "requests.memory is 500Mi < 4Gi of train: it will never fit",
        "kubectl --namespace runs edit resourcequota runs",
    ),
    "a quota is used up for now": Case(
        {f"{CORE}/resourcequotas": quota({"requests.cpu": "4"}, {"requests.cpu": "3500m"})},
        "quota runs",
        OPTIONAL,
        "3500m of 4 requests.cpu are used, 1 of ingest wanted: it does not fit now",
        "wait until other pods",
    ),
    "a quota has no GPU for the step that wants two": Case(
        {f"{CORE}/resourcequotas": quota({"requests.nvidia.com/gpu": "1"}, {})},
        "quota runs",
        NEEDED,
        "requests.nvidia.com/gpu is 1 < 2 of train: it will never fit",
        "or ask for less in placement",
        placement=Placement(train=StepPlacement(gpus=2)),
    ),
    "a quota has less than one step has in the recipe": Case(
        {f"{CORE}/resourcequotas": quota({"limits.memory": "2500Mi"}, {})},
        "quota runs",
        NEEDED,
        "limits.memory is 2500Mi < 3Gi of evaluate",
        "kubectl --namespace runs edit resourcequota runs",
        placement=Placement(train=StepPlacement(), distill=StepPlacement(), evaluate=StepPlacement(memory="3Gi")),
    ),
    "a quota has no room for a step and its workers": Case(
        {f"{CORE}/resourcequotas": quota({"requests.memory": "12Gi", "requests.nvidia.com/gpu": "1", "pods": "4"}, {})},
        "quota runs",
        NEEDED,
        "pods is 4 < 5 of train with 3 pods that it starts; "
        "requests.memory is 12Gi < 13312Mi of train with 3 pods that it starts; "
        "requests.nvidia.com/gpu is 1 < 2 of train with 3 pods that it starts: it will never fit",
        "or ask for less in placement",
        placement=Placement(train=StepPlacement(memory="2Gi"), workers=PodPlacement(memory="4Gi", gpus=1), volume="home"),
    ),
    "a quota has no room for a step and one executor": Case(
        {f"{CORE}/resourcequotas": quota({"requests.cpu": "4500m"}, {})},
        "quota runs",
        NEEDED,
        "requests.cpu is 4500m < 5000m of ingest with 1 pod that it starts",
        "or ask for less in placement",
        placement=Placement(executors=Executors(count=8, cpu="4"), volume="home"),
    ),
    "no pod may be as large as an executor": Case(
        {f"{CORE}/limitranges": limits(Container={"memory": "6Gi"})},
        "limits runs",
        NEEDED,
        "Container may have at most 6Gi memory < 8Gi of an executor of ingest: it will never start",
        "or ask for less in placement",
        placement=Placement(executors=Executors(memory="8Gi"), volume="home"),
    ),
    "a step names a queue that is not there": Case(
        {},
        "queue h100",
        NEEDED,
        "no LocalQueue of this name in namespace runs; used by train, distill",
        "correct placement in the recipe",
        placement=Placement(train=StepPlacement(queue="h100"), distill=StepPlacement(queue="h100")),
    ),
    "a range of limits does not let a step in": Case(
        {f"{CORE}/limitranges": limits(Container={"memory": "256Mi", "cpu": "2"})},
        "limits runs",
        NEEDED,
        "Container may have at most 256Mi memory < 4Gi of train: it will never start",
        "kubectl --namespace runs edit limitrange runs",
    ),
    "no queue is in the namespace": Case({LOCAL_QUEUES: several()}, "queues", OPTIONAL, "no LocalQueue", "helm/gpu-node-pools"),
    "a queue leads nowhere": Case(
        {CLUSTER_QUEUE: ABSENT}, "queue gpus", NEEDED, "its ClusterQueue pool is not there", "helm/gpu-node-pools"
    ),
    "a cluster's queue is stopped": Case(
        {CLUSTER_QUEUE: {"spec": {"stopPolicy": "Hold"}}},
        "queue gpus",
        NEEDED,
        "not active: its stopPolicy is Hold",
        "kubectl describe clusterqueue pool",
    ),
    "a queue is not active": Case(
        {LOCAL_QUEUES: local_queue(conditions=[{"type": "Active", "status": "False", "message": "flavor a100 is missing"}])},
        "queue gpus",
        NEEDED,
        "flavor a100 is missing",
        "kubectl --namespace runs describe localqueue gpus",
    ),
    "no class of storage is the default": Case(
        {STORAGE_CLASSES: several({"metadata": {"name": "slow"}})},
        "storage",
        OPTIONAL,
        "no StorageClass is the default (slow)",
        "kubectl annotate storageclass",
    ),
    "a volume is never bound": Case(
        {
            CLAIMS: several(claim("home", storage_class="gold"), claim("bound", "Bound")),
            CLAIM_EVENTS: several(
                event("home", "ProvisioningFailed", 'storageclass "gold" not found', "2026-01-05T00:01:00Z"),
                event("home", "WaitForFirstConsumer", "waiting", "2026-01-05T00:00:00Z"),
            ),
        },
        "volume claim home",
        NEEDED,
        'is Pending with StorageClass gold: ProvisioningFailed: storageclass "gold" not found',
        "kubectl --namespace runs describe pvc home",
    ),
    "an image is not there": Case(
        {PODS: several(NO_IMAGE)},
        "images",
        NEEDED,
        "pod step, container main: registry.local/nobody:1 ErrImagePull: manifest unknown",
        "push it (make images",
    ),
    "a pod finds no node": Case(
        {PODS: several(UNSCHEDULED)}, "nodes", OPTIONAL, "pod worker is not scheduled: 0/1 nodes have a GPU", "add nodes"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_bad_case_gives_its_remedy(case: Case) -> None:
    (finding,) = sick(case.changed, case.target, placement=case.placement)

    assert (finding.name, finding.severity) == (case.want_name, case.want_severity)
    assert case.want_found in finding.found
    assert case.want_remedy in finding.remedy
    assert finding.expected


@pytest.mark.parametrize("target", [None, ROLLOUT])
def test_nothing_is_said_of_a_cluster_where_all_is_well(target: Target | None) -> None:
    assert sick(target=target) == []


@pytest.mark.parametrize("why", [Why.FORBIDDEN, Why.SILENT, Why.STRANGE, Why.LATE])
@pytest.mark.parametrize("path", sorted(WELL.keys() - {CLUSTER_QUEUE}))
def test_what_cannot_be_seen_is_said_and_never_passes_for_well(path: str, why: Why) -> None:
    unseen = sick({path: Unseen(why, "for a reason")})

    assert unseen
    assert all("for a reason" in finding.found for finding in unseen)
    assert all(finding.is_in_the_way == (why is not Why.FORBIDDEN) for finding in unseen)


def test_a_cluster_queue_that_may_not_be_seen_is_judged_by_its_local_queue() -> None:
    inactive = local_queue(conditions=[{"type": "Active", "status": "False", "message": "ClusterQueue is stopped"}])

    assert sick({CLUSTER_QUEUE: FORBIDDEN}) == []
    assert "ClusterQueue is stopped" in sick({CLUSTER_QUEUE: FORBIDDEN, LOCAL_QUEUES: inactive})[0].found


def test_an_older_kubernetes_is_not_in_the_way() -> None:
    (finding,) = [each for each in findings(replace(seen(), version={"gitVersion": "v1.30.2-eks"})) if not each.is_well]

    assert (finding.name, finding.severity) == ("kubernetes", OPTIONAL)
    assert finding.expected == "1.34.10 or newer"


def test_a_claim_that_waits_for_its_first_pod_is_well() -> None:
    changed = {CLAIMS: several(claim("home")), CLAIM_EVENTS: several(event("home", "WaitForFirstConsumer", "waiting"))}

    assert sick(changed) == []


def test_a_quota_of_some_pods_only_does_not_count() -> None:
    assert sick({f"{CORE}/resourcequotas": quota({"pods": "0"}, {}, scopes=["BestEffort"])}) == []


def test_what_is_in_a_namespace_that_is_not_there_is_not_talked_about() -> None:
    names = {finding.name for finding in findings(seen({CORE: ABSENT}))}

    assert names.isdisjoint({"quotas", "queues", "volumes", "images", "service accounts"})
