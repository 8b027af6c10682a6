"""What servers wrote of the candidates they scored: the bundle, its scores, and features as they were scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.contracts.hybrid import SCORE_PREFIX, Part
from tidewheel.errors import ContractError
from tidewheel.logs.adapter import Days
from tidewheel.logs.hybrid import partitions

if TYPE_CHECKING:
    import pyarrow as pa

KEY = ("request_id", "item_id")


def served_candidates(folder: Path, arrived: Days, label: str, features: Sequence[str]) -> pa.Table:
    """One row a served candidate, the last by time: `request_id`, `item_id`, `bundle`, `score_<label>`, and `features`.

    A feature that some file lacks is left out: null there would say that the server had none.

    Args:
        folder: of a hybrid log. `arrived`: the days whose complete partitions are read.

    Raises:
        ContractError: there is no such partition, a file is broken, or no file has the bundle and the score of the label.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    needed, optional = (*KEY, "served_time"), ("bundle", SCORE_PREFIX + label, *features)
    tables = []
    for day, partition in partitions(folder, Part.BACKEND).items():
        if day not in arrived:
            continue
        for path in sorted(partition.glob("*.parquet")):
            if path.name.startswith((".", "_")):
                continue
            try:
                names = pq.read_schema(path).names
                tables.append(pq.read_table(path, columns=[*needed, *(name for name in optional if name in names)]))
            except (OSError, pa.ArrowInvalid) as error:
                raise ContractError(f"{path}: cannot be read as served candidates ({error}); restore the file") from error
    if not tables:
        raise ContractError(f"{folder}: no complete day of the backend part from {arrived.first} to {arrived.end}")
    everywhere = set.intersection(*(set(table.column_names) for table in tables))
    tables = [table.drop_columns([x for x in table.column_names if x in features and x not in everywhere]) for table in tables]
    found = pa.concat_tables(tables, promote_options="permissive")
    for name in ("bundle", SCORE_PREFIX + label):
        if name not in found.column_names:
            raise ContractError(
                f"{folder}: served candidates have no column {name} from {arrived.first} to {arrived.end}; expected what "
                "tidewheel serve --log writes (docs/hybrid-log.md)"
            )
    return _last_of_each(found.sort_by("served_time"))


def _last_of_each(table: pa.Table) -> pa.Table:
    """The last row of each request and item, in the table's order."""
    import numpy as np
    import pyarrow as pa

    place = pa.array(np.arange(table.num_rows))
    last = table.select(list(KEY)).append_column("place", place).group_by(list(KEY)).aggregate([("place", "max")])
    return table.take(pa.array(np.sort(last["place_max"].to_numpy())))
