"""The world's online store of what users did: their last items, as a server would read them on a given day."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ContractError

ENGAGED = ".engaged"  # <day>.parquet: what users did with the impressions of a day, on that day or the next
ENGAGED_SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("author_id", pa.int64()),
        ("label", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
    ]
)
MICROSECONDS_A_DAY = 86_400_000_000
MICROSECONDS_AN_HOUR = 3_600_000_000
NO_AGE = -1


class Engagements:
    """Sequences over the world in `folder`, exactly as ingest makes them (tidewheel.contracts.schema.FeatureSpec)."""

    def __init__(self, folder: Path, source: WorldSource, lookback_days: int) -> None:
        self._folder, self._lookback_days = folder, lookback_days
        self._start = round(source.start.timestamp()) * 1_000_000
        self._days = lru_cache(maxsize=lookback_days + 2)(self._read_day)

    def as_of(self, day: int, feature: FeatureSpec, user_ids: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of a sequence at the start of `day`, (U, length) int64 each, an age of -1 where there is no item.

        Args:
            user_ids: (U,) ascending.

        Raises:
            ContractError: a day between the world's start and `day` is missing or unreadable.
        """
        end = self._start + day * MICROSECONDS_A_DAY
        first = end - self._lookback_days * MICROSECONDS_A_DAY
        items = np.zeros((len(user_ids), feature.length), dtype=np.int64)
        ages = np.full(items.shape, NO_AGE, dtype=np.int64)
        # What was shown on the day before the first may have been engaged with after midnight.
        past = [self._days(number) for number in range(max(0, day - self._lookback_days - 1), day)]
        if past:
            table = pa.concat_tables(past)
            table = table.filter(pc.field("label") == feature.label)
            times = table["time"].cast(pa.int64()).to_numpy()
            users, found = table["user_id"].to_numpy(), table[feature.of].to_numpy()
            newest_first = np.lexsort((-times, users))
            newest_first = newest_first[(times[newest_first] >= first) & (times[newest_first] < end)]
            users = users[newest_first]
            place = np.arange(len(users)) - np.searchsorted(users, users)  # of each item among its user's
            kept = place < feature.length
            rows, newest_first, place = np.searchsorted(user_ids, users[kept]), newest_first[kept], place[kept]
            items[rows, place] = found[newest_first]
            ages[rows, place] = (end - times[newest_first]) // MICROSECONDS_AN_HOUR
        return dict(zip(feature.columns, (items, ages), strict=True))

    def _read_day(self, day: int) -> pa.Table:
        path = self._folder / ENGAGED / f"{day}.parquet"
        try:
            return pq.ParquetFile(path).read()
        except (OSError, ValueError, KeyError) as error:
            raise ContractError(
                f"{path}: cannot be read as what the world's users did ({error}); delete the world's folder to make it again"
            ) from error
