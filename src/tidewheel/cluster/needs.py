"""What tidewheel needs of a cluster, as `doctor --cluster` asks for it. Tests hold it against `manifests/`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidewheel.cluster.finding import Severity
from tidewheel.contracts.target import ArgoTarget, DeploymentTarget, Target

KUBERNETES = "1.34.10"  # the oldest that was tried
ACCOUNTS = tuple(f"tidewheel-{name}" for name in ("step", "ingest", "sample", "train", "deploy", "conclude", "run"))
UNSET = "unset://"  # how the value begins that an overlay has to replace
WITH_USERS = "/apis/kubeflow.org/v1/profiles"  # of a Kubeflow that asks what its users may do


@dataclass(frozen=True)
class System:
    """Something that is installed once a cluster. `resource` of `group/version` is its CRD, `controller` its usual Deployment.

    `oldest`: of `manifests/versions.toml`; empty where nothing is pinned. `without`: what does not work without it.
    """

    name: str
    controller: str
    without: str
    group: str = ""
    version: str = ""
    resource: str = ""
    oldest: str = ""
    severity: Severity = Severity.OPTIONAL
    install: str = ""  # how, where it is ours


@dataclass(frozen=True)
class Right:
    """`verb` on `resource` (`rollouts.argoproj.io/status`) in a namespace, which a verb of the command line uses."""

    use: str
    verb: str
    resource: str
    namespace: str


def systems(target: Target | None) -> tuple[System, ...]:
    """In the order in which they are reported; what the recipe's target is made of is needed."""
    rollouts = Severity.NEEDED if isinstance(target, ArgoTarget) else Severity.OPTIONAL
    ours = ("tidewheel.dev", "v1alpha1")
    argo, kubeflow = ("argoproj.io", "v1alpha1"), "runs cannot be submitted to this cluster"
    return (
        System("kubeflow-pipelines", "ml-pipeline", kubeflow, oldest="2.14.3", severity=Severity.NEEDED),
        System("argo-workflows", "workflow-controller", kubeflow, *argo, "workflows", severity=Severity.NEEDED),
        System("argo-rollouts", "argo-rollouts", "no deploy.target of kind argo", *argo, "rollouts", "1.9.1", rollouts),
        System("kueue", "kueue-controller-manager", "runs do not queue", "kueue.x-k8s.io", "v1beta2", "localqueues", "0.19.2"),
        System("kuberay", "kuberay-operator", "train has no workers of its own", "ray.io", "v1", "rayjobs", "1.6.2"),
        System(
            "retrains", "", "no kubectl get retrains", *ours, "retrains", install="kubectl apply --kustomize manifests/crds"
        ),
    )


def rights(namespace: str, target: Target | None, has_users: bool, has_rayjobs: bool) -> Iterator[Right]:
    """What the account of whoever submits, looks at and takes back runs may do itself; steps have accounts of their own."""
    if has_users:
        yield from _each(("create", "get", "list"), "runs.pipelines.kubeflow.org", "submit", namespace)
        for kind in ("experiments", "pipelines", "pipelines/versions"):
            resource, _, part = kind.partition("/")
            yield Right("submit", "create", f"{resource}.pipelines.kubeflow.org{'/' if part else ''}{part}", namespace)
    yield from _each(("list",), "pods", "status", namespace)
    yield from _each(("get",), "pods/log", "status", namespace)
    yield from _each(("list",), "events", "status", namespace)
    if has_rayjobs:
        yield from _each(("list",), "rayjobs.ray.io", "status", namespace)
    if isinstance(target, ArgoTarget):
        yield from _each(("get", "patch"), "rollouts.argoproj.io", "rollback", target.namespace)
        yield from _each(("patch",), "rollouts.argoproj.io/status", "rollback", target.namespace)
    elif isinstance(target, DeploymentTarget):
        yield from _each(("get", "patch"), "deployments.apps", "rollback", target.namespace)


def _each(verbs: Sequence[str], resource: str, use: str, namespace: str) -> Iterator[Right]:
    return (Right(use, verb, resource, namespace) for verb in verbs)
