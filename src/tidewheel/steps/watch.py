"""The watch: reads what both arms of the holdout experiment did, and takes production back where harm is proven."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from tidewheel.contracts.experiment import Experiment, ExperimentReport
from tidewheel.contracts.ledger import experiment_after
from tidewheel.contracts.recipe import HybridSource, Recipe, WorldSource
from tidewheel.contracts.steps import IngestPart, parts
from tidewheel.contracts.verdict import Phase
from tidewheel.errors import ConfigError
from tidewheel.logs.adapter import day_of
from tidewheel.logs.arms import ArmLog, ServedUsers
from tidewheel.ranker.bundle import BUNDLES, load_bundle
from tidewheel.registry.background import BackgroundRegistry
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.release import end_experiment
from tidewheel.rollout.holdout import UserDays, judge
from tidewheel.rollout.plan import positions
from tidewheel.steps.living import Serving
from tidewheel.store.home import Home

LOOKBACK_DAYS = 14  # before the first day: how users usually engage
MIN_ANSWERED = 0.95  # of an arm's requests by the arm's bundle, or the day does not count: servers had not followed yet


def look(recipe: Recipe, home: Home) -> ExperimentReport | None:
    """What the running experiment shows at this moment; None where none runs. Changes nothing.

    Raises:
        ConfigError: the recipe's log does not say which bundle served.
        ContractError: the ledger or the log is damaged.
    """
    experiment = experiment_after(Ledger(home.store(), recipe.name).entries())
    return None if experiment is None else Watched(recipe, home, experiment).report()


def watch(recipe: Recipe, home: Home, until: datetime | None = None) -> ExperimentReport | None:
    """Look, and act: proven harm makes the held-out users' bundle production again, the horizon ends the experiment.

    Args:
        until: lets the built-in world live on, day by day, with a look a day, until then or until something is decided.

    Raises:
        ConfigError, ContractError: as `look`; or the bundle to go back to could not serve.
        RetryableError: something else was decided meanwhile.
    """
    store = home.store()
    ledger = Ledger(store, recipe.name)
    entries = ledger.entries()
    experiment = experiment_after(entries)
    if experiment is None:
        return None
    watched = Watched(recipe, home, experiment)
    report = watched.report()
    days = watched.days(Serving.after(store, entries), until) if until is not None else iter(())
    while not is_decided(report) and next(days, None) is not None:
        report = watched.report()
    if not is_decided(report):
        return report
    changes_aliases = report.verdict.phase is Phase.FAILED
    told = BackgroundRegistry(home.registry_url, recipe.name, store.location(BUNDLES)) if changes_aliases else nullcontext()
    with told as registry:
        done = end_experiment(
            ledger,
            registry,
            experiment=experiment,
            verdict=report.verdict,
            seen_number=len(entries),
            check=lambda bundle: load_bundle(store, bundle),
        )
    return report.model_copy(update={"ledger_number": done.entry.number})


def is_decided(report: ExperimentReport) -> bool:
    """Harm is proven, or the horizon is over. A broken measurement decides nothing."""
    return report.verdict.phase in (Phase.FAILED, Phase.SUCCESSFUL, Phase.INCONCLUSIVE)


@dataclass(frozen=True)
class _Day:
    """A day of both arms, one row a user: `is_new` (N,) bool, and whether both arms' servers followed the assignment."""

    user: np.ndarray
    is_new: np.ndarray
    requests: np.ndarray
    engaged: np.ndarray
    counts: bool


