from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tidewheel.pods.executor import command_of, java_of

TOLD = {
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@10.0.0.7:7078",
    "SPARK_EXECUTOR_ID": "3",
    "SPARK_EXECUTOR_CORES": "2",
    "SPARK_EXECUTOR_MEMORY": "640m",
    "SPARK_APPLICATION_ID": "spark-1",
    "SPARK_EXECUTOR_POD_IP": "10.0.0.8",
    "SPARK_EXECUTOR_POD_NAME": "wheel-exec-3",
    "SPARK_RESOURCE_PROFILE_ID": "0",
}


def test_the_process_is_what_spark_says_in_its_variables_options_in_their_order() -> None:
    options = {f"SPARK_JAVA_OPT_{number}": f"-Done={number}" for number in (10, 2, 0)}

    found = command_of("/usr/bin/java", Path("/opt/pyspark"), {**TOLD, **options, "HOME": "/tmp"})

    assert found[:5] == ["/usr/bin/java", "-Done=0", "-Done=2", "-Done=10", "-Xmx640m"]
    assert found[5:8] == ["-cp", "/opt/pyspark/jars/*", "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"]
    assert " ".join(found[8:]) == (
        "--driver-url spark://CoarseGrainedScheduler@10.0.0.7:7078 --executor-id 3 --cores 2 --app-id spark-1 "
        "--hostname 10.0.0.8 --resourceProfileId 0 --podName wheel-exec-3"
    )


def test_classes_of_the_application_come_after_sparks() -> None:
    found = command_of("java", Path("/opt/pyspark"), {**TOLD, "SPARK_CLASSPATH": "/more/*"})

    assert found[found.index("-cp") + 1] == "/opt/pyspark/jars/*:/more/*"


def test_java_is_that_of_java_home_or_of_the_path(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)

    assert java_of({"JAVA_HOME": str(tmp_path), "PATH": ""}) == str(java)
    assert java_of({"PATH": str(java.parent)}) == str(java)
    assert java_of({"JAVA_HOME": str(tmp_path / "gone"), "PATH": str(java.parent)}) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), r"found the arguments []; expected `executor`"),
        (("driver",), "found the arguments ['driver']"),
        (("executor",), "SPARK_APPLICATION_ID, SPARK_DRIVER_URL"),
    ],
)
def test_whoever_starts_it_by_hand_is_told_that_spark_does(words: tuple[str, ...], said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tidewheel.pods.executor", *words], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert said in ended.stderr
