"""`tidewheel doctor --cluster` where no cluster answers: one finding with a remedy, within a minute, never a traceback."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import yaml

from tests.e2e.command import PROGRAM, QUICKSTART, ROOT
from tests.e2e.test_new_project import fenced_commands
from tidewheel.cluster.doctor import examine

MINUTE = 60
ADDRESSES = ("TIDEWHEEL_STORE", "MLFLOW_TRACKING_URI", "KFP_ENDPOINT", "KUBERNETES_SERVICE_HOST")


def kubeconfig(folder: Path, server: str, context: str = "office", user: dict[str, Any] | None = None) -> Path:
    """Of one cluster, whose current context is called `context` and whose only one is called `office`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": "office", "cluster": {"server": server}}],
        "contexts": [{"name": "office", "context": {"cluster": "office", "user": "ada"}}],
        "users": [{"name": "ada", "user": user or {"token": "garbage"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def doctor(config: Path, *more: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """(exit code, document), in a fresh process that may take a minute."""
    inherited = {name: value for name, value in os.environ.items() if name not in ADDRESSES}
    command = [*PROGRAM, "doctor", "--cluster", "--json", *more]
    done = subprocess.run(
        command,
        env=inherited | {"KUBECONFIG": str(config), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"} | environment,
        capture_output=True,
        text=True,
        timeout=MINUTE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def fault(document: dict[str, Any], name: str) -> dict[str, str]:
    """The only thing that is in the way."""
    (found,) = [check for check in document["checks"] if not check["is_well"] and check["severity"] == "needed"]
    assert found["name"] == name, found
    assert found["expected"]
    assert found["remedy"]
    return found


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def server(status: int, body: bytes) -> Iterator[str]:
    """Gives every question one answer."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.mark.parametrize("text", ["", "a: [", "- a list", "current-context: x\ncontexts: 7", "\x00"])
def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text, encoding="utf-8")

    code, document = doctor(path)

    found = fault(document, "api server")
    assert code == 1
    assert str(path) in found["found"]
    assert "KUBECONFIG" in found["remedy"]


def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    code, document = doctor(tmp_path / "nowhere")

    assert code == 1
    assert "nowhere: names no cluster" in fault(document, "api server")["found"]


def test_a_user_that_is_not_complete_is_named_without_its_secrets(tmp_path: Path) -> None:
    user = {"auth-provider": {"name": "oidc", "config": {"client-secret": "hunter2"}}}

    code, document = doctor(kubeconfig(tmp_path, "https://127.0.0.1:1", user=user))

    assert code == 1
    assert "Expected key id-token" in fault(document, "api server")["found"]
    assert "hunter2" not in json.dumps(document)


@pytest.mark.parametrize("command", fenced_commands(ROOT / "docs" / "operations" / "doctor.md"))
def test_the_commands_of_the_page_say_that_no_cluster_is_there(tmp_path: Path, command: str) -> None:
    """What they say of one is in tests/cluster."""
    program, verb, *arguments = (str(QUICKSTART) if word == "recipe.yaml" else word for word in shlex.split(command))
    assert (program, verb) == ("tidewheel", "doctor")

    code, document = doctor(tmp_path / "nowhere", *arguments)

    assert (code, document["namespace"]) == (1, "tidewheel")
    fault(document, "api server")


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    code, document = doctor(kubeconfig(tmp_path, "https://127.0.0.1:1", context="moon"))

    found = fault(document, "api server")
    assert code == 1
    assert "moon" in found["found"]
    assert "kubectl config use-context" in found["remedy"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_where_nothing_listens(tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    code, document = doctor(kubeconfig(tmp_path, f"{scheme}://127.0.0.1:{port}"))

    found = fault(document, "api server")
    assert code == 1
    assert f"127.0.0.1:{port} (context office) does not answer" in found["found"]
    assert "refused" in found["found"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_that_accepts_and_never_answers(tmp_path: Path, scheme: str) -> None:
    with silent_server() as address:
        code, document = doctor(kubeconfig(tmp_path, f"{scheme}://{address}"))

    assert code == 1
    assert f"{address} (context office) does not answer" in fault(document, "api server")["found"]


@pytest.mark.parametrize(
    ("status", "body", "want_name", "want_found"),
    [
        (200, b"<html>hello</html>", "api server", "its answer is no JSON"),
        (200, b"[1]", "api server", "no object of an API server"),
        (200, b"{}", "api server", "its /version is not that of Kubernetes"),
        (404, b"not here", "api server", "404 Not Found"),
        (500, b"\xff\xfe", "api server", "500"),
        (401, b'{"message": "Unauthorized"}', "account", "user ada in context office: Unauthorized"),
    ],
)
def test_a_server_that_is_no_api_server_or_does_not_know_us(
    tmp_path: Path, status: int, body: bytes, want_name: str, want_found: str
) -> None:
    with server(status, body) as address:
        code, document = doctor(kubeconfig(tmp_path, address))

    assert code == 1
    assert want_found in fault(document, want_name)["found"]


def test_endpoints_that_accept_and_never_answer_or_are_nobody_are_named(tmp_path: Path) -> None:
    with silent_server() as silent, server(200, b"ok") as healthy:
        environment = {
            "TIDEWHEEL_STORE": "s3://bucket/tidewheel",
            "AWS_ENDPOINT_URL": f"http://{silent}",
            "MLFLOW_TRACKING_URI": healthy,
            "KFP_ENDPOINT": "http://nobody.invalid:8888",
        }
        code, document = doctor(tmp_path / "nowhere", **environment)

    said = {check["name"]: check for check in document["checks"]}
    assert code == 1
    assert said["mlflow"]["is_well"]
    assert "does not answer: " in said["store"]["found"]
    assert "http://nobody.invalid:8888 does not answer" in said["kfp"]["found"]


def test_a_credential_plugin_that_hangs_does_not_hold_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sleep", "args": ["20"], "interactiveMode": "Never"}
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "https://127.0.0.1:1", user={"exec": plugin})))

    found = examine("", None, {}, seconds=3, grace_seconds=0)

    assert "the kubeconfig's credential plugin" in found.checks[0].found
    assert found.is_in_the_way


@pytest.mark.slow
@pytest.mark.parametrize("is_dripping", [False, True])
def test_an_api_server_that_falls_silent_ends_within_a_minute_and_is_not_well(tmp_path: Path, is_dripping: bool) -> None:
    known = {
        "/version": {"gitVersion": "v1.34.10"},
        "/apis/authentication.k8s.io/v1/selfsubjectreviews": {"status": {"userInfo": {"username": "ada"}}},
    }
    is_over = Event()

    class Falling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(known.get(self.path, {})).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) if self.path in known else 1_000))
            self.end_headers()
            if self.path in known:
                self.wfile.write(body)
            while self.path not in known and not is_over.wait(1.0):
                if is_dripping:
                    self.wfile.write(b" ")

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Falling) as listening:
        listening.daemon_threads = True
        Thread(target=listening.serve_forever, daemon=True).start()
        code, document = doctor(kubeconfig(tmp_path, f"http://127.0.0.1:{listening.server_port}"))
        is_over.set()
        listening.shutdown()

    assert code == 1
    assert any(check["severity"] == "needed" and not check["is_well"] for check in document["checks"])


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (("--namespace", "runs"), "--namespace runs: is of a cluster; add --cluster"),
        (("--cluster", "--home", "x"), "leave --data and --home"),
        (("--cluster", "--namespace", "a/b"), "--namespace a/b: is no name of a namespace"),
        (("--cluster", "--recipe", "nowhere.yaml"), "recipe nowhere.yaml: cannot be read"),
    ],
)
def test_usage_that_makes_no_sense_is_one_line(arguments: tuple[str, ...], want: str) -> None:
    done = subprocess.run([*PROGRAM, "doctor", *arguments], capture_output=True, text=True, timeout=MINUTE, check=False)

    assert done.returncode == 2
    assert want in done.stderr
    assert len(done.stderr.splitlines()) == 1
