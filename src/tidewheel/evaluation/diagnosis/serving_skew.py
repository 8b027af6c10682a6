"""Which feature, or which calibrator, made served scores others than the bundle's on the same rows. Pure.

Every hypothesis of what the server had instead is scored again, and judged by the share of the gap, weighted mean
|logit served - logit re-scored|, that is gone where a row may have been hit or not. What is found is set right and the rest is
looked at again, so that the log-loss goes in exact steps from the re-scored to the served scores.
Legend: B rows of the days, R of them that are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidewheel.contracts.diagnosis import CauseKind
from tidewheel.contracts.schema import FeatureKind, FeatureSpec
from tidewheel.evaluation.diagnosis.rows import logits_of, sigmoid
from tidewheel.evaluation.diagnosis.served_features import Hypothesis, Serving, hypotheses, plus, replaced, stale, taken, times
from tidewheel.ranker.columns import Columns

TOLERANCE = 0.002  # of a logit: float32 and another batch move it by a hundredth of that
MIN_SHARE = 0.002  # of rows that are served otherwise; fewer are the log's own accidents
MIN_EXPLAINED = 0.35  # of the gap, by the best hypothesis; with less nothing is explained
MIN_KNOWN = 0.1  # of the rows that a hypothesis must be able to speak of
MAX_CAUSES = 3
ENOUGH = 0.9  # of the gap: nothing broader needs to be tried; a calibrator explains as much or is none
EXACT, CERTAIN = 0.995, 0.9995  # of the gap: no better factor is looked for; nothing but a calibrator is
SCREENED_ROWS, PROBED_ROWS = 300, 3000
FINALISTS = 12
COST_OF_A_CAUSE = 0.05  # in shares of the gap: of two ways to explain as much, that with fewer causes
SEED = 1  # of the rows that are probed
REFINEMENTS = 4


@dataclass(frozen=True)
class Skew:
    """One thing that served scores suffered: `after` (B,) are the scores with it, `before` those without.

    `explained`: share of the gap that was there; `slope`, `shift`: served logit = slope x re-scored + shift, of a calibrator.
    """

    kind: CauseKind
    features: tuple[str, ...]
    detail: str
    is_hit: np.ndarray
    before: np.ndarray
    after: np.ndarray
    explained: float
    slope: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class _State:
    """Where the way from re-scored to served is: scores and columns as far as they are understood."""

    serving: Serving
    weight: np.ndarray
    scores: np.ndarray
    columns: Columns
    settled: np.ndarray  # rows that what was found so far cannot speak of

    @property
    def gap(self) -> np.ndarray:
        """(B,) how far served logits are from these."""
        found = np.abs(logits_of(self.serving.served) - logits_of(self.scores))
        return np.where(self.settled, 0.0, found)

    @property
    def is_off(self) -> np.ndarray:
        return self.gap > TOLERANCE


def served_otherwise(serving: Serving, weight: np.ndarray, rescored: np.ndarray) -> np.ndarray:
    """(B,) rows whose served score is not the re-scored one."""
    return _State(serving, weight, rescored, serving.columns, np.zeros(len(weight), dtype=bool)).is_off


def serving_skew(serving: Serving, weight: np.ndarray, rescored: np.ndarray) -> list[Skew]:
    """What happened to the scores, from the most to the least of it; empty where they are the bundle's."""
    narrow, price = _walk(serving, weight, rescored, is_broad=False)
    if len(narrow) < 2 and price <= 1.0 - ENOUGH:
        return narrow
    broad, other_price = _walk(serving, weight, rescored, is_broad=True)
    return broad if other_price < price else narrow


def _walk(serving: Serving, weight: np.ndarray, rescored: np.ndarray, is_broad: bool) -> tuple[list[Skew], float]:
    """What is found, and its price: the share of the gap that it leaves unknown, and what its causes cost.

    `is_broad`: values of other rows are tried as well. They are many and fit to much.
    """
    state = _State(serving, weight, rescored, serving.columns, np.zeros(len(weight), dtype=bool))
    total, price, found = float((weight * state.gap).sum()), 0.0, list[Skew]()
    for _ in range(MAX_CAUSES):
        gap = float((weight * state.gap).sum())
        if float(weight[state.is_off].sum()) <= MIN_SHARE * weight.sum() or gap <= 0.02 * total:
            break
        curve = _recalibrated(state)
        best = _best(state, is_broad) if curve.worth < CERTAIN else None
        if best is not None and best.worth > curve.worth:
            skew, state = _set_right(state, best.hypothesis, best.explained)
            price += COST_OF_A_CAUSE + best.cost
        elif curve.explained >= ENOUGH:
            skew, state = _set_calibrator(state, curve)
            price += COST_OF_A_CAUSE
        else:
            skew, state = _given_up(state)
            return [*found, skew], price + gap / total
        found.append(skew)
    return found, price + (float((weight * state.gap).sum()) / total if total else 0.0)


