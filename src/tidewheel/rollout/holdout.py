"""Judges a published bundle against its held-out users, day after day: values in, a verdict with its numbers out. Pure.

Harm that comes late hides in the average of all days, behind a good first week. So each period opens a question of its own:
what happened *since it began*. The first is the average of all days; the second begins with the second period, and so on. Each
is a one-sided test that may be looked at every day; together they are tests with ever new starting points (Lorden 1971,
"Procedures for reacting to a change in distribution", Annals of Mathematical Statistics 42(6); Shin, Ramdas, Rinaldo 2024,
"E-detectors: a nonparametric framework for sequential change detection", New England Journal of Statistics in Data Science
2(2)). There are few of them and the horizon ends, so `alpha` is split over them equally, and bounds the chance that a harmless
production is ever taken back, instead of a mean time between false alarms.

Bounds are those of `tidewheel.rollout.sequence`: they hold at all looks at once, for the mean effect of the days so far, also
where that changes from day to day (Waudby-Smith et al. 2024, section 2.5). Users are the clusters, also over days.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidewheel.contracts.experiment import HoldoutConfig
from tidewheel.contracts.rollout import Signal
from tidewheel.contracts.verdict import Phase, Reason, Verdict, combine
from tidewheel.rollout.sequence import Estimate, bounds, clustered_error
from tidewheel.rollout.signals import MIN_USERS, PRECISION


@dataclass(frozen=True)
class UserDays:
    """What users did on days of the experiment: N rows, one a user and day.

    `day` (N,) int64 from 0; `user` (N,) int64; `is_new` (N,) bool: not held out; `requests` and `engaged` (N,) float64 counts.
    `before` (N,) float64 is what the user did a request before the experiment, which no arm could touch; NaN: not known.
    """

    day: np.ndarray
    user: np.ndarray
    is_new: np.ndarray
    requests: np.ndarray
    engaged: np.ndarray
    before: np.ndarray

    def where(self, chosen: np.ndarray) -> UserDays:
        return UserDays(
            self.day[chosen],
            self.user[chosen],
            self.is_new[chosen],
            self.requests[chosen],
            self.engaged[chosen],
            self.before[chosen],
        )


@dataclass(frozen=True)
class Effect:
    """What the new production earns a request, relative to the held-out users, minus 1.

    `new` and `previous` are the adjusted means; `influence` (U,) of each user on `value`, by `user` (U,).
    """

    value: float
    new: float
    previous: float
    influence: np.ndarray
    user: np.ndarray

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, clustered_error(self.influence, self.user))


@dataclass(frozen=True)
class Judgement:
    """See tidewheel.contracts.experiment.ExperimentReport."""

    periods: tuple[Signal, ...]
    signals: tuple[Signal, ...]
    trend: Signal | None
    verdict: Verdict


def judge(found: UserDays, days: int, rules: HoldoutConfig, is_over: bool) -> Judgement:
    """The judgement of one look, after `days` days with all their labels. Never raises on data.

    Proven harm since any period is `Failed` at once. `Successful` is only what is over and proven harmless since every period;
    what is over and neither is `Inconclusive`.
    """
    if not all(np.isfinite(counts).all() for counts in (found.requests, found.engaged)):
        broken = Reason(check="evidence", phase=Phase.ERROR, message="holdout: the log's counts are not finite")
        return Judgement((), (), None, combine([broken]))
    begun = range(min(rules.num_periods, -(-days // rules.period_days)))
    numbers = np.minimum(found.day // rules.period_days, rules.num_periods - 1)
    by_period = [effect(found.where(numbers == number)) for number in begun]
    periods = tuple(_period(seen, number, rules) for number, seen in enumerate(by_period))
    signals = tuple(_since(found, number, days, rules) for number in (range(rules.num_periods) if is_over else begun))
    reasons = [_reason(signal, is_over) for signal in signals]
    if not is_over:
        words = f"holdout: day {days} of {rules.horizon_days}"
        reasons.append(Reason(check="horizon", phase=Phase.RUNNING, message=words, value=days, limit=rules.horizon_days))
    return Judgement(periods, signals, _trend(by_period, rules), combine(reasons))


def effect(found: UserDays) -> Effect | str:
    """The relative effect on these rows, or why there is none.

    Each arm's mean is adjusted to the same `before` (Deng, Xu, Kohavi, Walker 2013; Lin 2013, as in `analysis.engagement`),
    here for ratios of sums: users with more requests weigh more. The delta method gives the influence of the quotient.
    """
    found = _by_user(found)
    arms = [found.where(found.is_new), found.where(~found.is_new)]
    users = min(len(arm.user) for arm in arms)
    if users < MIN_USERS:
        return f"{users} users < {MIN_USERS}"
    known = np.isfinite(found.before)
    usual = _mean(found.before[known], found.requests[known]) if known.any() else 0.0
    befores = [np.where(np.isfinite(arm.before), arm.before, usual) for arm in arms]
    centred = [
        (arm.engaged - arm.requests * arm.engaged.sum() / arm.requests.sum(), before - _mean(before, arm.requests))
        for arm, before in zip(arms, befores, strict=True)
    ]
    spread = sum(float((arm.requests * x * x).sum()) for arm, (_, x) in zip(arms, centred, strict=True))
    slope = sum(float((y * x).sum()) for y, x in centred) / spread if spread > 0.0 else 0.0
    overall = _mean(np.concatenate(befores), np.concatenate([arm.requests for arm in arms]))
    new, previous = (
        float(arm.engaged.sum() / arm.requests.sum()) - slope * (_mean(before, arm.requests) - overall)
        for arm, before in zip(arms, befores, strict=True)
    )
    if previous <= 0.0 or arms[1].engaged.sum() <= 0.0:
        return "nothing was engaged with by the held-out users"
    influences = [(y - slope * arm.requests * x) / arm.requests.sum() for arm, (y, x) in zip(arms, centred, strict=True)]
    influence = np.concatenate([influences[0] / previous, -new / previous**2 * influences[1]])
    return Effect(new / previous - 1.0, new, previous, influence, np.concatenate([arm.user for arm in arms]))


def _by_user(found: UserDays) -> UserDays:
    """All days of a user in one row: whole users are what is independent."""
    user, first, place = np.unique(found.user, return_index=True, return_inverse=True)
    one = found.where(first)
    requests, engaged = (np.bincount(place, weights=counts, minlength=len(user)) for counts in (found.requests, found.engaged))
    return UserDays(one.day, user, one.is_new, requests, engaged, one.before)


def _since(found: UserDays, number: int, days: int, rules: HoldoutConfig) -> Signal:
    """Whether there is harm from the beginning of a period on; `number` counts from 0."""
    first = number * rules.period_days
    name, margin = f"since period {number + 1}", rules.max_drop
    seen = effect(found.where(found.day >= first))
    if isinstance(seen, str):
        return Signal(name=name, phase=Phase.RUNNING, message=f"holdout, {name}: {seen}", limit=-margin)
    proof = bounds(seen.estimate, rules.alpha, margin / PRECISION)
    harm = bounds(seen.estimate, rules.alpha / rules.num_periods, margin / PRECISION)
    if proof[0] > -margin:
        phase = Phase.SUCCESSFUL
    else:
        phase = Phase.FAILED if harm[1] < 0.0 else Phase.RUNNING
    return _signal(name, phase, seen, harm if phase is Phase.FAILED else proof, (first + 1, days), rules)


def _period(seen: Effect | str, number: int, rules: HoldoutConfig) -> Signal:
    """A period by itself: shown, not judged. All periods' bounds hold together."""
    first = number * rules.period_days
    last = min(first + rules.period_days, rules.horizon_days)
    name = f"period {number + 1}"
    if isinstance(seen, str):
        return Signal(name=name, phase=Phase.RUNNING, message=f"holdout, {name}: {seen}", limit=-rules.max_drop)
    interval = bounds(seen.estimate, rules.alpha / rules.num_periods, rules.max_drop / PRECISION)
    return _signal(name, Phase.RUNNING, seen, interval, (first + 1, last), rules)


