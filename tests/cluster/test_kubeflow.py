"""Submitted runs and schedules on a real Kubeflow Pipelines. Images of steps are not needed: runs begin, and are ended."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import pytest
import yaml

from pipelines.compile import compiled
from tests.cluster.kubectl import kubectl
from tests.e2e.command import PROGRAM, QUICKSTART, ROOT, Ended, environment, settings, tidewheel
from tidewheel.cluster.kubeflow import Kubeflow
from tidewheel.contracts.recipe import Recipe
from tidewheel.errors import ConfigError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PAGE = ROOT / "docs" / "operations" / "submitted-runs.md"
ACCOUNT = "pipeline-runner"  # comes with the backend
PATIENCE_SECONDS = 240


@dataclass(frozen=True)
class Place:
    """A recipe of our own name, so that what is made for it can be told from all else."""

    backend: Kubeflow
    client: kfp.Client
    name: str
    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    def write(self, *schedules: dict[str, Any]) -> Path:
        document = {"schema": "tidewheel/schedules/v1", "group": self.name, "service_account": ACCOUNT}
        file = self.folder / "schedules.yaml"
        file.write_text(yaml.safe_dump({**document, "schedules": [{"recipe": "recipe.yaml", **each} for each in schedules]}))
        return file

    def apply(self, *schedules: dict[str, Any]) -> dict[str, Any]:
        return succeeded(tidewheel("schedule", "apply", "--file", self.write(*schedules), "--json")).document

    def ours(self) -> list[Any]:
        return [each for each in self.backend.recurring_runs() if f"group={self.name} " in each.description]

    def runs(self) -> list[Any]:
        experiment = self.backend.experiment(self.name)
        return self.client.list_runs(experiment_id=experiment, page_size=100).runs or []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if not os.environ.get("KFP_ENDPOINT"):
        pytest.skip("KFP_ENDPOINT names no Kubeflow Pipelines")
    backend = Kubeflow.from_environment()
    backend.recurring_runs()  # one that is named and does not answer is a failure
    name = f"kfp{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    recipe = re.sub(r"^name: .*$", f"name: {name}", QUICKSTART.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    found = Place(backend, kfp.Client(host=backend.endpoint), name, tmp_path)
    yield found
    _remove(found)


def _remove(place: Place) -> None:
    """All that was made under the recipe's name."""
    for each in place.ours():
        place.backend.delete_recurring_run(each.id)
    for run in place.runs():
        with suppress(kfp_server_api.ApiException):  # it has ended
            place.client.terminate_run(run.run_id)
        place.client.archive_run(run.run_id)
        place.client.delete_run(run.run_id)
    place.client.delete_experiment(place.backend.experiment(place.name))
    pipeline = place.client.get_pipeline_id(f"tidewheel-{place.name}")
    if pipeline is not None:
        for version in place.client.list_pipeline_versions(pipeline).pipeline_versions or []:
            place.client.delete_pipeline_version(pipeline, version.pipeline_version_id)
        place.client.delete_pipeline(pipeline)


def succeeded(ended: Ended) -> Ended:
    assert ended.code == 0, ended.err
    return ended


def eventually(what: str, condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(1)
    return found


def test_a_recipe_is_uploaded_once_and_its_run_is_seen_at_work(place: Place) -> None:
    words = ("submit", "--recipe", place.recipe, "--window-end", "2026-01-12", "--service-account", ACCOUNT, "--json")
    first, second = succeeded(tidewheel(*words)).document, succeeded(tidewheel(*words)).document

    assert first["run_id"] != second["run_id"]
    versions = place.client.list_pipeline_versions(place.client.get_pipeline_id(first["pipeline"])).pipeline_versions
    assert [version.display_name for version in versions] == [first["pipeline_digest"]]
    assert first["address"] == f"{place.backend.endpoint}/#/runs/details/{first['run_id']}"
    parameters = place.client.get_run(first["run_id"]).runtime_config.parameters
    assert parameters == {"window_end": "2026-01-12T00:00:00+00:00", "reason": "by hand", "dry_run": False}

    eventually("ingest is seen", lambda: [task.name for task in place.backend.run(first["run_id"]).tasks][:1] == ["ingest"])
    assert place.backend.run(first["run_id"]).state == "RUNNING"


def test_two_uploaders_at_once_make_one_version(place: Place) -> None:
    pipeline = compiled(Recipe.model_validate(yaml.safe_load(place.recipe.read_text(encoding="utf-8"))))

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: Kubeflow(place.backend.endpoint).upload(place.name, pipeline), range(8)))
        experiments = list(pool.map(lambda _: Kubeflow(place.backend.endpoint).experiment(place.name), range(8)))

    assert len({*versions}) == 1
    assert len({*experiments}) == 1


