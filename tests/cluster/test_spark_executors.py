"""Steps whose Spark executors are pods: on a real cluster, with the real log, against the engine in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.cluster.bucket import BUCKET, bucket
from tests.cluster.kubectl import eventually, kubectl, require_cluster
from tests.cluster.step_pods import ACCOUNT, PROGRAM, StepPods, image_of, step_pods
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.placement import HOME_MOUNT, Executors, Placed, StepPlacement
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.steps import parts
from tidewheel.contracts.verdict import Verdict
from tidewheel.errors import ConfigError
from tidewheel.pods.admission import expect_rights
from tidewheel.pods.api import connect
from tidewheel.pods.spark_pods import RIGHTS, VERBS
from tidewheel.store.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
LOG = Path(os.environ.get("TIDEWHEEL_KUAIRAND", ROOT.parent / "shared" / "data" / "kuairand_pure_std"))
WINDOW_END = "2022-05-04T00:00:00+00:00"
EXECUTORS = Executors(count=2, cpu="100m", memory="1Gi")
STEP = StepPlacement(cpu="100m", memory="2Gi", timeout_seconds=900)
OURS = "app.kubernetes.io/name=spark-executor"
SPLITS, CHECKED = ("train", "calibration", "eval", "randomized"), ("verdict", "profile", "baseline")
BEFORE: dict[str, tuple[str, ...]] = {"ingest": (), "sample": ("impressions",), "validate_data": SPLITS}
IMAGE = image_of("python-data")


@pytest.fixture(scope="module")
def place() -> Iterator[StepPods]:
    require_cluster()
    if not LOG.is_dir():
        pytest.skip(f"needs KuaiRand-Pure in {LOG}")
    with bucket() as variables, step_pods("spark-executors", ("rights-of-spark.yaml",), variables) as found:
        found.write(LOG, "log", IMAGE)
        kubectl("--namespace", found.namespace, "create", "quota", "runs", "--hard=limits.memory=32Gi")
        yield found
        assert found.pods(OURS) == []


def recipe(log: str, on_spark: bool) -> Recipe:
    plain = Recipe.model_validate(yaml.safe_load((ROOT / "recipes" / "kuairand.yaml").read_text(encoding="utf-8")))
    source = plain.source.model_copy(update={"path": log})
    window = plain.window.model_copy(update={"days": 3})  # less of it: the engines are asked alike
    return plain.model_copy(
        update={
            "source": source,
            "window": window,
            "sample": plain.sample.model_copy(update={"engine": "spark", "negative_rate": 0.3}),
            "validate_data": plain.validate_data.model_copy(update={"spark_above_rows": 0} if on_spark else {}),
        }
    )


def asked(step: str, log: str, home: str, run: str, on_spark: bool = True) -> dict[str, Any]:
    """What the pipeline hands to a step; `on_spark`: where data is checked."""
    names = {"ingest": ("impressions",), "sample": SPLITS, "validate_data": CHECKED}[step]
    inputs = {name: f"{home}/handed/{run}/{name}.json" for name in BEFORE[step]}
    return {
        "config": canonical_json(parts(recipe(log, on_spark))[step].model_dump(mode="json")),
        "run_id": run,
        "window_end": WINDOW_END,
        "inputs": inputs,
        "outputs": {name: f"{home}/handed/{run}/{name}.json" for name in names},
    }


def start(
    place: StepPods, step: str, run: str, executors: Executors = EXECUTORS, asking: StepPlacement = STEP, **changes: str
) -> str:
    """The name of the pod in which the step runs, with a store of its own on the volume if `changes` names no other."""
    changes = {"TIDEWHEEL_STORE": f"{HOME_MOUNT}/{run}"} | changes
    name, told = f"{step}-{run}".replace("_", "-"), asked(step, f"{HOME_MOUNT}/log", HOME_MOUNT, run)
    place.start(name, IMAGE, Placed(step=asking, executors=executors), step, told, **changes)
    return name


def finished(place: StepPods, name: str) -> None:
    assert place.ended(name) == "Succeeded", place.log(name)[-5000:]


def running(place: StepPods, run: str) -> list[dict[str, Any]]:
    found = place.pods(f"{OURS},tidewheel/run-id={run}")
    return [pod for pod in found if pod.get("status", {}).get("phase") == "Running"]


def manifest(place: StepPods, run: str, name: str) -> DatasetManifest:
    return DatasetManifest.parse(place.read(f"handed/{run}/{name}.json", IMAGE).decode(), name)


def in_one_process(step: str, home: Path) -> None:
    environment = {**os.environ, "TIDEWHEEL_HOME": str(home), "TIDEWHEEL_STORE": str(home / "store")}
    words = json.dumps({"step": step, **asked(step, str(LOG), str(home), "embedded", on_spark=False)})
    subprocess.run([sys.executable, "-c", PROGRAM, words], env=environment, check=True, timeout=300)


def rows_of(folder: Path) -> Mapping[str, pa.Table]:
    """Subfolder -> its rows in an order of their own, whatever files they lie in."""
    found: dict[str, list[pa.Table]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        found.setdefault(path.parent.relative_to(folder).as_posix(), []).append(pq.read_table(path, partitioning=None))
    return {name: ordered(pa.concat_tables(tables)) for name, tables in found.items()}


def ordered(table: pa.Table) -> pa.Table:
    simple = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    return table.select(sorted(table.column_names)).sort_by([(name, "ascending") for name in sorted(simple)])


def test_rows_and_weights_are_those_of_the_engine_in_one_process(place: StepPods, tmp_path: Path) -> None:
    shared = {"TIDEWHEEL_STORE": f"s3://{BUCKET}/equal"}
    for step in ("ingest", "sample"):
        finished(place, start(place, step, "equal", **shared))
        in_one_process(step, tmp_path / "home")

    theirs, ours = Store.open(shared["TIDEWHEEL_STORE"], tmp_path / "cache"), Store.open(str(tmp_path / "home" / "store"))
    for name in ("impressions", *SPLITS):
        there = manifest(place, "equal", name)
        here = DatasetManifest.read(tmp_path / "home" / "handed" / "embedded" / f"{name}.json")
        assert (there.rows, there.weight_sum, there.statistics) == (here.rows, here.weight_sum, here.statistics)
        theirs_folder, _ = theirs.load(DATASETS, there.digest, DatasetManifest)
        ours_folder, _ = ours.load(DATASETS, here.digest, DatasetManifest)
        found, wanted = rows_of(theirs_folder), rows_of(ours_folder)
        assert set(found) == set(wanted)
        for part in wanted:
            for column in wanted[part].column_names:  # engines differ in which columns they say may be null
                assert found[part][column].equals(wanted[part][column]), f"{name}/{part}: {column}"


def test_data_is_checked_on_executors_as_in_one_process(place: StepPods, tmp_path: Path) -> None:
    """Of the datasets of the test before."""
    shared = {"TIDEWHEEL_STORE": f"s3://{BUCKET}/equal"}
    finished(place, start(place, "validate_data", "equal", **shared))
    for step in BEFORE:
        in_one_process(step, tmp_path / "home")

    def documents(name: str) -> tuple[str, str]:
        here = tmp_path / "home" / "handed" / "embedded" / f"{name}.json"
        return place.read(f"handed/equal/{name}.json", IMAGE).decode(), here.read_text(encoding="utf-8")

    there, here = (Verdict.parse(text, "verdict") for text in documents("verdict"))
    assert (there.phase, there.is_successful) == (here.phase, True)
    assert [(reason.check, reason.phase) for reason in there.reasons] == [
        (reason.check, reason.phase) for reason in here.reasons
    ]
    assert [reason.value for reason in there.reasons] == pytest.approx([reason.value for reason in here.reasons], nan_ok=True)
    assert len(set(documents("profile"))) == 1


def test_executors_are_owned_and_labelled_and_one_that_is_killed_costs_nothing_but_time(place: StepPods) -> None:
    name = start(place, "ingest", "killed")
    first, second = eventually(lambda: running(place, "killed"), lambda found: len(found) == 2, 200)

    (driver,) = (pod for pod in place.pods("tidewheel/step=ingest") if pod["metadata"]["name"] == name)
    for pod in (first, second):
        labels = pod["metadata"]["labels"]
        assert (labels["tidewheel/step"], labels["tidewheel/recipe"]) == ("ingest", "kuairand")
        assert labels["app.kubernetes.io/part-of"] == "tidewheel"
        (owner,) = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", name, driver["metadata"]["uid"])
        (container,) = pod["spec"]["containers"]
        assert container["resources"] == {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
        assert pod["spec"]["automountServiceAccountToken"] is False

    lost = first["metadata"]["name"]
    kubectl("--namespace", place.namespace, "delete", "pod", lost, "--force", "--grace-period=0")
    names = eventually(
        lambda: {pod["metadata"]["name"] for pod in running(place, "killed")},
        lambda found: len(found) == 2 and lost not in found,
        200,
    )
    assert lost not in names
    finished(place, name)
    assert eventually(lambda: place.pods(OURS), lambda found: not found, 60) == []
    assert manifest(place, "killed", "impressions").rows > 10_000


def test_executors_go_with_the_pod_of_their_step(place: StepPods) -> None:
    name = start(place, "ingest", "deleted")
    assert eventually(lambda: running(place, "deleted"), bool, 200)

    place.delete(name)

    assert eventually(lambda: place.pods(OURS), lambda found: not found, 60) == []


@pytest.mark.parametrize(
    ("run", "executors", "changes", "said"),
    [
        ("apart", EXECUTORS, {"TIDEWHEEL_STORE": "/tmp/store"}, "Spark's executors do not see this folder"),
        ("large", Executors(cpu="100m", memory="64Gi"), {}, "exceeded quota: runs, requested: limits.memory=64Gi"),
        ("small", Executors(cpu="100m", memory="512Mi"), {}, "placement.executors.memory is 512Mi"),
    ],
)
def test_what_can_never_be_had_is_one_clear_error(
    place: StepPods, run: str, executors: Executors, changes: Mapping[str, str], said: str
) -> None:
    name = start(place, "ingest", run, executors, **changes)

    assert place.ended(name, 120) == "Failed"
    assert said in place.log(name)


def test_executors_for_which_no_node_has_room_are_waited_for_and_named_before_the_time_is_up(place: StepPods) -> None:
    asking = STEP.model_copy(update={"timeout_seconds": 180})
    name = start(place, "ingest", "wide", Executors(cpu="4000", memory="1Gi"), asking)

    assert place.ended(name) == "Failed"
    said = place.log(name)
    assert "RetryableError" in said
    assert "none of 2 executors of 4000 CPU and 1Gi started" in said
    assert "Unschedulable" in said
    assert eventually(lambda: place.pods(OURS), lambda found: not found, 60) == []


def test_a_missing_right_is_named_with_the_file_that_gives_it(place: StepPods) -> None:
    def may(account: str) -> None:
        api = connect()
        api.set_default_header("Impersonate-User", f"system:serviceaccount:{place.namespace}:{account}")
        expect_rights(api, place.namespace, VERBS, RIGHTS)

    may(ACCOUNT)
    with pytest.raises(ConfigError, match=r"may not get, list, watch, create, delete, deletecollection pods.*rights-of-spark"):
        may("default")


@pytest.fixture
def queue(place: StepPods) -> Iterator[str]:
    """A queue that has room for the step and one of its executors."""
    if "clusterqueues.kueue.x-k8s.io" not in kubectl("api-resources", "--api-group=kueue.x-k8s.io", "--output=name"):
        pytest.skip("the cluster has no Kueue")
    name, api = f"one-{place.namespace}", "kueue.x-k8s.io/v1beta2"
    resources = [{"name": "cpu", "nominalQuota": "1"}, {"name": "memory", "nominalQuota": "3500Mi"}]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": name, "resources": resources}]}
    objects = [
        {"apiVersion": api, "kind": "ResourceFlavor", "metadata": {"name": name}},
        {
            "apiVersion": api,
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {"namespaceSelector": {}, "resourceGroups": [group]},
        },
        {
            "apiVersion": api,
            "kind": "LocalQueue",
            "metadata": {"name": "retrain", "namespace": place.namespace},
            "spec": {"clusterQueue": name},
        },
    ]
    text = yaml.safe_dump_all(objects)
    kubectl("create", "--filename=-", text=text)
    yield "retrain"
    kubectl("delete", "--filename=-", "--wait=false", text=text)


def test_executors_take_from_the_quota_of_their_steps_queue(place: StepPods, queue: str) -> None:
    name = start(place, "ingest", "queued", EXECUTORS, STEP.model_copy(update={"queue": queue}))

    assert len(eventually(lambda: running(place, "queued"), bool, 200)) == 1
    (waiting,) = eventually(
        lambda: [pod for pod in place.pods(f"{OURS},tidewheel/run-id=queued") if pod["spec"].get("schedulingGates")],
        bool,
        60,
    )
    assert waiting["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue
    place.delete(name)
    assert eventually(lambda: place.pods(OURS), lambda found: not found, 60) == []
