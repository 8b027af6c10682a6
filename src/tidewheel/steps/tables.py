"""Reading a dataset's Parquet into one Arrow table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.contracts.dataset import DatasetManifest


def read(folder: Path, manifest: DatasetManifest) -> pa.Table:
    """All rows of a dataset, in the order of its files."""
    parts = [pq.read_table(folder / entry.path) for entry in manifest.files if entry.path.endswith(".parquet")]
    return pa.concat_tables(parts)
