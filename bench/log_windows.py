"""Windows of the real log for the benches of the ranker: rows by our ingest and sample, encoded once for all systems.

Each window has a folder `train` and a folder `eval` with the rows as Parquet (`rows/`), the same rows encoded (`ids.npy`,
`numbers.npy`, `labels.npy`, `users.npy`) and `facts.json`. Encoders are fitted on the window's training rows.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.work import recipe, window
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.schema import WEIGHT, label_column
from tidewheel.ranker import columns_of
from tidewheel.ranker.encoding import Encoders
from tidewheel.ranker.fitting import fit

ROWS = "rows"
TRAIN_DAYS = 5
ENDS = tuple(f"2022-05-0{day}" for day in range(2, 7))  # of the windows that figures are of
TUNING = ("tune", "tune-2")  # windows that settings are chosen on, within the first one's training days


def bench_recipe() -> Recipe:
    """recipes/kuairand.yaml with five training days; all of their rows are trained on, none kept for calibration."""
    of = short_recipe()
    return of.model_copy(update={"sample": of.sample.model_copy(update={"calibration_share": 0.0})})


def short_recipe() -> Recipe:
    """recipes/kuairand.yaml with five training days and one evaluation day."""
    of = recipe(negative_rate=1.0)
    return of.model_copy(update={"window": of.window.model_copy(update={"days": TRAIN_DAYS + 1, "eval_days": 1})})


def make_windows(data: Path, ends: tuple[str, ...], out: Path) -> dict[str, Path]:
    """Folder of each window's end, made where it is not there yet, and of each of TUNING.

    These split the first window's training days: `tune` judges the last one by those before it, `tune-2` the last but one.
    """
    folders = {end: out / end for end in ends}
    for end, folder in folders.items():
        if not folder.is_dir():
            splits = write_splits(bench_recipe(), data, end, out / f"{end}.splits")
            _write(folder, pq.read_table(splits / "train"), pq.read_table(splits / "eval"))
            shutil.rmtree(splits)
    eval_day = window(bench_recipe(), ends[0]).end - timedelta(days=1)
    for back, name in enumerate(TUNING, start=1):
        folders[name] = out / name
        if not folders[name].is_dir():
            rows = pq.read_table(folders[ends[0]] / "train" / ROWS)
            days_back = pc.subtract(pa.scalar(eval_day, rows["event_time"].type), rows["event_time"])
            begin, end = (pa.scalar(timedelta(days=days), days_back.type) for days in (back, back - 1))
            is_before = pc.greater(days_back, begin)
            is_judged = pc.and_(pc.invert(is_before), pc.greater(days_back, end))
            _write(folders[name], rows.filter(is_before), rows.filter(is_judged))
    return folders


def write_splits(of: Recipe, data: Path, end: str, out: Path) -> Path:
    """The splits of the window of `of` that ends then, by ingest and sample, where `out` is not there yet; returns it."""
    from tidewheel.logs import embedded_session, ingest
    from tidewheel.sampling import sample

    if out.is_dir():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    span = window(of, end)
    with tempfile.TemporaryDirectory(dir=out.parent.resolve()) as name, embedded_session() as spark:
        scratch = Path(name)
        ingest(spark, of.source, of.labels, of.active_features, of.ingest, span, scratch, data)
        sample(scratch / "impressions", of.sample, of.window, span, list(of.label_names), scratch / "splits")
        (scratch / "splits").rename(out)
    return out


def _write(folder: Path, train: pa.Table, test: pa.Table) -> None:
    of = bench_recipe()
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    encoders = fit(columns_of(train, of.active_features), train.column(WEIGHT).to_numpy(), of.active_features)
    for name, table in (("train", train), ("eval", test)):
        _write_part(partial / name, table, encoders, of)
    partial.rename(folder)


def _write_part(folder: Path, table: pa.Table, encoders: Encoders, of: Recipe) -> None:
    (folder / ROWS).mkdir(parents=True)
    pq.write_table(table, folder / ROWS / "part-00000.parquet")
    encoded = encoders.encode(columns_of(table, encoders.features))
    labels = [table.column(label_column(label)).to_numpy().astype(np.float32) for label in of.label_names]
    np.save(folder / "ids.npy", encoded.ids.astype(np.int32))
    np.save(folder / "numbers.npy", encoded.numbers)
    np.save(folder / "labels.npy", np.stack(labels, axis=1))
    np.save(folder / "users.npy", table.column("user_id").to_numpy())
    names = [feature.name for feature in encoders.categorical]
    facts = {"names": names, "sizes": encoders.sizes, "labels": of.label_names, "rows": table.num_rows}
    (folder / "facts.json").write_text(json.dumps(facts))
