"""Whether a folder is a hybrid log: `contracts.hybrid` against what is there. Reads all footers and a sample of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.contracts.hybrid import COLUMNS, MARKER, SCORE_PREFIX, Part, is_feature_column
from tidewheel.logs.hybrid_values import DAY, Finding, check_events, check_orphans, check_served, fact, fault

SAMPLE_ROWS = 100_000  # of each part, from the beginnings of SAMPLE_FILES files spread over it
SAMPLE_FILES = 50
MAX_KEY_ROWS = 5_000_000  # served candidates that are read to look for orphans
FEATURE_TYPES = ("int64", "double", "string", "list<element: int64>")
_PREFIX = "date="


@dataclass(frozen=True)
class _File:
    """A file whose footer is well."""

    path: Path
    day: date
    num_rows: int
    columns: Mapping[str, str]  # name -> Arrow type


@dataclass(frozen=True)
class _PartFolder:
    """One part: its days, which of them are complete, which have a file that is not well, and the good files."""

    days: tuple[date, ...]
    complete: frozenset[date]
    broken: frozenset[date]
    files: tuple[_File, ...]


def is_hybrid_log(folder: Path) -> bool:
    """Whether the folder looks like a hybrid log, however broken."""
    return any((folder / part).is_dir() for part in Part)


def check(folder: Path, skip_days: Iterable[date] = ()) -> list[Finding]:
    """What is well and what is not with the hybrid log in `folder`; `skip_days` will never come (source.skip_days)."""
    found: list[Finding] = []
    parts = {part: _part(folder, part, found) for part in Part}
    _days(parts, frozenset(skip_days), found)
    _agreement(parts[Part.BACKEND].files, found)
    samples = {part: _sample(part, parts[part].files) for part in Part}
    if samples[Part.BACKEND].num_rows:
        found += check_served(samples[Part.BACKEND])
    if samples[Part.FRONTEND].num_rows:
        found += check_events(samples[Part.FRONTEND])
        found.append(_orphans(samples[Part.FRONTEND], parts))
    return found


def _part(folder: Path, part: Part, found: list[Finding]) -> _PartFolder:
    root = folder / part
    if not root.is_dir():
        remedy = "servers write backend, clients frontend: docs/hybrid-log.md"
        found.append(fault(str(root), "missing", "a folder with a folder for each day", remedy))
        return _PartFolder((), frozenset(), frozenset(), ())
    days: dict[date, Path] = {}
    for path in _visible(root):
        day = _day(path)
        if day is None:
            found.append(fault(str(path), "not a partition", "folders date=YYYY-MM-DD", "rename it or move it away"))
        else:
            days[day] = path
    files: list[_File] = []
    broken = set()
    for day, path in days.items():
        before = len(found)
        files += _files(part, day, path, found)
        if len(found) > before:
            broken.add(day)
    rows = sum(file.num_rows for file in files)
    complete = frozenset(day for day, path in days.items() if (path / MARKER).is_file())
    found.append(fact(part.value, f"{len(days)} days, {len(complete)} complete, {len(files)} files, {rows:,} rows"))
    return _PartFolder(tuple(sorted(days)), complete, frozenset(broken), tuple(files))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _day(path: Path) -> date | None:
    try:
        day = date.fromisoformat(path.name.removeprefix(_PREFIX))
    except ValueError:
        return None
    return day if path.is_dir() and path.name == f"{_PREFIX}{day.isoformat()}" else None


def _files(part: Part, day: date, folder: Path, found: list[Finding]) -> list[_File]:
    files = []
    for path in _visible(folder):
        if path.name == MARKER:
            continue
        if path.suffix != ".parquet":
            found.append(fault(str(path), "not a Parquet file", "*.parquet and " + MARKER, "move it away"))
            continue
        try:
            footer = pq.read_metadata(path)
            columns = {field.name: str(field.type) for field in footer.schema.to_arrow_schema()}
        except (pa.ArrowException, OSError, ValueError) as error:
            said = str(error).splitlines()[0]
            remedy = "write it again; writers publish a file by renaming it when it is whole"
            found.append(fault(str(path), f"cannot be read ({said})", "a whole Parquet file", remedy))
            continue
        if faults := _columns(part, path, columns):
            found += faults
        else:
            files.append(_File(path, day, footer.num_rows, columns))
    return files


def _columns(part: Part, path: Path, columns: Mapping[str, str]) -> list[Finding]:
    """Columns that lack, have another type than the contract's, or are not in it."""
    faults = []
    for name, (want, _, may_lack) in COLUMNS[part].items():
        if name not in columns and not may_lack:
            faults.append(fault(f"{path}, {name}", "missing", want, "write this column"))
        elif columns.get(name, want) != want:
            faults.append(fault(f"{path}, {name}", columns[name], want, "write this column with its type"))
    for name in sorted(set(columns) - set(COLUMNS[part])):
        if part is Part.FRONTEND:
            faults.append(fault(f"{path}, {name}", columns[name], f"only {', '.join(COLUMNS[part])}", "leave it out"))
        elif not is_feature_column(name) and columns[name] != "double":
            faults.append(fault(f"{path}, {name}", columns[name], f"double ({SCORE_PREFIX}<label>)", "write it as double"))
        elif is_feature_column(name) and columns[name] not in FEATURE_TYPES:
            faults.append(fault(f"{path}, {name}", columns[name], f"one of {', '.join(FEATURE_TYPES)}", "cast the feature"))
    return faults


