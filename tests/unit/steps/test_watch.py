"""The watch on a world of known truth: what it estimates is what the fault does, and days that do not count are left out."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.unit.world.conftest import part_of
from tidewheel.contracts.experiment import Experiment, ExperimentReport, HoldoutConfig
from tidewheel.contracts.hybrid import Part
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.verdict import Phase
from tidewheel.contracts.window import parse_time
from tidewheel.errors import ConfigError
from tidewheel.steps.watch import Watched
from tidewheel.store.home import Home
from tidewheel.world import HeldOut, World

BEGINS = parse_time("2026-01-12")
FAULT = {"kind": "delayed_harm", "start": "2026-01-12", "end": "2026-03-01", "lift": 0.1, "loss": 0.6, "days": 3.0}
EXPERIMENT = Experiment(
    number=2, new="new", previous="old", salt=5, begins=BEGINS, rules=HoldoutConfig(share=0.3, max_drop=0.1)
)


class Fresh:
    """Ranks by the age of items: the same for both arms."""

    def score(self, columns):
        return {"click": 0.2 / (1.0 + columns["item_age_days"])}


def live(recipe: Recipe, home: Home, days: int, switch_days: int = 2) -> World:
    """`switch_days` after the experiment's begin are still served by the old bundle alone, `days` by both."""
    world = World(recipe.source, recipe.labels, recipe.ingest.counters, recipe.features, home.world(recipe.name))
    world.ensure_log(BEGINS + timedelta(days=switch_days), Fresh(), "old")
    held_out = HeldOut("old", Fresh(), EXPERIMENT.assignment(recipe.name, 2))
    world.ensure_log(BEGINS + timedelta(days=switch_days + days), Fresh(), "new", held_out=held_out)
    return world


def small(quickstart: Recipe, faults: tuple[object, ...]) -> Recipe:
    document = quickstart.model_dump(mode="json", by_alias=True)
    document["source"] |= {"num_users": 1500, "requests_per_day": 2500, "faults": list(faults)}
    return Recipe.model_validate(document)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home", environment={})


def watched(recipe: Recipe, home: Home) -> ExperimentReport:
    return Watched(recipe, home, EXPERIMENT).report()


def clicks_of_the_new_arm(world: World, first: date, end: date) -> int:
    served, events = part_of(world, Part.BACKEND).to_pandas(), part_of(world, Part.FRONTEND).to_pandas()
    ours = served[(served.bundle == "new") & (served.served_time.dt.date >= first) & (served.served_time.dt.date < end)]
    clicks = events[events.event == "click"].drop_duplicates(["request_id", "item_id"])
    return len(clicks.merge(ours[["request_id", "item_id"]], on=["request_id", "item_id"]))


@pytest.mark.slow
def test_the_effect_of_each_week_is_the_true_one_within_its_bounds(quickstart: Recipe, tmp_path: Path, home: Home) -> None:
    """Luck belongs to requests: the same world without the fault says how often its users would have clicked."""
    faulty, healthy = small(quickstart, (FAULT,)), small(quickstart, ())
    other = Home.resolve(tmp_path / "other", environment={})
    tired, fresh = live(faulty, home, days=16), live(healthy, other, days=16)

    report = watched(faulty, home)

    assert (report.first_day, report.days, report.skipped_days) == (date(2026, 1, 14), 14, 0)
    truths = []
    for number, period in enumerate(report.periods):
        first = date(2026, 1, 14) + timedelta(days=7 * number)
        end = first + timedelta(days=7)
        truths.append(clicks_of_the_new_arm(tired, first, end) / clicks_of_the_new_arm(fresh, first, end) - 1.0)
        assert period.lower is not None
        assert period.upper is not None
        assert period.lower < truths[-1] < period.upper
    assert truths[0] > truths[1]
    assert truths[1] < -0.2
    assert report.verdict.phase is Phase.FAILED


def test_a_harmless_production_is_left_alone(quickstart: Recipe, home: Home) -> None:
    recipe = small(quickstart, ())
    live(recipe, home, days=10)
    report = watched(recipe, home)
    assert report.verdict.phase is Phase.RUNNING
    assert report.days == 8
    assert [signal.name for signal in report.signals] == ["since period 1", "since period 2"]


def test_days_before_both_arms_serve_do_not_count(quickstart: Recipe, home: Home) -> None:
    recipe = small(quickstart, ())
    live(recipe, home, days=2, switch_days=3)  # of two days not everything has arrived
    report = watched(recipe, home)
    assert (report.first_day, report.days) == (None, 0)
    assert report.verdict.phase is Phase.RUNNING


def test_a_day_on_which_servers_did_not_follow_is_skipped_and_said(quickstart: Recipe, home: Home) -> None:
    recipe = small(quickstart, ())
    world = live(recipe, home, days=2)
    world.ensure_log(BEGINS + timedelta(days=5), Fresh(), "new")  # the held-out users got the new bundle for a day
    live(recipe, home, days=6)
    report = watched(recipe, home)
    assert (report.days, report.skipped_days) == (4, 1)


def test_a_horizon_that_never_saw_both_arms_is_inconclusive(quickstart: Recipe, home: Home) -> None:
    recipe = small(quickstart, ())
    experiment = EXPERIMENT.model_copy(update={"rules": HoldoutConfig(share=0.3, horizon_days=3, period_days=3)})
    live(recipe, home, days=0, switch_days=6)
    report = Watched(recipe, home, experiment).report()
    assert report.verdict.phase is Phase.INCONCLUSIVE
    assert report.first_day is None


def test_users_are_compared_by_their_arm_whoever_answered_them(quickstart: Recipe, home: Home) -> None:
    from tidewheel.logs.arms import ServedUsers
    from tidewheel.steps.watch import arms_of

    users = np.arange(1, 2001)
    record = EXPERIMENT.assignment("quickstart", 2)
    bundle = np.array([record.bundle_of(int(user)) for user in users], dtype=object)
    strays = np.arange(20)
    bundle[strays] = np.where(bundle[strays] == "old", "new", "old")
    day = arms_of(ServedUsers(users, bundle, np.ones(2000), np.zeros(2000)), EXPERIMENT)
    assert day.counts
    assert day.is_new.tolist() == [record.bundle_of(int(user)) == "new" for user in users]


def test_a_log_without_bundles_is_refused(quickstart: Recipe, home: Home) -> None:
    kuairand = Recipe.model_validate({**quickstart.model_dump(by_alias=True), "source": {"kind": "kuairand"}})
    with pytest.raises(ConfigError, match=r"source\.kind kuairand does not say which bundle served"):
        Watched(kuairand, home, EXPERIMENT)
