"""The door against servers on loopback that answer as a backend, a proxy or a login page would."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tidewheel.cluster import kubeflow
from tidewheel.cluster.kubeflow import Kubeflow
from tidewheel.errors import ConfigError, RetryableError, TidewheelError

Answer = Callable[[str, str, str], tuple[int, str, str]]  # method, path, token -> status, content type, body
JSON = "application/json"


class Server(ThreadingHTTPServer):
    """One that a client may leave before it has answered."""

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    servers: list[Server] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, kind, body = answer(self.command, self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                pass

        server = Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def always(status: int, body: str, kind: str = JSON) -> Answer:
    return lambda method, path, token: (status, kind, body)


def refusal(message: str) -> str:
    return json.dumps({"error": message, "code": 7, "message": message})


@pytest.mark.parametrize(
    ("answer", "kind", "want"),
    [
        (always(401, refusal("token has expired")), ConfigError, r"401: token has expired.*KF_PIPELINES_SA_TOKEN_PATH"),
        (
            always(403, refusal("cannot list")),
            ConfigError,
            r"refuses to list recurring runs \(403: cannot list\).*bind it a role",
        ),
        (always(404, "404 page not found", "text/plain"), ConfigError, r"404 page not found.*API of 2\.14 or newer"),
        (
            always(200, "<html>sign in</html>", "text/html"),
            ConfigError,
            r"answered list recurring runs with text/html, not JSON",
        ),
        (always(400, refusal("page size is odd")), ConfigError, r"400: page size is odd"),
        (always(500, refusal('unknown field "optional"')), ConfigError, r"only newer backends know; upgrade the backend"),
        (always(500, refusal("no database")), RetryableError, r"500: no database\); try again"),
        (always(503, "upstream is away", "text/plain"), RetryableError, r"503: upstream is away"),
    ],
    ids=["expired", "no right", "another server", "login page", "bad request", "old backend", "broken", "away"],
)
def test_an_answer_that_is_no_success_is_one_line_that_says_who_must_act(
    serve: Callable[[Answer], str], answer: Answer, kind: type[TidewheelError], want: str
) -> None:
    with pytest.raises(kind, match=want) as raised:
        Kubeflow(serve(answer)).recurring_runs()
    assert "\n" not in str(raised.value)


def test_a_backend_that_is_not_there_is_said_to_be_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(RetryableError, match=rf"Kubeflow Pipelines at http://127\.0\.0\.1:{port} does not answer"):
        Kubeflow(f"http://127.0.0.1:{port}").recurring_runs()


def test_a_backend_that_never_answers_is_given_up(serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeflow, "READ_SECONDS", 0.2)
    over = threading.Event()

    def silent(method: str, path: str, token: str) -> tuple[int, str, str]:
        over.wait(10)
        return 200, JSON, "{}"

    try:
        with pytest.raises(RetryableError, match="does not answer"):
            Kubeflow(serve(silent)).recurring_runs()
    finally:
        over.set()


def test_waiting_for_an_answer_never_takes_more_than_a_minute() -> None:
    assert 2 * (kubeflow.CONNECT_SECONDS + kubeflow.READ_SECONDS) < 60


def test_without_an_endpoint_nothing_is_asked() -> None:
    with pytest.raises(ConfigError, match=r"KFP_ENDPOINT is not set; expected .*port-forward"):
        Kubeflow.from_environment({})


def test_the_token_is_read_from_its_file_before_every_request(serve: Callable[[Answer], str], tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(method: str, path: str, token: str) -> tuple[int, str, str]:
        seen.append(token)
        return 200, JSON, "{}"

    token = tmp_path / "token"
    token.write_text("first\n")
    backend = Kubeflow.from_environment({"KFP_ENDPOINT": serve(answer), "KF_PIPELINES_SA_TOKEN_PATH": str(token)})
    backend.recurring_runs()
    token.write_text("second\n")
    backend.recurring_runs()

    assert seen == ["Bearer first", "Bearer second"]


def test_a_token_file_that_is_missing_is_named(tmp_path: Path) -> None:
    variables = {"KFP_ENDPOINT": "http://127.0.0.1:1", "KF_PIPELINES_SA_TOKEN_PATH": str(tmp_path / "token")}

    with pytest.raises(ConfigError, match=r"KF_PIPELINES_SA_TOKEN_PATH names .*token: cannot be read"):
        Kubeflow.from_environment(variables)


def test_pages_are_read_to_the_last(serve: Callable[[Answer], str]) -> None:
    def answer(method: str, path: str, token: str) -> tuple[int, str, str]:
        page = 3 if "page_token=c" in path else 2 if "page_token=b" in path else 1
        runs = [{"recurring_run_id": f"r{page}", "status": "ENABLED", "max_concurrency": "1", "no_catchup": True}]
        return 200, JSON, json.dumps({"recurringRuns": runs, "next_page_token": {1: "b", 2: "c", 3: ""}[page]})

    assert [each.id for each in Kubeflow(serve(answer)).recurring_runs()] == ["r1", "r2", "r3"]


def test_a_list_that_counts_what_it_does_not_show_is_not_taken_for_empty(serve: Callable[[Answer], str]) -> None:
    """Else a backend that names its fields otherwise would get every schedule twice."""
    listed = json.dumps({"recurring_runs_by_another_name": [{}], "total_size": 1})

    with pytest.raises(ConfigError, match=r"counts 1 .*but shows none"):
        Kubeflow(serve(always(200, listed))).recurring_runs()


def test_of_a_run_the_steps_are_told_and_not_what_the_backend_runs_beside_them(serve: Callable[[Answer], str]) -> None:
    """As the backend 2.14.3 lists a run whose `ingest` is at work."""
    names = {
        "SUCCEEDED": ("root-driver", "exit-handler-1-driver", "ingest-driver"),
        "RUNNING": ("root", "exit-handler-1", "ingest"),
    }
    tasks = [
        {"display_name": name, "state": state, "start_time": "2026-11-28T14:27:08Z", "end_time": "0001-01-01T00:00:00Z"}
        for state, some in names.items()
        for name in (*some, "executor", "tidewheel-quickstart-2cgvq")
    ]
    body = json.dumps({"run_id": "r", "state": "RUNNING", "run_details": {"task_details": tasks}})

    found = Kubeflow(serve(always(200, body))).run("r")

    assert [(task.name, task.state, task.seconds) for task in found.tasks] == [("ingest", "RUNNING", None)]


def test_what_is_gone_is_as_good_as_deleted(serve: Callable[[Answer], str]) -> None:
    Kubeflow(serve(always(404, refusal("no such recurring run")))).delete_recurring_run("r1")


def test_the_second_of_two_uploaders_takes_what_the_first_one_made(serve: Callable[[Answer], str]) -> None:
    """Both saw that the version was not there; the backend keeps names unique."""
    asked: list[str] = []

    def answer(method: str, path: str, token: str) -> tuple[int, str, str]:
        asked.append(f"{method} {path.split('?')[0]}")
        if "/pipelines/names/" in path:
            return 200, JSON, json.dumps({"pipeline_id": "p"})
        if method == "POST":
            return 409, JSON, refusal("The name already exist")
        versions = [{"pipeline_id": "p", "pipeline_version_id": "v"}] if any("POST" in each for each in asked) else []
        return 200, JSON, json.dumps({"pipeline_versions": versions})

    found = Kubeflow(serve(answer)).upload("quickstart", b"a: pipeline")

    assert (found.pipeline_id, found.version_id) == ("p", "v")
