"""Who was served by which bundle on one day of a hybrid log, and how often users engaged: one row a user and bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tidewheel.contracts.hybrid import Part
from tidewheel.errors import ContractError
from tidewheel.logs.adapter import Days, Request, reach_days
from tidewheel.logs.hybrid import partitions, watermark

if TYPE_CHECKING:
    import pyarrow as pa

KEY = ["request_id", "item_id"]


@dataclass(frozen=True)
class ServedUsers:
    """One day: N rows of `user` (N,) int64 and `bundle` (N,) text or None, with the counts of `requests` and of `engaged`."""

    user: np.ndarray
    bundle: np.ndarray
    requests: np.ndarray
    engaged: np.ndarray


class ArmLog:
    """The hybrid log in `folder` as an experiment reads it: requests by who served them, engagements with one label.

    Every request counts, also one of which no impression was logged: engagements always are. An engagement counts once a
    request and item, up to the horizon after the serving.
    """

    def __init__(self, folder: Path, label: str, label_horizon: timedelta, max_lateness_days: int) -> None:
        self._folder, self._label, self._horizon = folder, label, label_horizon
        self._lateness = max_lateness_days
        self._reach = reach_days(label_horizon, max_lateness_days)
        self._days: dict[date, ServedUsers] = {}

    def end(self, first: date, skip_days: Sequence[date] = ()) -> date:
        """The day after the last one of which everything has arrived; `first` where not even that one has.

        Args:
            first: no day before it matters. `skip_days`: days that the log will never have.
        """
        request = Request(_Skipping(tuple(skip_days)), self._folder, Days(first, first), (), ())
        until = watermark(request)
        return first if until is None else max(first, until.date() - timedelta(days=self._reach))

    def day(self, day: date) -> ServedUsers:
        """What was served on a day and what came of it; none of it where the log does not have the day.

        Raises:
            ContractError: a file is broken, or does not say which bundle served.
        """
        if day not in self._days:
            self._days[day] = self._read_day(day)
        return self._days[day]

    def _read_day(self, day: date) -> ServedUsers:
        import pyarrow as pa
        import pyarrow.compute as pc

        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        of_day = Days(day, day + timedelta(days=1 + self._lateness))
        served = self._lines(Part.BACKEND, of_day, [*KEY, "user_id", "served_time", "bundle"])
        events = self._lines(
            Part.FRONTEND, Days(day, day + timedelta(days=1 + self._reach)), [*KEY, "served_time", "event", "event_time"]
        )
        time = pa.timestamp("us", tz="UTC")
        first, last = pa.scalar(start, time), pa.scalar(start + timedelta(days=1), time)

        def inside(table: pa.Table) -> pa.Table:
            when = table["served_time"].cast(time)
            return table.filter(pc.and_(pc.greater_equal(when, first), pc.less(when, last)))

        served, events = inside(served), inside(events)
        if not len(served):
            nothing = np.zeros(0, dtype=np.int64)
            return ServedUsers(nothing, nothing.astype(object), nothing, nothing)
        waited = pc.subtract(events["event_time"].cast(time), events["served_time"].cast(time))
        in_time = pc.less_equal(waited, pa.scalar(self._horizon, pa.duration("us")))
        engaged = events.filter(pc.and_(pc.equal(events["event"], self._label), in_time)).group_by(KEY).aggregate([])
        shown = served.group_by(KEY).aggregate([("user_id", "max"), ("bundle", "max")])
        engaged = engaged.append_column("engaged", pa.array(np.ones(len(engaged), dtype=np.int64)))
        joined = shown.join(engaged, KEY, join_type="left outer")
        requests = joined.group_by("request_id").aggregate([("user_id_max", "max"), ("bundle_max", "max"), ("engaged", "sum")])
        users = requests.group_by(["user_id_max_max", "bundle_max_max"]).aggregate(
            [("request_id", "count"), ("engaged_sum", "sum")]
        )
        return ServedUsers(
            user=users["user_id_max_max"].to_numpy().astype(np.int64),
            bundle=np.array(users["bundle_max_max"].to_pylist(), dtype=object),
            requests=users["request_id_count"].to_numpy(),
            engaged=users["engaged_sum_sum"].fill_null(0).to_numpy(),
        )

    def _lines(self, part: Part, arrived: Days, columns: list[str]) -> pa.Table:
        """The lines of a part that arrived on these days."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [pq.read_table(path, columns=columns) for path in self._readable(part, arrived, columns)]
        kinds = {"item_id": pa.int64(), "user_id": pa.int64()}
        empty = pa.table({name: pa.nulls(0, kinds.get(name, pa.string())) for name in columns})
        times = [name for name in columns if name.endswith("_time")]
        for name in times:
            empty = empty.set_column(columns.index(name), name, pa.nulls(0, pa.timestamp("us", tz="UTC")))
        return pa.concat_tables(tables, promote_options="permissive") if tables else empty

    def _readable(self, part: Part, arrived: Days, columns: Sequence[str]) -> Iterator[Path]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for day, folder in partitions(self._folder, part).items():
            for path in sorted(folder.glob("*.parquet")) if day in arrived else ():
                if path.name.startswith((".", "_")):
                    continue
                try:
                    names = pq.read_schema(path).names
                except (OSError, pa.ArrowInvalid) as error:
                    raise ContractError(f"{path}: cannot be read as a part of a hybrid log ({error}); restore it") from error
                if missing := [name for name in columns if name not in names]:
                    raise ContractError(
                        f"{path}: has no column {', '.join(missing)}; a holdout experiment needs what tidewheel serve --log "
                        "writes (docs/hybrid-log.md)"
                    )
                yield path


@dataclass(frozen=True)
class _Skipping:
    """As much of a source as the watermark asks for."""

    skip_days: tuple[date, ...]
