"""Real Spark as a Connect server in a child process, so that the embedded engine's tests can run beside it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Ends when its stdin closes, so it never outlives the tests.
_PROGRAM = """
import sys
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession
options = {
    "spark.master": "local[2]", "spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2",
    "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.memory": "1g",
    "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
    "spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": sys.argv[1],
}
session = SparkSession(SparkContext(conf=SparkConf().setAll(list(options.items()))))
print("ready", flush=True)
sys.stdin.read()
session.stop()
"""


@contextmanager
def real_spark() -> Iterator[object]:
    """A Connect session of Spark itself, local mode with two threads; skips the test where there is no Java."""
    if shutil.which("java") is None:
        pytest.skip("no java: real Spark cannot start")
    from pyspark.sql.connect.session import SparkSession

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    command = [sys.executable, "-c", _PROGRAM, str(port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline() != "ready\n":
                pytest.fail(f"real Spark did not start (exit code {server.wait(30)})")
            session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").create()
            session.conf.set("spark.sql.session.timeZone", "UTC")
            yield session
            session.stop()
        finally:
            assert server.stdin is not None
            server.stdin.close()