def test_a_hundred_schedules_are_made_once_and_removed_once(place: Place) -> None:
    schedules = [{"name": f"s{number:03}", "cron": f"{number % 60} {number // 60} 1 1 *"} for number in range(100)]

    started = time.monotonic()
    assert place.apply(*schedules)["changes"] == 100
    print(f"apply of 100 schedules: {time.monotonic() - started:.1f} s")
    started = time.monotonic()
    assert place.apply(*schedules)["changes"] == 0
    print(f"the second: {time.monotonic() - started:.1f} s")
    assert len({each.title for each in place.ours() if each.is_enabled}) == 100

    changed = [{**each, "reason": "another"} for each in schedules]
    started = time.monotonic()
    assert place.apply(*changed)["changes"] == 300
    print(f"change of 100 schedules: {time.monotonic() - started:.1f} s")
    assert place.apply(*changed)["changes"] == 100
    assert place.apply(*changed)["changes"] == 0
    assert {action["action"] for action in place.apply()["actions"]} == {"disable"}
    assert {action["action"] for action in place.apply()["actions"]} == {"delete"}
    assert place.ours() == []


@pytest.fixture
def settings_of_runs() -> Iterator[None]:
    """The ConfigMap without which no pod of a run is made, where runs are."""
    if shutil.which("kubectl") is None or not os.environ.get("KUBECONFIG"):
        pytest.skip("pods can only be seen with kubectl and KUBECONFIG")
    runs = ("--namespace", os.environ.get("KFP_NAMESPACE", "kubeflow"))
    is_ours = "configmap/tidewheel" not in kubectl(*runs, "get", "configmaps", "--output=name").split()
    if is_ours:
        kubectl(*runs, "create", "configmap", "tidewheel", "--from-literal=TIDEWHEEL_STORE=s3://bucket")
    yield
    if is_ours:
        kubectl(*runs, "delete", "configmap", "tidewheel")


def test_a_run_in_flight_outlives_its_schedule_and_has_the_window_of_its_time(place: Place, settings_of_runs: None) -> None:
    place.apply({"name": "often", "cron": "* * * * *"})
    (old,) = place.ours()
    run = eventually("a scheduled run", place.runs)[0]
    assert place.backend.in_flight() >= {old.id}

    assert [each["action"] for each in place.apply({"name": "often", "cron": "0 3 1 1 *"})["actions"]] == [
        "create",
        "enable",
        "disable",
    ]
    waiting = place.apply({"name": "often", "cron": "0 3 1 1 *"})
    assert (waiting["changes"], [each["id"] for each in waiting["waiting"]]) == (0, [old.id])
    eventually("the driver begins", lambda: place.backend.run(run.run_id).tasks)
    assert place.backend.run(run.run_id).state == "RUNNING"

    config = eventually("the driver's parameters", lambda: _resolved(run.run_id))
    assert config["window_end"] == _last_monday(run.scheduled_at)

    place.backend.terminate(run.run_id)
    eventually("the run ends", lambda: old.id not in place.backend.in_flight())
    assert [each["action"] for each in place.apply({"name": "often", "cron": "0 3 1 1 *"})["actions"]] == ["delete"]
    assert place.apply({"name": "often", "cron": "0 3 1 1 *"})["changes"] == 0


def _resolved(run_id: str) -> dict[str, Any] | None:
    """The parameters that the first driver of a run was given."""
    if shutil.which("kubectl") is None or not os.environ.get("KUBECONFIG"):
        pytest.skip("what the driver was given can only be seen with kubectl and KUBECONFIG")
    found = kubectl("get", "workflows.argoproj.io", "-A", "-l", f"pipeline/runid={run_id}", "-o", "json")
    for workflow in json.loads(found)["items"]:
        for node in workflow.get("status", {}).get("nodes", {}).values():
            for parameter in node.get("inputs", {}).get("parameters", []):
                if parameter["name"] == "runtime-config" and "window_end" in parameter.get("value", ""):
                    return json.loads(parameter["value"])["parameterValues"]
    return None


