"""The folder of impressions as parts: the hash of its user decides the part of a row, and each part is sorted by row key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.errors import ContractError
from tidewheel.sampling.hash import xxhash64
from tidewheel.sampling.parts import ORDER, num_parts

BATCH = 1 << 18


class Impressions:
    """Parts as `ingest` writes them are streamed. Rows in any other files are brought into parts first, one at a time.

    Attributes:
        num_parts: follows from the number of rows alone.
        schema: of the Parquet files.

    Raises:
        ContractError: there is no file, or one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.glob("*.parquet"))
        try:
            rows = sum(pq.read_metadata(path).num_rows for path in self._files)
            self.schema = pq.read_schema(self._files[0]).remove_metadata()
        except (IndexError, OSError, pa.ArrowInvalid) as error:
            raise ContractError(f"{folder}: impressions cannot be read ({error}); run ingest again") from error
        self.num_parts = num_parts(rows)
        self._is_canonical = len(self._files) == self.num_parts and all(
            _holds_its_part(path, number, self.num_parts) for number, path in enumerate(self._files)
        )

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """All rows, some at a time, in no promised order."""
        for path in self._files:
            yield from _batches(path, columns)

    def part(self, number: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of one part, some at a time, sorted by row key."""
        if self._is_canonical:
            yield from _batches(self._files[number], columns)
            return
        wanted = sorted({*columns, *ORDER} & set(self.schema.names))
        rows = [batch.filter(pa.array(self._part_of(batch) == number)) for batch in self.tables(wanted)]
        table = pa.concat_tables(rows).sort_by([(name, "ascending") for name in ORDER if name in wanted])
        yield from (table.select(columns).slice(start, BATCH) for start in range(0, table.num_rows, BATCH))

    def _part_of(self, batch: pa.Table) -> np.ndarray:
        return _parts(batch, self.num_parts)


def _parts(batch: pa.Table, num_parts: int) -> np.ndarray:
    parts: np.ndarray = xxhash64(batch["user_id"].to_numpy()) % num_parts
    return parts


def _holds_its_part(path: Path, number: int, num_parts: int) -> bool:
    last = np.iinfo(np.int64).min
    for batch in _batches(path, ["row_key", "user_id"]):
        keys = batch["row_key"].to_numpy()
        if not len(keys):
            continue
        if keys[0] < last or (keys[1:] < keys[:-1]).any() or (_parts(batch, num_parts) != number).any():
            return False
        last = keys[-1]
    return True


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            # One thread: whoever wants more reads several parts at once.
            for batch in file.iter_batches(BATCH, columns=list(columns), use_threads=False):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowInvalid) as error:
        raise ContractError(f"{path}: impressions cannot be read ({error}); run ingest again") from error
