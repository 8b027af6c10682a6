from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.pods.pods import AsAsked
from tidewheel.contracts.placement import Executors, Placed, StepPlacement
from tidewheel.errors import ConfigError
from tidewheel.pods.own import OwnPod
from tidewheel.pods.spark_pods import SparkPods, spark_pods

LABELS = {"tidewheel/run-id": "r1", "tidewheel/step": "sample"}


def of(*mounts: str) -> SparkPods:
    """Executors of a pod that has claims at these paths."""
    container: dict[str, Any] = {
        "name": "main",
        "image": "i",
        "volumeMounts": [{"name": f"claim-{number}", "mountPath": path} for number, path in enumerate(mounts)],
    }
    volumes = [{"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": "c"}} for number in range(len(mounts))]
    manifest = {"metadata": {"name": "one", "labels": LABELS}, "spec": {"containers": [container], "volumes": volumes}}
    pod = OwnPod("runs", "one", "u1", manifest)
    return SparkPods(pod, Executors(shm="64Mi"), StepPlacement(), LABELS, "https://10.96.0.1:443", AsAsked())


def test_a_folder_on_the_claim_is_seen_by_executors() -> None:
    of("/var/lib/tidewheel").expect_shared(Path("/var/lib/tidewheel/cache/staging/splits-1"))


@pytest.mark.parametrize("folder", ["/tmp/store", "/dev/shm/store", "/data/store", "/var/lib/tidewheel-other"])
def test_a_folder_that_the_step_has_alone_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match=rf"{folder}: Spark's executors do not see this folder.*\(/var/lib/tidewheel\)"):
        of("/var/lib/tidewheel").expect_shared(Path(folder))


def test_a_pod_without_a_claim_says_that_it_has_none() -> None:
    with pytest.raises(ConfigError, match="this pod mounts no claim"):
        of().expect_shared(Path("/var/lib/tidewheel/cache"))


def test_a_claim_that_is_not_the_home_is_not_shared() -> None:
    with pytest.raises(ConfigError, match="do not see this folder"):
        of("/mnt/mine").expect_shared(Path("/mnt/mine/store"))


def test_the_engine_is_in_this_process_where_no_executors_are_asked_for() -> None:
    alone = Placed(step=StepPlacement())

    assert spark_pods({}, "r1", AsAsked()) is None
    assert spark_pods({"TIDEWHEEL_PLACED": alone.to_json()}, "r1", AsAsked()) is None
    asked = Placed(step=StepPlacement(), executors=Executors())
    assert spark_pods({"TIDEWHEEL_PLACED": asked.to_json()}, "r1", AsAsked()) is None, "this is no pod"
