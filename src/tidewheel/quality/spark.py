"""The door to Spark for tables that one process should not read: a local session, which a split's files are given to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.contracts.schema import AGES_SUFFIX
from tidewheel.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    Engine = Callable[[], AbstractContextManager[SparkSession]]  # opens a session


def has_java() -> bool:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java") is not None or (home is not None and (Path(home) / "bin" / "java").exists())


@contextmanager
def local_session() -> Iterator[SparkSession]:
    """A Spark session in a Java process of its own, time zone UTC; gone when the block ends.

    Raises:
        ConfigError: there is no Java.
    """
    if not has_java():
        raise ConfigError(
            "validate_data.spark_above_rows: a split has more rows, and Spark found no Java; install Java 17 or raise the limit"
        )
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.master("local[*]").appName("tidewheel validate_data")
    for name, value in settings.items():
        builder = builder.config(name, value)
    os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)  # left by an embedded engine: pyspark would ask for a server
    spark = builder.getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


def frame(spark: SparkSession, paths: Sequence[Path], columns: Sequence[str]) -> DataFrame:
    """These columns of the files; a NaN is null, as it is for pandas, and a list the number that is looked at of it."""
    from pyspark.sql import functions as F

    found = spark.read.parquet(*map(str, paths))
    fractions = {name for name, kind in found.dtypes if kind in ("double", "float")}
    lists = {name for name, kind in found.dtypes if kind.startswith("array")}

    def seen(name: str) -> Column:
        if name in lists:
            return _number_of(name).alias(name)
        return F.nanvl(F.col(name), F.lit(None)).alias(name) if name in fractions else F.col(name)

    return found.select(*(seen(name) for name in columns if name in found.columns))


def _number_of(name: str) -> Column:
    """`tidewheel.quality.lists.number_of` as an expression."""
    from pyspark.sql import functions as F

    if name.endswith(AGES_SUFFIX):
        return F.array_min(name).cast("double")
    return F.when(F.col(name).isNotNull(), F.size(name)).cast("double")
