"""What an experiment reads of a hybrid log: every request of every user, by who served it, with its engagements."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.unit.world.conftest import MakeWorld, part_of
from tests.unit.world.conftest import make_world as make_world
from tidewheel.contracts.hybrid import Part
from tidewheel.errors import ContractError
from tidewheel.logs.arms import ArmLog, ServedUsers
from tidewheel.world import World

DAY = date(2026, 1, 6)
HORIZON = timedelta(hours=6)


class Indifferent:
    def score(self, columns):
        return {"click": columns["item_age_days"] * 0.001 + 0.1}


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    world = make_world(requests_per_day=900)
    world.ensure_log(world.source.start + timedelta(days=1), None, None)
    world.ensure_log(world.source.start + timedelta(days=4), Indifferent(), "b1")
    return world


def read(world: World, day: date = DAY, label: str = "click", horizon: timedelta = HORIZON) -> ServedUsers:
    return ArmLog(world.folder, label, horizon, max_lateness_days=1).day(day)


def by_hand(world: World, label: str, horizon: timedelta) -> pd.DataFrame:
    """user -> requests and engagements of DAY, from the rows themselves."""
    served, events = part_of(world, Part.BACKEND).to_pandas(), part_of(world, Part.FRONTEND).to_pandas()
    served = served[served.served_time.dt.date == DAY]
    events = events[(events.event == label) & (events.event_time - events.served_time <= horizon)]
    pairs = served.merge(events[["request_id", "item_id"]].drop_duplicates(), on=["request_id", "item_id"])
    requests = served.groupby("user_id").request_id.nunique()
    return pd.DataFrame({"requests": requests, "engaged": pairs.groupby("user_id").size()}).fillna(0).astype(int)


@pytest.mark.parametrize(("label", "hours"), [("click", 6), ("like", 6), ("like", 0.1)])
def test_requests_and_engagements_are_those_of_the_rows(world: World, label: str, hours: float) -> None:
    horizon = timedelta(hours=hours)
    found, want = read(world, label=label, horizon=horizon), by_hand(world, label, horizon)
    got = pd.DataFrame({"requests": found.requests, "engaged": found.engaged}, index=found.user).sort_index()
    assert got.requests.to_dict() == want.requests.to_dict()
    assert got.engaged.to_dict() == want.engaged.to_dict()
    assert set(found.bundle) == {"b1"}


def test_days_before_the_first_release_name_nobody(world: World) -> None:
    found = read(world, date(2026, 1, 5))
    assert found.requests.sum() == 900
    assert set(found.bundle) == {None}


def test_a_day_that_the_log_does_not_have_is_empty(world: World) -> None:
    assert len(read(world, date(2025, 1, 1)).user) == 0


def test_a_day_counts_only_once_everything_about_it_may_have_arrived(world: World) -> None:
    log = ArmLog(world.folder, "click", HORIZON, max_lateness_days=1)
    assert log.end(date(2026, 1, 5)) == date(2026, 1, 7)  # four days are there; a label takes a day, and may be a day late
    assert log.end(date(2026, 1, 8)) == date(2026, 1, 8)


def test_a_log_that_does_not_name_the_bundle_is_refused(world: World) -> None:
    (path,) = world.folder.glob(f"backend/date={DAY}/*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["bundle"]), path)
    with pytest.raises(ContractError, match=rf"{path}: has no column bundle"):
        read(world)


def test_a_broken_file_is_named(world: World) -> None:
    (path,) = world.folder.glob(f"frontend/date={DAY}/*.parquet")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ContractError, match=str(path)):
        read(world)


def test_an_empty_folder_has_no_day(tmp_path: Path) -> None:
    log = ArmLog(tmp_path, "click", HORIZON, max_lateness_days=1)
    assert log.end(DAY) == DAY
    assert len(log.day(DAY).user) == 0