def _trend(by_period: Sequence[Effect | str], rules: HoldoutConfig) -> Signal | None:
    """Least-squares slope of the effect over the periods so far; None below two. Shown, not judged."""
    effects = {number: seen for number, seen in enumerate(by_period) if isinstance(seen, Effect)}
    if len(effects) < 2:
        return None
    places = np.array(list(effects), dtype=np.float64)
    weights = (places - places.mean()) / np.square(places - places.mean()).sum()
    ordered = list(effects.values())
    value = float(sum(weight * one.value for weight, one in zip(weights, ordered, strict=True)))
    influence = np.concatenate([weight * one.influence for weight, one in zip(weights, ordered, strict=True)])
    error = clustered_error(influence, np.concatenate([one.user for one in ordered]))
    lower, upper = bounds(Estimate(value, error), rules.alpha, rules.max_drop / PRECISION)
    message = f"trend {value:+.1%} a period in [{lower:+.1%}, {upper:+.1%}]"
    return Signal(
        name="trend", phase=Phase.RUNNING, message=message, estimate=value, lower=_finite(lower), upper=_finite(upper)
    )


def _signal(
    name: str, phase: Phase, seen: Effect, interval: tuple[float, float], days: tuple[int, int], rules: HoldoutConfig
) -> Signal:
    lower, upper = interval
    message = (
        f"holdout, {name} (days {days[0]} to {days[1]}): {seen.new:.4f} {rules.goal_label} a request against "
        f"{seen.previous:.4f} of the held-out users, {seen.value:+.1%} in [{lower:+.1%}, {upper:+.1%}], "
        f"margin -{rules.max_drop:.1%}"
    )
    return Signal(
        name=name,
        phase=phase,
        message=message,
        estimate=seen.value,
        lower=_finite(lower),
        upper=_finite(upper),
        limit=-rules.max_drop,
    )


def _reason(signal: Signal, is_over: bool) -> Reason:
    """Of what is over, silence is no consent."""
    phase = Phase.INCONCLUSIVE if is_over and signal.phase is Phase.RUNNING else signal.phase
    return Reason(check=signal.name, phase=phase, message=signal.message, value=signal.estimate, limit=signal.limit)


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values * weights).sum() / weights.sum())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