def _best(state: _State, is_broad: bool) -> _Tried | None:
    """The hypothesis that explains most; None where none explains enough.

    All are tried on few rows, numbers that were off by a factor or a shift are made exact, and the best are tried on more.
    """
    off = np.random.default_rng(SEED).permutation(np.flatnonzero(state.is_off))
    screen, probe = (_Probe.of(state, off[:rows]) for rows in (SCREENED_ROWS, PROBED_ROWS))
    tried = [screen.tried(hypothesis) for hypothesis in hypotheses(state.serving, state.columns, is_broad)]
    promising: dict[tuple[str, ...], _Tried] = {}
    is_exact = max((one.explained for one in tried), default=0.0) >= EXACT
    for one in sorted(tried, key=lambda one: one.worth):
        if not is_exact and one.hypothesis.amount and one.explained >= MIN_EXPLAINED:
            promising[(*one.hypothesis.features, one.hypothesis.detail.split()[0])] = one
    tried += [_exact(state, screen, one) for one in promising.values()]
    finalists = sorted(tried, key=lambda one: -one.worth)[:FINALISTS]
    best = max((probe.tried(one.hypothesis) for one in finalists), key=lambda one: one.worth, default=None)
    if best is None:
        return None
    best = _smallest(state, probe, best)
    return best if best.explained >= MIN_EXPLAINED else None


@dataclass(frozen=True)
class _Tried:
    """`explained`: share of the gap; `exact`: share of it on rows whose served score is hit; `cost`: of the hypothesis."""

    hypothesis: Hypothesis
    explained: float
    exact: float
    cost: float

    @property
    def worth(self) -> float:
        """A score that is hit says more than many that are neared."""
        return 0.5 * (self.explained + self.exact) - self.cost


@dataclass(frozen=True)
class _Curve:
    """(B,) scores through the best rising curve to the served ones, and what that explains, as of `_Tried`."""

    after: np.ndarray
    explained: float
    exact: float

    @property
    def worth(self) -> float:
        return 0.5 * (self.explained + self.exact)


def _exact(state: _State, screen: _Probe, best: _Tried) -> _Tried:
    """The factor or the shift, to four digits."""
    name = best.hypothesis.features[0]
    feature = next(feature for feature in state.serving.features if feature.name == name)
    values = np.asarray(state.columns[name], dtype=np.float64)
    make, reach = (times if best.hypothesis.detail.startswith("times") else plus), 0.25
    for _ in range(REFINEMENTS):
        amounts = best.hypothesis.amount * np.linspace(1.0 - reach, 1.0 + reach, 9)
        best = max((best, *(screen.tried(make(feature, values, float(x))) for x in amounts)), key=lambda one: one.explained)
        reach /= 4.0
    return best


def _smallest(state: _State, probe: _Probe, best: _Tried) -> _Tried:
    """Of features that are out of date together only those without which less would be explained."""
    hypothesis = best.hypothesis
    if hypothesis.kind is not CauseKind.STALENESS or len(hypothesis.features) < 2:
        return best
    by_name = {feature.name: feature for feature in state.serving.features}
    for name in hypothesis.features:
        fewer = [by_name[other] for other in best.hypothesis.features if other != name]
        if fewer:
            best = max(best, probe.tried(stale(state.serving, fewer, int(hypothesis.amount))), key=lambda one: one.worth)
    return best


@dataclass(frozen=True)
class _Probe:
    """Some rows (R,) that were served otherwise, on which hypotheses are tried."""

    state: _State
    rows: np.ndarray
    base: Columns

    @classmethod
    def of(cls, state: _State, rows: np.ndarray) -> _Probe:
        return cls(state, rows, taken(state.columns, rows))

    def tried(self, hypothesis: Hypothesis) -> _Tried:
        state, rows = self.state, self.rows
        weight, gap = state.weight[rows], state.gap[rows]
        known = np.ones(len(rows), dtype=bool) if hypothesis.known is None else hypothesis.known[rows]
        total = float((weight * gap)[known].sum())
        if not total > MIN_KNOWN * float((weight * gap).sum()):
            return _Tried(hypothesis, 0.0, 0.0, hypothesis.cost)
        part = self.base if known.all() else taken(self.base, np.flatnonzero(known))
        scores, chosen, is_between = _nearest(state, hypothesis, rows[known], part)
        left = np.abs(logits_of(state.serving.served[rows[known]]) - logits_of(scores))
        explained = 1.0 - float((weight[known] * np.minimum(left, gap[known])).sum()) / total
        is_hit = (left <= TOLERANCE) & ~is_between
        exact = float((weight * gap)[known][is_hit].sum()) / total
        cost = hypothesis.cost
        if hypothesis.shares:  # values that are unlike the feature's own explain by accident
            found = np.bincount(chosen, weight[known], len(hypothesis.shares)) / weight[known].sum()
            cost += float(0.5 * np.abs(found - hypothesis.shares).sum())
        return _Tried(hypothesis, explained, exact, cost)