def _days(parts: Mapping[Part, _PartFolder], skipped: frozenset[date], found: list[Finding]) -> None:
    """The watermark, and days that keep it from going on."""
    every = {day for part in parts.values() for day in part.days}
    complete = frozenset.intersection(*(part.complete for part in parts.values()))
    if not complete:
        remedy = f"write {MARKER} into a day of each part when nothing is added to it any more"
        found.append(fault("watermark", "no day is complete in both parts", "at least one", remedy))
        return
    day = min(complete)
    while day in complete or (day in skipped and day < max(complete)):
        day += timedelta(days=1)
    found.append(fact("watermark", f"{day}: everything before it is read"))
    for at in range((max(complete) - day).days):  # days that hold up others, which are complete
        stuck = day + timedelta(days=at)
        for part, is_there in ((name, stuck in part.days) for name, part in parts.items() if stuck not in part.complete):
            if stuck not in skipped:
                what = "not complete" if is_there else "missing"
                remedy = f"write {MARKER} when it is whole, or name the day in source.skip_days"
                found.append(
                    fault(f"{part.value}/{_PREFIX}{stuck}", f"{what}, later days are", "complete days in a row", remedy)
                )
    if early := sorted(other for other in every if other < min(complete)):
        found.append(fact("incomplete", f"{', '.join(map(str, early))}: before the first day that is complete in both parts"))
    if late := sorted(other for other in every if other > max(complete)):
        found.append(fact("incomplete", f"{', '.join(map(str, late))}: not read yet"))


def _agreement(files: Sequence[_File], found: list[Finding]) -> None:
    """Features that are of one type in some files and of another in others."""
    first: dict[str, _File] = {}
    reported = set()
    for file in files:
        for name, kind in file.columns.items():
            other = first.setdefault(name, file)
            if other.columns[name] != kind and name not in reported:
                reported.add(name)
                expected = f"{other.columns[name]} as in {other.path}"
                found.append(fault(f"{file.path}, {name}", kind, expected, "one type a feature: write one of the files again"))


def _sample(part: Part, files: Sequence[_File]) -> pa.Table:
    """Rows of up to SAMPLE_FILES files, with their contract's columns, scores and `day`."""
    filled = [file for file in files if file.num_rows]
    chosen = filled[:: max(1, -(-len(filled) // SAMPLE_FILES))]
    tables = []
    for file in chosen:
        names = [name for name in file.columns if name in COLUMNS[part] or name.startswith(SCORE_PREFIX)]
        with pq.ParquetFile(file.path) as parquet:
            batch = next(parquet.iter_batches(max(1, SAMPLE_ROWS // len(chosen)), columns=names))
        days = pa.array([file.day] * batch.num_rows, pa.date32())
        tables.append(pa.Table.from_batches([batch]).append_column(DAY, days))
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def _orphans(events: pa.Table, parts: Mapping[Part, _PartFolder]) -> Finding:
    """Looks only for candidates of days that are complete and well in the backend part, newest first, within bounds."""
    backend = parts[Part.BACKEND]
    rows = dict.fromkeys(backend.days, 0)
    for file in backend.files:
        rows[file.day] += file.num_rows
    served_day = pc.cast(events["served_time"], pa.date32())
    wanted: set[date] = set()
    budget = MAX_KEY_ROWS
    for day in sorted(set(served_day.to_pylist()) & (backend.complete - backend.broken), reverse=True):
        budget -= rows[day]
        if budget < 0:
            break
        wanted.add(day)
    if not wanted:
        return fact(
            "orphans", "not looked for: no day of the backend part is complete, well and small enough; ingest counts them"
        )
    arrived = wanted | {day + timedelta(days=1) for day in wanted}  # written after midnight
    keys = ["request_id", "item_id"]
    tables = [pq.read_table(file.path, columns=keys) for file in backend.files if file.day in arrived]
    served = pa.concat_tables(tables, promote_options="default") if tables else events.slice(0, 0)
    return check_orphans(events.filter(pc.is_in(served_day, pa.array(sorted(wanted), pa.date32()))), served)
