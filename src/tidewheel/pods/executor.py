"""`python -m tidewheel.pods.executor executor`: an executor of Spark on Kubernetes, in an image that has pyspark and a JRE.

Spark starts executors by a word, `executor`, and variables, and leaves to the image what to make of them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

BACKEND = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
ARGUMENTS = {
    "--driver-url": "SPARK_DRIVER_URL",
    "--executor-id": "SPARK_EXECUTOR_ID",
    "--cores": "SPARK_EXECUTOR_CORES",
    "--app-id": "SPARK_APPLICATION_ID",
    "--hostname": "SPARK_EXECUTOR_POD_IP",
    "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
    "--podName": "SPARK_EXECUTOR_POD_NAME",
}
_OPTION = re.compile(r"SPARK_JAVA_OPT_(\d+)")


def main() -> None:
    """Become the executor.

    Raises:
        SystemExit: the image lacks Spark or Java, or Spark did not start this.
    """
    if sys.argv[1:] != ["executor"]:
        raise SystemExit(f"tidewheel.pods.executor: found the arguments {sys.argv[1:]}; expected `executor`, as Spark says it")
    found = find_spec("pyspark")
    java = java_of(os.environ)
    if found is None or not found.submodule_search_locations or java is None:
        missing = "Java" if found else "pyspark"
        raise SystemExit(f"tidewheel.pods.executor: this image has no {missing}; expected that of the step, python-data")
    spark = Path(next(iter(found.submodule_search_locations)))
    if lacking := sorted(set(ARGUMENTS.values()) - set(os.environ)):
        raise SystemExit(f"tidewheel.pods.executor: {', '.join(lacking)} not set; expected to be started by a Spark driver")
    command = command_of(java, spark, os.environ)
    os.execve(command[0], command, {**os.environ, "SPARK_HOME": str(spark)})


def command_of(java: str, spark: Path, environment: Mapping[str, str]) -> list[str]:
    """The Java process of an executor, from the variables that Spark sets."""
    numbered = {int(match[1]): value for name, value in environment.items() if (match := _OPTION.fullmatch(name))}
    classes = [str(spark / "jars" / "*"), environment.get("SPARK_CLASSPATH", "")]
    return [
        java,
        *(numbered[number] for number in sorted(numbered)),
        f"-Xmx{environment['SPARK_EXECUTOR_MEMORY']}",
        "-cp",
        ":".join(each for each in classes if each),
        BACKEND,
        *(word for flag, name in ARGUMENTS.items() for word in (flag, environment[name])),
    ]


def java_of(environment: Mapping[str, str]) -> str | None:
    """Where Java is; None where there is none."""
    home = environment.get("JAVA_HOME")
    return shutil.which(str(Path(home) / "bin" / "java")) if home else shutil.which("java", path=environment.get("PATH"))


if __name__ == "__main__":
    main()
