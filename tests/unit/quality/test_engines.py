"""One suite, several ways to run it: whole, in chunks, on Spark. All say the same."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.quality.tables import CONFIG, FEATURES, LABELS, lists, split
from tidewheel.errors import ConfigError
from tidewheel.quality import expectations, spark
from tidewheel.quality.expectations import check, contract_columns
from tidewheel.quality.rows import ParquetRows

COLUMNS = contract_columns(FEATURES, [label.name for label in LABELS])
BROKEN = {
    "row_key": pa.array([*range(190), *range(10)]),
    "tab": pa.array([None] * 50 + ["main"] * 150),
    "price": pa.array([0.5] * 97 + [None, float("nan"), float("inf")] + [1.5] * 100),
    "weight": pa.array([4.0] * 150 + [0.0] + [4.0] * 49),
    "inclusion_probability": pa.array([1.5] + [0.25] * 199),
    "label_click": pa.array([0, 1] * 99 + [0, 2], pa.int8()),
    "label_like": pa.array([1] * 200, pa.int8()),
    "user_id": pa.array([None] + [3] * 199, pa.int64()),
    "author_id": None,
    "clicks": lists([None, [1, 2, 3, 4], *[[7, 7]] * 198]),
    "clicks_age_hours": lists([None, [-1, 3], [], *[[4, 5]] * 197]),
}


def parquet(folder, table, files=3):
    step = -(-table.num_rows // files)
    paths = [folder / f"part-{number}.parquet" for number in range(files)]
    for number, path in enumerate(paths):
        pq.write_table(table.slice(number * step, step), path)
    return ParquetRows(paths, COLUMNS)


def said(reasons):
    return [(reason.check, reason.phase.value, reason.message, reason.value, reason.limit) for reason in reasons]


@pytest.mark.parametrize("changes", [{}, BROKEN], ids=["healthy", "broken"])
@pytest.mark.parametrize("chunk_rows", [1, 7, 64])
def test_chunks_say_what_the_whole_table_says(changes, chunk_rows, monkeypatch):
    table = split(**changes) if chunk_rows > 1 else split(**changes).slice(90, 20)
    whole = check("train", table, FEATURES, LABELS, CONFIG)

    monkeypatch.setattr(expectations, "CHUNK_ROWS", chunk_rows)

    assert said(check("train", table, FEATURES, LABELS, CONFIG)) == said(whole)


def test_files_read_a_column_at_a_time_say_what_the_table_in_memory_says(tmp_path):
    table = split(**BROKEN)
    rows = parquet(tmp_path, table)

    assert rows.num_rows == 200
    assert said(check("train", rows, FEATURES, LABELS, CONFIG)) == said(check("train", table, FEATURES, LABELS, CONFIG))


def test_columns_that_the_model_does_not_use_are_not_even_read(tmp_path):
    table = split(notes=pa.array([[None, {"a": 1}]] * 200), day_after_tomorrow=pa.nulls(200), price2=pa.array(["dear"] * 200))
    path = tmp_path / "part-0.parquet"
    pq.write_table(table, path)
    rows = ParquetRows([path], COLUMNS)

    assert set(rows.column_names) == set(COLUMNS)
    assert said(check("train", table, FEATURES, LABELS, CONFIG)) == said(check("train", split(), FEATURES, LABELS, CONFIG))
    assert said(check("train", rows, FEATURES, LABELS, CONFIG)) == said(check("train", split(), FEATURES, LABELS, CONFIG))


PROGRAM = """
import json, sys
from pathlib import Path
from tests.unit.quality.tables import CONFIG, FEATURES, LABELS
from tests.unit.quality.test_engines import COLUMNS, said
from tidewheel.quality import spark
from tidewheel.quality.expectations import check, library
from tidewheel.quality.rows import ParquetRows

library(with_spark=True)
found = {}
with spark.local_session() as session:
    for folder in map(Path, sys.argv[1:]):
        rows = ParquetRows(sorted(folder.glob("*.parquet")), COLUMNS)
        frame = spark.frame(session, rows.paths, rows.column_names)
        engines = {"pandas": None, "spark": frame}
        found[folder.name] = {
            name: said(check("train", rows, FEATURES, LABELS, CONFIG, engine)) for name, engine in engines.items()
        }
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not spark.has_java(), reason="Spark needs Java, and there is none on PATH or in JAVA_HOME")
def test_pandas_and_spark_give_the_same_reasons(tmp_path):
    folders = {"healthy": split(), "broken": split(**BROKEN)}
    for name, table in folders.items():
        (tmp_path / name).mkdir()
        parquet(tmp_path / name, table)

    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *(str(tmp_path / name) for name in folders)], capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    for name in folders:
        assert found[name]["spark"] == found[name]["pandas"]
    assert {phase for _, phase, *_ in found["healthy"]["spark"]} == {"Successful"}
    assert "Failed" in {phase for _, phase, *_ in found["broken"]["spark"]}


def test_without_java_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(spark, "has_java", lambda: False)

    with pytest.raises(ConfigError, match="install Java 17 or raise the limit"), spark.local_session():
        pass
