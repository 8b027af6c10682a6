"""The dataframe engine: Sail inside this process, the Spark that `$TIDEWHEEL_SPARK` names, or one whose executors are pods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from tidewheel.errors import ConfigError
from tidewheel.pods.spark_pods import SparkPods

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SPARK_VARIABLE = "TIDEWHEEL_SPARK"  # a Spark master (`local[4]`, `spark://...`) or a Connect address (`sc://...`)
MAX_AT_ONCE = 8  # pieces of work, each with about a gigabyte of its own
T = TypeVar("T")
R = TypeVar("R")
_EMBEDDED: WeakSet[object] = WeakSet()
# pyspark.sql.functions looks here whether to build Connect expressions; gRPC would otherwise take a proxy to reach us.
_ENVIRONMENT = {"SPARK_CONNECT_MODE_ENABLED": "1", "no_grpc_proxy": "127.0.0.1"}


_SPARK = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "false",  # what cannot be read is null, and judged
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_ON_LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}


@contextmanager
def dataframe_session(pods: SparkPods | None = None) -> Iterator[SparkSession]:
    """A session on the engine of this machine: embedded, or the Spark that `$TIDEWHEEL_SPARK` names; on `pods` where a recipe
    asks for them.

    Raises:
        ConfigError: that Spark cannot be reached or started.
        RetryableError: its executors could not be had in time, or were lost.
    """
    master = os.environ.get(SPARK_VARIABLE)
    opened = session_on(pods) if pods else spark_session(master) if master else embedded_session()
    with opened as spark:
        yield spark


@contextmanager
def session_on(pods: SparkPods) -> Iterator[SparkSession]:
    """A session on executors that are pods, the first of which is there; they are gone when the block ends.

    Raises:
        ConfigError: they cannot be had.
        RetryableError: they could not be had in time, or were lost.
    """
    with pods.engaged() as settings, classic_session(settings["spark.master"], settings, "placement.executors") as spark:
        status = spark.sparkContext._jsc.sc()
        pods.await_first(lambda: int(status.getExecutorMemoryStatus().size()) - 1)  # the driver is one of them
        yield spark


@contextmanager
def spark_session(master: str) -> Iterator[SparkSession]:
    """A session on Spark, gone when the block ends. A local one keeps to loopback.

    Raises:
        ConfigError: it cannot be reached or started.
    """
    with classic_session(master, {}, f"{SPARK_VARIABLE}={master}") as spark:
        yield spark


@contextmanager
def classic_session(master: str, settings: Mapping[str, str], asked: str) -> Iterator[SparkSession]:
    """A session on the Spark of `master`, with these settings beside ours; `asked`: who asked for it, for an error."""
    import pyspark
    from pyspark.sql import SparkSession

    if not master.startswith("sc://"):
        # Set by whoever has an embedded engine beside this, in this process or in its parent: pyspark would ask for a server.
        os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)
    is_local = master.startswith("local")
    if is_local:
        # A local cluster's workers start their executors through SPARK_HOME, and talk to each other.
        os.environ.setdefault("SPARK_HOME", str(Path(pyspark.__file__).parent))
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.remote(master) if master.startswith("sc://") else SparkSession.builder.master(master)
    for key, value in (_SPARK | (_ON_LOOPBACK if is_local else {}) | dict(settings)).items():
        builder = builder.config(key, value)
    try:
        spark = builder.appName("tidewheel").getOrCreate()
    except Exception as error:  # Py4J, gRPC and the launcher each raise their own
        fault = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{asked}: Spark cannot be used ({fault}); correct it, or unset it") from error
    try:
        yield spark
    finally:
        spark.stop()


@contextmanager
def embedded_session() -> Iterator[SparkSession]:
    """A Spark session on an engine in this process, with the session time zone UTC; gone when the block ends.

    Starting takes about as long as importing pyspark and pandas (1 s); the engine itself is up in 0.03 s. It is silent
    unless `RUST_LOG` is set. The environment is left as it was found.
    """
    # Read once, when the engine is loaded. One thread a query: `each` runs several queries, which costs a fifth less than to
    # hand the rows of one from thread to thread.
    os.environ.setdefault("RUST_LOG", "off")
    os.environ.setdefault("SAIL_EXECUTION__DEFAULT_PARALLELISM", "1")
    # Rows a batch: a write cuts each batch into the folders it is split by, and small cuts cost an eighth of ingest.
    os.environ.setdefault("SAIL_EXECUTION__BATCH_SIZE", "32768")
    os.environ.setdefault("SAIL_PARQUET__COMPRESSION", "zstd(1)")
    # The engine lives as long as this block: by default it forgets a session that was not asked anything for some minutes.
    os.environ.setdefault("SAIL_SPARK__SESSION_TIMEOUT_SECS", str(30 * 24 * 3600))
    # Sail's allocator gives freed memory back after so many milliseconds; by default it grows query by query.
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "10")
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        from pysail.spark import SparkConnectServer
        from pyspark.sql.connect.session import SparkSession as ConnectSession

        server = SparkConnectServer(ip="127.0.0.1", port=0)
        server.start(background=True)
        try:
            _, port = server.listening_address
            spark = ConnectSession.builder.remote(f"sc://127.0.0.1:{port}").create()
            try:
                spark.conf.set("spark.sql.session.timeZone", "UTC")
                _EMBEDDED.add(spark)
                yield spark  # type: ignore[misc]
            finally:
                spark.stop()
        finally:
            server.stop()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def is_embedded(spark: SparkSession) -> bool:
    """Whether the engine runs in this process, with its memory: then large work is cut into pieces, some at a time."""
    return spark in _EMBEDDED


def each(spark: SparkSession, work: Callable[[T], R], pieces: Iterable[T]) -> list[R]:
    """`work` on every piece, in order; on the embedded engine as many at a time as there are cores."""
    if not is_embedded(spark):
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_AT_ONCE)) as pool:
        return list(pool.map(work, pieces))
