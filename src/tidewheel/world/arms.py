"""Who ranks for whom on one day, and how often a user was served by whom before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.contracts.assignment import Assignment
from tidewheel.contracts.faults import AnyFault, DelayedHarm
from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.recipe import WorldSource
from tidewheel.errors import ContractError
from tidewheel.world.hybrid import partition
from tidewheel.world.policy import Scorer


@dataclass(frozen=True)
class HeldOut:
    """The users for whom `assignment` names `bundle`: it goes on ranking for them."""

    bundle: str
    scorer: Scorer
    assignment: Assignment

    def users(self, user_ids: np.ndarray) -> np.ndarray:
        """(N,) bool: which of the users (N,) they are."""
        known, place = np.unique(user_ids, return_inverse=True)
        is_held = [self.assignment.bundle_of(user) == self.bundle for user in known.tolist()]
        found: np.ndarray = np.array(is_held, dtype=bool)[place]
        return found


@dataclass(frozen=True)
class Serving:
    """Who ranks on a day: `scorer`, named `bundle` in the log, but `held_out` for its users. No scorer: popularity ranks."""

    scorer: Scorer | None
    bundle: str | None
    held_out: HeldOut | None = None


@dataclass(frozen=True)
class Ranked:
    """N requests with C candidates as they were ranked: `bundles` (N,), `worth` (N, C), `scores` label -> (N, C)."""

    bundles: np.ndarray
    worth: np.ndarray
    scores: Mapping[str, np.ndarray]

    def with_held_out(self, is_held: np.ndarray, kept: Ranked) -> Ranked:
        """The same requests, as `kept` says where (N,) `is_held`. A label that one of both does not score is NaN there."""
        unknown = np.full(self.worth.shape, np.nan)
        labels = dict.fromkeys([*self.scores, *kept.scores])
        return Ranked(
            np.where(is_held, kept.bundles, self.bundles),
            np.where(is_held[:, None], kept.worth, self.worth),
            {
                label: np.where(is_held[:, None], kept.scores.get(label, unknown), self.scores.get(label, unknown))
                for label in labels
            },
        )


class Exposure:
    """Which bundle served which users on the written days of the world in `folder`."""

    def __init__(self, folder: Path, source: WorldSource) -> None:
        self._folder, self._source = folder, source
        self._days = lru_cache(maxsize=None)(self._read_day)

    def first_to_begin(self, start: int, day: int, serving: Iterable[str | None]) -> str | None:
        """The bundle that serves on a day from `start` to `day` and on none before; the first of them, or None.

        Args:
            serving: the bundles that serve on `day`, which is not written yet.
        """
        earlier = set().union(*(self._days(past) for past in range(start)))
        for past in range(start, day):
            if new := sorted(set(self._days(past)) - earlier):
                return new[0]
        return min((bundle for bundle in serving if bundle is not None and bundle not in earlier), default=None)

    def days_with(self, bundle: str, start: int, day: int, user_ids: np.ndarray) -> np.ndarray:
        """(N,) on how many of the days `start <= d < day` the bundle served each of the users."""
        count = np.zeros(len(user_ids))
        for past in range(start, day):
            count += np.isin(user_ids, self._days(past).get(bundle, np.zeros(0, dtype=np.int64)))
        return count

    def reaction_factor(self, faults: Iterable[AnyFault], day: int, bundles: np.ndarray, user_ids: np.ndarray) -> np.ndarray:
        """(N,) how many times as often as they would the users of N requests click, for each delayed harm among the faults.

        Args:
            faults: those that are active on `day`.
            bundles: (N,) what ranked each request, None where it has no name. `user_ids`: (N,) whose request it is.
        """
        factor = np.ones(len(user_ids))
        for fault in faults:
            if not isinstance(fault, DelayedHarm):
                continue
            start = max(0, -((self._source.start - fault.start) // timedelta(days=1)))
            tiring = self.first_to_begin(start, day, set(bundles.tolist()))
            if tiring is not None:
                exposed = self.days_with(tiring, start, day, user_ids)
                factor *= np.where(bundles == tiring, clicks_after(exposed, fault), 1.0)
        return factor

    def _read_day(self, day: int) -> dict[str, np.ndarray]:
        """Bundle -> the users that it served."""
        path = partition(self._folder, self._source, Part.BACKEND, day) / "part-0.parquet"
        try:
            table = pq.ParquetFile(path).read(columns=["user_id", "bundle"])
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(
                f"{path}: cannot be read as what the world served ({error}); delete the world's folder to make it again"
            ) from error
        known = table.filter(pc.is_valid(table["bundle"])).group_by(["user_id", "bundle"]).aggregate([])
        names, users = known["bundle"].to_pylist(), known["user_id"].to_numpy()
        return {name: users[np.array(names) == name] for name in set(names)}


def clicks_after(exposed: np.ndarray, fault: DelayedHarm) -> np.ndarray:
    """(N,) how many times as often as they would users click whom the bundle served on so many days before: the truth."""
    tired: np.ndarray = 1.0 + fault.lift - (fault.lift + fault.loss) * -np.expm1(-exposed / fault.days)
    return tired