def _nearest(
    state: _State, hypothesis: Hypothesis, rows: np.ndarray, base: Columns
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(R,) the scores under the hypothesis, which of its variants is nearest to the served one, and where none was needed.

    Numbers between two that were tried are open too: a served score between theirs is reached.
    """
    tried = np.stack([state.serving.score({**base, **changed}) for changed in hypothesis.make(rows)])
    served = state.serving.served[rows]
    chosen = np.argmin(np.abs(tried - served), axis=0)
    nearest: np.ndarray = tried[chosen, np.arange(len(rows))]
    if len(tried) < 2 or not _is_number(state.serving.features, hypothesis.features[0]):
        return nearest, chosen, np.zeros(len(rows), dtype=bool)
    is_between = ((tried[:-1] - served) * (tried[1:] - served) <= 0).any(axis=0)
    return np.where(is_between, served, nearest), chosen, is_between


def _is_number(features: tuple[FeatureSpec, ...], name: str) -> bool:
    return any(feature.name == name and feature.kind is FeatureKind.NUMERIC for feature in features)


def _set_right(state: _State, hypothesis: Hypothesis, explained: float) -> tuple[Skew, _State]:
    """Rows that the hypothesis brings nearer to what was served are taken as hit by it."""
    off = np.flatnonzero(state.is_off)
    known = np.ones(len(off), dtype=bool) if hypothesis.known is None else hypothesis.known[off]
    rows, dark = off[known], off[~known]
    scores, _, _ = _nearest(state, hypothesis, rows, taken(state.columns, rows))
    left = np.abs(logits_of(state.serving.served[rows]) - logits_of(scores))
    is_nearer = left < state.gap[rows]
    hit = rows[is_nearer]
    after, columns, settled = state.scores.copy(), state.columns, state.settled.copy()
    after[hit] = scores[is_nearer]
    after[dark] = state.serving.served[dark]  # nothing is known of what the server had there; no other cause is looked for
    settled[dark] = True
    made = hypothesis.make(hit)
    if len(made) == 1:
        columns = replaced(state.columns, hit, made[0])
    else:
        settled[hit] = True
    is_hit = np.isin(np.arange(len(after)), np.concatenate([hit, dark]))
    skew = Skew(hypothesis.kind, hypothesis.features, hypothesis.detail, is_hit, state.scores, after, explained)
    return skew, _State(state.serving, state.weight, after, columns, settled)


def _recalibrated(state: _State) -> _Curve:
    """Served scores as a monotone function of the scores, all rows through one curve."""
    from scipy.optimize import isotonic_regression

    rows = np.flatnonzero(~state.settled)
    served, logits = logits_of(state.serving.served[rows]), logits_of(state.scores[rows])
    order = np.lexsort((-served, logits))  # of equal scores the highest first: they have one mean
    curve = np.empty(len(rows))
    curve[order] = isotonic_regression(served[order], weights=state.weight[rows][order]).x
    of_gap = state.weight[rows] * state.gap[rows]
    total, left = float(of_gap.sum()), np.abs(served - curve)
    after = state.scores.copy()
    after[rows] = sigmoid(curve)
    if not total > 0:
        return _Curve(after, 0.0, 0.0)
    explained = 1.0 - float((state.weight[rows] * left).sum()) / total
    return _Curve(after, explained, float(of_gap[left <= TOLERANCE].sum()) / total)


def _set_calibrator(state: _State, curve: _Curve) -> tuple[Skew, _State]:
    logits, weight = logits_of(state.scores), state.weight
    slope, shift = np.polyfit(logits, logits_of(state.serving.served), 1, w=np.sqrt(weight))
    detail = "served"
    if state.serving.uncalibrated is not None:
        twin = np.abs(logits_of(state.serving.uncalibrated(state.columns)) - logits_of(state.serving.served))
        detail = "served, uncalibrated twin" if float(weight[twin <= TOLERANCE].sum()) > 0.98 * weight.sum() else detail
    skew = Skew(
        CauseKind.CALIBRATION, (), detail, state.is_off, state.scores, curve.after, curve.explained, float(slope), float(shift)
    )
    # Every row went through it, so the curve tells all there is to tell.
    return skew, _State(state.serving, weight, curve.after, state.columns, np.ones(len(weight), dtype=bool))


def _given_up(state: _State) -> tuple[Skew, _State]:
    served = np.where(state.settled, state.scores, state.serving.served)
    skew = Skew(CauseKind.UNKNOWN_SCORES, (), "", state.is_off, state.scores, served, 1.0)
    return skew, _State(state.serving, state.weight, served, state.columns, np.ones(len(served), dtype=bool))