class Watched:
    """A recipe's log, as its experiment reads it. Days are read once, however often one looks."""

    def __init__(self, recipe: Recipe, home: Home, experiment: Experiment) -> None:
        if not isinstance(recipe.source, WorldSource | HybridSource):
            raise ConfigError(
                f"recipe {recipe.name}: source.kind {recipe.source.kind} does not say which bundle served; expected world or "
                "hybrid"
            )
        part = parts(recipe)["ingest"]
        assert isinstance(part, IngestPart)
        self._recipe, self._home, self._part, self.experiment = recipe, home, part, experiment
        folder = home.world(recipe.name) if isinstance(recipe.source, WorldSource) else Path(recipe.source.path)
        horizon = timedelta(hours=recipe.window.label_horizon_hours)
        self._log = ArmLog(folder, experiment.rules.goal_label, horizon, recipe.ingest.max_lateness_days)
        self._begins = day_of(experiment.begins)

    def days(self, serving: Serving, until: datetime) -> Iterator[datetime]:
        """Lets the world live to the end of each further day up to `until`; a recorded log has its days already."""
        if not isinstance(self._recipe.source, WorldSource):
            return
        world = serving.world(self._part, self._home)
        moment = self.experiment.begins + timedelta(days=1)
        while moment <= until:
            if serving.let_live(world, moment):
                yield moment
            moment += timedelta(days=1)

    def report(self) -> ExperimentReport:
        """The judgement of everything that has arrived."""
        rules = self.experiment.rules
        end = self._log.end(self._begins, getattr(self._recipe.source, "skip_days", ()))
        first = next((day for day in _days(self._begins, end) if self._day(day).counts), None)
        seen = (end - (first or self._begins)).days
        last = min(end, (first or end) + timedelta(days=rules.horizon_days))
        counted = [day for day in _days(first or end, last) if self._day(day).counts]
        days = (last - first).days if first is not None else 0
        found = self._user_days(first or end, counted)
        judged = judge(found, days, rules, is_over=seen >= rules.horizon_days)
        return ExperimentReport(
            recipe=self._recipe.name,
            experiment=self.experiment,
            first_day=first,
            days=days,
            skipped_days=days - len(counted),
            periods=judged.periods,
            signals=judged.signals,
            trend=judged.trend,
            verdict=judged.verdict,
        )

    def _user_days(self, first: date, counted: list[date]) -> UserDays:
        days = [self._day(day) for day in counted]
        numbers = [np.full(len(day.user), (when - first).days) for when, day in zip(counted, days, strict=True)]
        user = _joined([day.user for day in days]).astype(np.int64)
        return UserDays(
            day=_joined(numbers).astype(np.int64),
            user=user,
            is_new=_joined([day.is_new for day in days]).astype(bool),
            requests=_joined([day.requests for day in days]),
            engaged=_joined([day.engaged for day in days]),
            before=self._before(first, user),
        )

    def _before(self, first: date, users: np.ndarray) -> np.ndarray:
        """(N,) engagements a request of each user on the days before the first, whoever served; NaN without a request."""
        past = [self._log.day(day) for day in _days(first - timedelta(days=LOOKBACK_DAYS), first)]
        known, place = np.unique(_joined([day.user for day in past]).astype(np.int64), return_inverse=True)
        if not len(known):
            return np.full(len(users), np.nan)
        requests = np.bincount(place, weights=_joined([day.requests for day in past]))
        engaged = np.bincount(place, weights=_joined([day.engaged for day in past]))
        at = np.minimum(np.searchsorted(known, users), len(known) - 1)
        return np.where(known[at] == users, engaged[at] / requests[at], np.nan)

    def _day(self, day: date) -> _Day:
        return arms_of(self._log.day(day), self.experiment)


def arms_of(served: ServedUsers, experiment: Experiment) -> _Day:
    """Users by the arm that they belong to, whoever answered them: only the assignment is random."""
    is_held = positions(served.user, experiment.salt) < experiment.rules.share
    wanted = np.where(is_held, experiment.previous, experiment.new)
    is_right = served.bundle == wanted
    answered = [_share(served.requests[arm & is_right], served.requests[arm]) for arm in (is_held, ~is_held)]
    user, place = np.unique(served.user, return_inverse=True)
    return _Day(
        user=user,
        is_new=positions(user, experiment.salt) >= experiment.rules.share,
        requests=np.bincount(place, weights=served.requests, minlength=len(user)),
        engaged=np.bincount(place, weights=served.engaged, minlength=len(user)),
        counts=min(answered) >= MIN_ANSWERED,
    )


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else 0.0


def _days(first: date, end: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((end - first).days)]


def _joined(columns: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *columns])
