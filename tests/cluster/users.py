"""Users of a service in the cluster: a pod that asks it all the time and counts who answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.cluster.kubectl import eventually, get, kubectl

# Runs in the server's own image. Ends by itself; SIGTERM ends it sooner. Its last line says what became of its requests.
SCRIPT = """
import collections, json, signal, sys, threading, time
import numpy as np
from tidewheel.errors import TidewheelError
from tidewheel.serving import Client
url, seconds, threads, pause = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
columns = json.loads(sys.argv[5])
kinds = {"int": np.int64, "float": np.float64, "text": object}
features = {name: np.array(values, dtype=kinds[kind]) for name, (kind, values) in columns.items()}
ending = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ending.set())
deadline, lock = time.monotonic() + seconds, threading.Lock()
answered, lost = collections.Counter(), collections.Counter()
last = collections.deque(maxlen=400)
def ask():
    client, number = Client(url), 0
    while not ending.is_set() and time.monotonic() < deadline:
        number += 1
        if number % 20 == 0:
            client.close()  # the next connection may go to another pod
        try:
            bundle = client.infer(features).bundle
            with lock:
                answered[bundle] += 1
                last.append(bundle)
        except TidewheelError as error:
            with lock:
                lost[str(error)] += 1
        time.sleep(pause)
workers = [threading.Thread(target=ask) for _ in range(threads)]
for worker in workers: worker.start()
print("asking", flush=True)
for worker in workers: worker.join()
print(json.dumps({"answered": answered, "lost": lost, "last": list(last)}), flush=True)
"""
POD = "users"


@dataclass(frozen=True)
class Counted:
    """What became of the requests: digest -> answers, message -> requests without one, and who gave the last answers."""

    answered: dict[str, int]
    lost: dict[str, int]
    last: list[str]

    @property
    def requests(self) -> int:
        return sum(self.answered.values()) + sum(self.lost.values())


def start(namespace: str, image: str, url: str, columns: dict[str, Any], seconds: int = 1200, pause: float = 0.01) -> None:
    """Four users at a time, for `seconds` at most; returns once they ask."""
    strict = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "users",
        "image": image,
        "imagePullPolicy": "Always",
        "command": ["python", "-c", SCRIPT, url, str(seconds), "4", str(pause), json.dumps(columns)],
        "securityContext": strict,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": namespace},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]},
    }
    kubectl("apply", "--filename=-", text=json.dumps(pod))
    said = eventually(lambda: _log(namespace), lambda text: "asking" in text, 120)
    assert "asking" in said, said


def stop(namespace: str) -> Counted:
    """End them and count."""
    kubectl("--namespace", namespace, "exec", POD, "--", "python", "-c", "import os; os.kill(1, 15)")
    eventually(lambda: get(namespace, f"pod/{POD}")["status"]["phase"], lambda phase: phase in ("Succeeded", "Failed"), 60)
    found = json.loads(_log(namespace).splitlines()[-1])
    kubectl("--namespace", namespace, "delete", f"pod/{POD}", "--wait=true", "--grace-period=1")
    return Counted(**found)


def _log(namespace: str) -> str:
    phase = get(namespace, f"pod/{POD}")["status"]["phase"]
    return kubectl("--namespace", namespace, "logs", POD) if phase != "Pending" else ""