def _last_monday(moment: datetime) -> str:
    """quickstart's windows end every seven days from Monday 2026-01-12 on."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day - timedelta(days=day.weekday())).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("prefix", ["CRON_TZ", "TZ"])
def test_the_backend_has_no_time_zone_for_a_schedule(place: Place, prefix: str) -> None:
    """Why schedules.yaml takes UTC only."""
    from tidewheel.cluster.backend import Order

    pipeline = compiled(Recipe.model_validate(yaml.safe_load(place.recipe.read_text(encoding="utf-8"))))
    version = place.backend.upload(place.name, pipeline)
    order = Order("tidewheel-zone", "", version, place.backend.experiment(place.name), {"window_end": "2026-01-12"}, ACCOUNT)

    with pytest.raises(ConfigError, match="cron is not a supported format"):
        place.backend.create_recurring_run(order, f"{prefix}=Europe/Berlin 0 0 3 * * *", is_enabled=False)


def test_what_was_changed_by_hand_is_put_right(place: Place) -> None:
    daily = {"name": "daily", "cron": "0 3 1 1 *"}
    place.apply(daily)
    (made,) = place.ours()
    place.backend.disable(made.id)

    listed = succeeded(tidewheel("schedule", "list", "--file", place.write(daily), "--json")).document["schedules"]
    assert [row["state"] for row in listed] == ["disabled: the file enables it"]
    assert [each["action"] for each in place.apply(daily)["actions"]] == ["enable"]
    place.backend.delete_recurring_run(made.id)
    planned = succeeded(tidewheel("schedule", "diff", "--file", place.write(daily), "--json")).document
    assert [(each["action"], each["why"]) for each in planned["actions"]] == [("create", "new")]


def test_what_is_not_there_is_said_in_one_line(place: Place) -> None:
    api = kfp_server_api.ApiException
    with pytest.raises(api):
        place.client.get_run("00000000-0000-0000-0000-000000000000")
    with pytest.raises(ConfigError, match=r"has nothing there to read run 0000.*404"):
        place.backend.run("00000000-0000-0000-0000-000000000000")


def test_the_wait_for_a_run_whose_image_is_nowhere_says_so_once_and_ends(place: Place, settings_of_runs: None) -> None:
    words = ["submit", "--recipe", str(place.recipe), "--window-end", "2026-01-12", "--service-account", ACCOUNT]
    words += settings("placement.ingest.cpu=10m", "placement.ingest.memory=64Mi")  # any node has room
    nowhere = environment(place.folder, {"TIDEWHEEL_REGISTRY": "registry.local/nobody-has-this"})

    waited = subprocess.run(
        [*PROGRAM, *words, "--wait", "--patience", "30", "--json"], capture_output=True, text=True, env=nowhere, timeout=400
    )

    ended = Ended(waited.returncode, waited.stdout, waited.stderr)
    assert ended.code == 1
    print(ended.err)
    (said,) = [line for line in ended.err.splitlines()[:-1] if "nobody-has-this" in line]  # a full node may be said as well
    assert re.search(r"pod \S+, container main: registry.local/nobody-has-this/tidewheel/python-\S+ \w*Image\w+", said)
    assert "push it (make images" in said
    assert re.search(r"waited for \d+ s; the run goes on in the cluster", ended.last_line)
    assert "push it (make images" in ended.document["error"]["message"]
    (run,) = place.runs()
    assert run.state == "RUNNING"


def test_every_command_of_the_page_works_in_its_order(place: Place) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (place.folder / "recipes").mkdir()
    shutil.copy(place.recipe, place.folder / "recipes" / "quickstart.yaml")
    (place.folder / "schedules.yaml").write_text(re.sub(r"(?m)^group: \S+", f"group: {place.name}", block))

    commands = [shlex.split(line) for text in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in text.splitlines()]
    assert len(commands) == 4
    for program, *words in commands:
        assert program == "tidewheel"
        succeeded(tidewheel(*words, cwd=place.folder))
