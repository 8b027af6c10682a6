"""Rows of one split, a column or a chunk at a time: a table in memory, or Parquet files that are larger than it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq


class Rows(Protocol):
    """What judging needs of a split. A `pyarrow.Table` is one."""

    @property
    def num_rows(self) -> int: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def column_names(self) -> list[str]: ...

    def __getitem__(self, name: str) -> pa.ChunkedArray: ...


class ParquetRows:
    """The rows of Parquet files of one schema, read when asked for: memory holds one column, or one chunk, never all.

    Args:
        paths: the files, in the order of their rows; at least one.
        columns: the columns that exist for the reader; others are as if they were not there.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[str]) -> None:
        self.paths = tuple(paths)
        # With its own read-ahead the reader keeps what it has read until the end of the file (measured: 65 bytes a row).
        self._files = [pq.ParquetFile(path, pre_buffer=False) for path in self.paths]
        found = self._files[0].schema_arrow
        self.schema = pa.schema([field for field in found if field.name in set(columns)])
        self.column_names: list[str] = self.schema.names
        self.num_rows: int = sum(file.metadata.num_rows for file in self._files)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        parts = [file.read(columns=[name], use_threads=False) for file in self._files]
        return pa.concat_tables(parts)[name]

    def chunks(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        for file in self._files:
            for batch in file.iter_batches(size, columns=list(columns), use_threads=False):
                yield pa.Table.from_batches([batch])


def chunks(rows: Rows, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
    """Tables of at most `size` rows that together are the `columns` of `rows`, in their order; one where that is enough."""
    if isinstance(rows, ParquetRows) and rows.num_rows > size:
        yield from rows.chunks(columns, size)
        return
    table = pa.table({name: rows[name] for name in columns})
    for start in range(0, table.num_rows, size):
        yield table.slice(start, size)
