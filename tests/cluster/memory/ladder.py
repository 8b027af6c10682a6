"""A step that takes memory, tried as the pods of one step of one run, and the store in which its recipe remembers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from components.images import image_of
from pipelines.placement import placed
from tests.cluster.bucket import BUCKET
from tests.cluster.kubectl import apply, eventually, get, kubectl
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.memory import Learned
from tidewheel.contracts.placement import Placement, StepPlacement
from tidewheel.contracts.report import StepRecord
from tidewheel.steps.records import record_of
from tidewheel.store import Store

MIB = 2**20
RECIPE = "ladder"
# What a step does here: hold so many MiB, or fill a disk, or wait to be taken away. All else is the step's own.
STEP = """
import sys, time
from pathlib import Path
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Result, run_step

def main(run_id, window_end, inputs, outputs, kind, amount):
    def work(job):
        if kind == "hold":
            held = bytearray(int(amount) * 2**20)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(1)
        elif kind == "fill":
            Path("/scratch/full").write_bytes(bytes(int(amount) * 2**20))
            time.sleep(300)
        elif kind == "wait":
            time.sleep(300)
        elif kind == "fail":
            raise ContractError("the data is not what it should be")
        documents = {name: kind + " " + Path(path).read_text() for name, path in inputs.items()}
        return Result(documents=documents, summary=kind)

    again = Again(entry="ladder_step:main", arguments={"kind": kind, "amount": amount})
    run_step("train", run_id, window_end, inputs, outputs, work, None, again=again)

if __name__ == "__main__":
    kind, amount, run_id = sys.argv[1:]
    Path("/tmp/in").write_text("handed over")
    main(run_id, "2026-01-12T00:00:00+00:00", {"found": "/tmp/in"}, {"found": "/tmp/out/found"}, kind, amount)
    print(Path("/tmp/out/found").read_text())
""".replace("from tidewheel.steps.beside", "from tidewheel.errors import ContractError\nfrom tidewheel.steps.beside")
# Where every pod of a step finds what it runs: settings are mounted there, and a second pod mounts them too.
STEPS, MODULE = "/etc/tidewheel/ladder", "ladder_step"
PYTHON = "/opt/tidewheel/bin/python"
ASKED = Placement(train=StepPlacement(cpu="10m", memory="160Mi", retries=2, timeout_seconds=600))
RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["resourcequotas", "limitranges"], "verbs": ["list"]},
    {"apiGroups": ["kueue.x-k8s.io"], "resources": ["localqueues"], "verbs": ["get"]},
]
SECOND = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "delete", "deletecollection"]}]
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Shelf:
    """The store of a recipe that only one test uses, and what finds it in a pod."""

    store: Store
    environment: Mapping[str, str]

    @classmethod
    def of(cls, name: str, variables: Mapping[str, str], folder: Path) -> Self:
        url = f"s3://{BUCKET}/{name}"
        return cls(Store.open(url, folder), {**variables, "TIDEWHEEL_STORE": url, "TIDEWHEEL_HOME": "/tmp/home"})

    @property
    def learned(self) -> Learned | None:
        text = self.store.get(f"memory/{RECIPE}/train.json")
        return None if text is None else Learned.parse(text, "learned")

    def teach(self, rung: int, killed: int) -> None:
        known = Learned(rung_bytes=rung * MIB, killed_bytes=killed * MIB, kills=1, at=datetime.now(UTC))
        self.store.put(f"memory/{RECIPE}/train.json", known.to_json())

    def record(self, run_id: str) -> StepRecord:
        found = record_of(self.store, run_id, "train")
        assert found is not None
        return found


def allow(namespace: str, name: str, account: str, rules: Sequence[Mapping[str, Any]] = RULES) -> None:
    """An account's rights, and what every pod of a step runs."""
    program = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ladder", "namespace": namespace}}
    apply(program | {"data": {f"{MODULE}.py": STEP}})
    meta = {"name": name, "namespace": namespace}
    api = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": rules}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
        "subjects": [subject],
    }
    apply(role, binding)


def try_once(
    namespace: str,
    shelf: Shelf,
    run_id: str,
    work: Sequence[str],
    asked: Placement = ASKED,
    account: str = "climber",
    labels: Mapping[str, str] | None = None,
) -> str:
    """Start the pod of a try, as Kubeflow Pipelines would; its name."""
    name = f"{run_id}-{time.monotonic_ns() % 10**9}"
    fields = {"TIDEWHEEL_POD": "metadata.name", "TIDEWHEEL_NAMESPACE": "metadata.namespace"}
    told = canonical_json(placed("train", asked).model_dump(mode="json"))
    values = {**shelf.environment, "TIDEWHEEL_RECIPE": RECIPE, "TIDEWHEEL_PLACED": told, "PYTHONPATH": STEPS}
    environment = [{"name": key, "value": value} for key, value in values.items()]
    environment += [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()]
    memory = asked.train.memory
    known = {"pipeline/runid": run_id, "tidewheel/step": "train", "tidewheel/recipe": RECIPE, **(labels or {})}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": known},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 5,
            "volumes": [
                {"name": "scratch", "emptyDir": {"sizeLimit": "8Mi"}},
                {"name": "ladder", "configMap": {"name": "ladder"}},
            ],
            "containers": [
                {
                    "name": "main",
                    "image": image_of("evaluate"),
                    "command": [PYTHON, "-m", MODULE, *work, run_id],
                    "env": environment,
                    "resources": {"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": memory}},
                    "volumeMounts": [
                        {"name": "scratch", "mountPath": "/scratch"},
                        {"name": "ladder", "mountPath": STEPS},
                    ],
                }
            ],
        },
    }
    apply(pod)
    return name


def ended(namespace: str, pod: str) -> dict[str, Any]:
    found = eventually(lambda: get(namespace, f"pod/{pod}"), lambda one: one["status"]["phase"] in ENDED, 300)
    assert found["status"]["phase"] in ENDED, found["status"]
    return found


def tried(namespace: str, shelf: Shelf, run_id: str, *work: str, **more: Any) -> tuple[str, str]:
    """One try, waited for: why its container ended, and what it said."""
    pod = try_once(namespace, shelf, run_id, work, **more)
    (state,) = ended(namespace, pod)["status"]["containerStatuses"]
    return state["state"]["terminated"]["reason"], kubectl("--namespace", namespace, "logs", pod)
