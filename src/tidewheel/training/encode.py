"""From Parquet to encoded rows in two passes: what there is to know of the columns, then the rows themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.ranker.bundle import ENCODERS
from tidewheel.ranker.columns import columns_of
from tidewheel.ranker.encoding import Encoders
from tidewheel.ranker.fitting import Fitting
from tidewheel.training.rows import MANIFEST, EncodedRows, Layout, RowsManifest, RowsWriter
from tidewheel.training.source import NumberCheck, labels_of, read_parts, weights_of
from tidewheel.training.teaching import Teacher


def fitted_encoders(
    source: Path, features: tuple[FeatureSpec, ...], labels: tuple[str, ...], folder: Path, progress: Progress = silent
) -> Encoders:
    """Learn the encoders from the training rows of `source`; they are kept in `folder` for a next try.

    Raises:
        ContractError: a column is missing, has NaN or no value at all, or there are no rows.
    """
    path = folder / ENCODERS
    if path.exists() and (kept := Encoders.read(path)).features == features:
        return kept
    fitting, check, rows = Fitting(features), NumberCheck(features), 0
    for part in read_parts(source, features, labels):
        check.add(part)
        fitting.add(columns_of(part, features), weights_of(part, source))
        rows += part.num_rows
        progress(0.5, f"{rows:,} rows looked at")
    check.expect_none(source)
    encoders = fitting.done()
    encoders.write(path)
    return encoders


def encoded_rows(
    source: Path,
    encoders: Encoders,
    labels: tuple[str, ...],
    folder: Path,
    teacher: Teacher | None = None,
    progress: Progress = silent,
) -> EncodedRows:
    """Encode the rows of `source` into `folder`, or open what an earlier try finished there.

    Raises:
        ContractError: rows, columns or weights are not as promised, or the teacher's columns are missing.
    """
    inline = teacher if teacher is not None and teacher.is_inline else None
    key = digest_of([encoders.model_dump(mode="json"), labels, teacher.name if teacher else None, inline is not None])
    if not (folder / MANIFEST).exists() or RowsManifest.read(folder / MANIFEST).key != key:
        _write(source, encoders, labels, folder, teacher, key, progress)
    return EncodedRows.open(folder, None if inline is None else inline.score)


def _write(
    source: Path,
    encoders: Encoders,
    labels: tuple[str, ...],
    folder: Path,
    teacher: Teacher | None,
    key: str,
    progress: Progress,
) -> None:
    layout = Layout(ids=encoders.widths[0], numbers=encoders.widths[1], labels=len(labels))
    if teacher is not None and teacher.is_inline:
        sizes = {"teacher_ids": teacher.encoders.widths[0], "teacher_numbers": teacher.encoders.widths[1]}
        layout = layout.model_copy(update=sizes)
    elif teacher is not None:
        layout = layout.model_copy(update={"soft_labels": len(labels)})
    own = {feature.name for feature in encoders.features}
    others = tuple(f for f in (teacher.features if teacher else ()) if f.name not in own)
    rows = 0
    with RowsWriter(folder, layout, key) as writer:
        for part in read_parts(source, encoders.features + others, labels):
            hard = labels_of(part, labels)
            if not np.isfinite(hard).all():
                raise ContractError(f"{source}: a label is null; expected 0 or 1: run again from ingest on")
            soft, theirs = None, None
            if teacher is not None:
                theirs = teacher.encoders.encode(columns_of(part, teacher.features))
                if not teacher.is_inline:
                    soft, theirs = _filled(teacher.score(theirs), hard), None
            encoded = encoders.encode(columns_of(part, encoders.features))
            writer.add(encoded, hard, weights_of(part, source), soft, theirs)
            rows += part.num_rows
            progress(0.5, f"{rows:,} rows encoded")
        writer.finish()


def _filled(soft: np.ndarray, hard: np.ndarray) -> np.ndarray:
    """A label that the teacher does not know stays the row's own."""
    return np.where(np.isnan(soft), hard, soft)
