"""An API server in memory: the pods of a namespace, its quotas and queues, and what it refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAMESPACE = "runs"


def pod(name: str, memory: str, state: dict[str, Any] | None = None, minute: int = 0, **status: Any) -> dict[str, Any]:
    """The pod of a try of `train`, as Argo Workflows makes it: with one of its own beside our container, made in `minute`."""
    resources = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    known = {"image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    statuses = [{"name": "wait", **known}, {"name": "main", **known, "resources": resources, "state": state or {}}]
    labels = {"pipeline/runid": "run-1", "tidewheel/step": "train", "tidewheel/recipe": "shop"}
    return {
        "metadata": {"name": name, "uid": name, "labels": labels, "creationTimestamp": f"2026-01-12T03:{minute:02}:00Z"},
        "spec": {"containers": [{"name": "wait"}, {"name": "main", "resources": resources}]},
        "status": {"containerStatuses": statuses, **status},
    }


def killed(reason: str = "OOMKilled") -> dict[str, Any]:
    """The state of a container that ended so."""
    return {"terminated": {"exitCode": 137, "reason": reason}}


@dataclass
class ApiServer:
    """`refuses`: status and message for a resize. `kubelet`: what becomes of one that was taken: `does` it, or a condition.

    `others`: answers by path. `resizes`: what was asked for. `denied`: verbs that the account has not. `starts`: the status of
    a pod that is made. `made`, `removed`: names of pods.
    """

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuses: tuple[int, str] | None = None
    kubelet: dict[str, str] | None = None
    resizes: list[str] = field(default_factory=list)
    denied: tuple[str, ...] = ()
    starts: Callable[[dict[str, Any]], dict[str, Any]] = lambda pod: {"phase": "Running"}
    made: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def get(self, path: str, selector: str) -> tuple[int, dict[str, Any]]:
        if path in self.others:
            return 200, self.others[path]
        home, name = path.rsplit("/", 1)
        if name == "pods":
            wanted = dict(pair.split("=") for pair in selector.split(","))
            return 200, {"items": [each for each in self.pods.values() if wanted.items() <= each["metadata"]["labels"].items()]}
        if home.endswith("/pods") and name in self.pods:
            return 200, self.pods[name]
        return (404 if name in self.made else 403), {"message": f"cannot look at {path}"}

    def post(self, path: str, body: dict[str, Any], is_dry: bool) -> tuple[int, dict[str, Any]]:
        if path.endswith("selfsubjectaccessreviews"):
            return 201, body | {"status": {"allowed": body["spec"]["resourceAttributes"]["verb"] not in self.denied}}
        if not path.endswith("/pods"):
            return 404, {"message": f"{path} is not known"}
        if not is_dry:
            name = f"{body['metadata']['generateName']}{len(self.made)}"
            body["metadata"] |= {"name": name, "uid": name}
            body["status"] = self.starts(body)
            self.pods[name] = body
            self.made.append(name)
        return 201, body

    def delete(self, path: str, selector: str) -> tuple[int, dict[str, Any]]:
        name = path.rsplit("/", 1)[1]
        if name != "pods" and name not in self.pods:
            return 404, {"message": f"{name} not found"}
        names = [each["metadata"]["name"] for each in self.get(path, selector)[1]["items"]] if name == "pods" else [name]
        for each in names:
            self.removed.append(each)
            del self.pods[each]
        return 200, {"kind": "Status", "status": "Success"} if name == "pods" else {}

    def resize(self, name: str, patch: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        (asked,) = patch["spec"]["containers"]
        self.resizes.append(asked["resources"]["limits"]["memory"])
        if self.refuses is not None:
            return self.refuses[0], {"message": self.refuses[1]}
        status = self.pods[name]["status"]
        if self.kubelet is None:
            next(each for each in status["containerStatuses"] if each["name"] == asked["name"])["resources"] = asked[
                "resources"
            ]
        else:
            status["conditions"] = [{"type": "PodResizePending", "status": "True", **self.kubelet}]
        return 200, self.pods[name]


@contextmanager
def served(server: ApiServer, folder: Path) -> Iterator[Path]:
    """A kubeconfig by which clients find it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            self._answer(*server.get(url.path, parse_qs(url.query).get("labelSelector", [""])[0]))

        def do_POST(self) -> None:
            url = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(*server.post(url.path, body, "dryRun" in parse_qs(url.query)))

        def do_DELETE(self) -> None:
            url = urlsplit(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(*server.delete(url.path, parse_qs(url.query).get("labelSelector", [""])[0]))

        def do_PATCH(self) -> None:
            assert self.headers["Content-Type"] == "application/strategic-merge-patch+json"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(*server.resize(self.path.split("/")[-2], body))

        def _answer(self, status: int, found: dict[str, Any]) -> None:
            text = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{listening.server_address[1]}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
        known = {"clusters": [cluster], "contexts": [context], "users": [{"name": "me", "user": {}}], "current-context": "here"}
        path = folder / "kubeconfig"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **known}), encoding="utf-8")
        yield path
        listening.shutdown()
