"""Why the same scores do otherwise online than offline: other traffic, another layout, another calibration. Pure.

Log-loss is a mean over rows, and linear in what is true of a row: with p predicted and l its logit, a row whose true rate is q
loses H(p) + (p - q) l on average, H being the entropy. So the way from offline to online splits exactly into

    mix        held-out rows weighted to the shares of the days - as they are            (Kitagawa 1955; Oaxaca 1973)
    shown      mean H(p) of the days - that of the held-out rows so weighted             what the bundle itself expects
    position, calibration, selection     mean of (q before - q after) l, one after the other
    unexplained                          what is left

with q = sigmoid(l + slope log(1 + position) + level), relative to the same fit offline. Lists in random order tell slope and
level without what the ranking itself chose; where they have a level of their own the difference is selection.
Legend: B rows of a group, N of all groups, see `rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from tidewheel.evaluation.diagnosis.rows import Groups, Rows, sigmoid
from tidewheel.evaluation.intervals import interval
from tidewheel.evaluation.metrics import Measured, ratio, row_loss

ONLINE, OFFLINE = "online", "offline"  # ranked rows of the days; of the evaluation
ONLINE_RANDOM, OFFLINE_RANDOM = "online_random", "offline_random"
PAIRS = {False: (ONLINE, OFFLINE), True: (ONLINE_RANDOM, OFFLINE_RANDOM)}
FALSE_ALARM_RATE = 0.02  # of all questions of a diagnosis together
QUESTIONS = 3  # slope, level, selection; and one a column of the mix
MIN_RAREST = 30  # rows of the rarer class without which a group says nothing
STEP = 1e-4  # of numeric derivatives

Terms = dict[str, Measured]
Proof = Callable[[Measured], bool]


@dataclass
class Shifts:
    """What moved. `terms` add up to log-loss of the re-scored days - that of the held-out rows.

    `mix`: the column whose shares moved, or none. `slope`, `level`, `selection`: in log odds; 0 where nothing is proven.
    """

    terms: Terms = field(default_factory=dict)
    proven: tuple[str, ...] = ()
    mix: str = ""
    slope: float = 0.0
    level: float = 0.0
    selection: float = 0.0
    has_random: bool = False


def outcome_shifts(groups: Groups) -> Shifts:
    """Compare group `online` with `offline`; `online_random` and `offline_random` help where both are there."""
    found = Shifts(has_random=all(name in groups and groups[name].rarest >= MIN_RAREST for name in PAIRS[True]))
    columns = [name for name in groups[OFFLINE].mix if name in groups[ONLINE].mix]
    is_proven = proof(groups, len(columns) + QUESTIONS)

    mixes = {name: _mix(groups, name) for name in columns}
    found.mix = max((name for name in columns if is_proven(mixes[name])), key=lambda x: _strength(groups, mixes[x]), default="")
    weights = {
        online: _reweighted(groups, online, offline, found.mix) for online, offline in PAIRS.values() if online in groups
    }
    fits = _Fits(groups, weights, found.has_random)
    slope = fits.slope(is_proven)
    if slope is not None and is_proven(slope):
        found.slope = slope.value
    level, selection = fits.levels(slope if found.slope and slope is not None else None, is_proven)
    parameters: list[Measured] = [slope] if found.slope and slope is not None else [fits.nothing]
    for name, measured in (("level", level), ("selection", selection)):
        is_real = measured is not None and is_proven(measured)
        setattr(found, name, measured.value if is_real and measured is not None else 0.0)
        parameters.append(measured if is_real and measured is not None else fits.nothing)
    found.terms = _terms(groups, weights[ONLINE], mixes.get(found.mix), parameters)
    chosen = {"mix": found.mix, "position": found.slope, "calibration": found.level, "selection": found.selection}
    found.proven = tuple(name for name, value in chosen.items() if value)
    return found


def proof(groups: Groups, questions: int) -> Proof:
    """Whether a figure is not 0, such that all of so many questions have one false-alarm rate together (Bonferroni)."""

    def is_proven(measured: Measured) -> bool:
        bounds = interval(measured, groups.users, confidence=1.0 - FALSE_ALARM_RATE / questions)
        return bounds.lower > 0.0 or bounds.upper < 0.0

    return is_proven


def _error(groups: Groups, measured: Measured) -> float:
    """Standard error, over users."""
    return math.sqrt(float(np.square(groups.users.totals(measured.influence)).sum()))


# --- mix --------------------------------------------------------------------------------------------------------------


def _mix(groups: Groups, column: str) -> Measured:
    """Log-loss of the held-out rows at the days' shares of a column's values - at their own."""
    online, offline = groups[ONLINE], groups[OFFLINE]
    loss = row_loss(offline.scores, offline.labels)
    values, codes = np.unique(np.concatenate([online.mix[column], offline.mix[column]]), return_inverse=True)
    new, old = codes[: len(online)], codes[len(online) :]
    weight_new, weight_old = (np.bincount(code, rows.weight, len(values)) for code, rows in ((new, online), (old, offline)))
    is_common = (weight_new > 0) & (weight_old > 0)
    of_value = np.divide(
        np.bincount(old, offline.weight * loss, len(values)), weight_old, where=weight_old > 0, out=np.zeros(len(values))
    )
    total_new = float(weight_new[is_common].sum())
    if not total_new > 0:
        return Measured.undefined(len(groups.users.codes))
    share = np.where(is_common, weight_new, 0.0) / total_new
    mixed, plain = float((share * of_value).sum()), float((offline.weight * loss).sum() / offline.weight.sum())
    per_row = np.divide(share, weight_old, where=weight_old > 0, out=np.zeros(len(values)))
    of_new = np.where(is_common[new], online.weight * (of_value[new] - mixed) / total_new, 0.0)
    of_old = offline.weight * (loss - of_value[old]) * per_row[old] - offline.weight * (loss - plain) / offline.weight.sum()
    return Measured(mixed - plain, groups.placed(ONLINE, of_new) + groups.placed(OFFLINE, of_old))


def _strength(groups: Groups, measured: Measured) -> float:
    """How many of its errors a figure is from 0."""
    error = _error(groups, measured)
    return abs(measured.value) / error if error else math.inf


def _reweighted(groups: Groups, online: str, offline: str, column: str) -> np.ndarray:
    """(B,) weights of the offline group that give the column's values the shares that they have online."""
    new, old = groups[online], groups[offline]
    if not column:
        return old.weight
    values, codes = np.unique(np.concatenate([new.mix[column], old.mix[column]]), return_inverse=True)
    shares = [
        np.bincount(code, rows.weight, len(values)) / rows.weight.sum()
        for code, rows in ((codes[: len(new)], new), (codes[len(new) :], old))
    ]
    factor = np.divide(shares[0], shares[1], where=shares[1] > 0, out=np.zeros(len(values)))
    weighted: np.ndarray = old.weight * factor[codes[len(new) :]]
    return weighted if weighted.sum() > 0 else old.weight


# --- position, calibration, selection ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fits:
    """Logistic fits of slope and level with the bundle's logit as offset: how outcomes differ from what was predicted."""

    groups: Groups
    weights: Mapping[str, np.ndarray]  # online group -> weights of its offline twin
    has_random: bool

    @property
    def nothing(self) -> Measured:
        return Measured(0.0, np.zeros(len(self.groups.users.codes)))

    def slope(self, is_proven: Proof) -> Measured | None:
        """Change of the slope along log(1 + position).

        A ranking puts what it overrates first, so another ranking alone moves the slope of ranked lists. Lists in random order
        decide: they may stand alone, and ranked ones are added only where both say the same.
        """
        ranked = self._slope(False)
        random = self._slope(True) if self.has_random else None
        if ranked is None or random is None:
            return random or (None if self.has_random else ranked)
        agree = ranked.value * random.value > 0 and abs(random.value) > _error(self.groups, random)
        return self._pooled(ranked, random) if agree and not is_proven(ranked - random) else random

    def _slope(self, is_random: bool) -> Measured | None:
        online, offline = PAIRS[is_random]
        fits = []
        for name, weight in ((online, self.groups[online].weight), (offline, self.weights[online])):
            rows = self.groups[name]
            known = np.isfinite(rows.position)
            x = places(rows)
            if len(np.unique(x[known])) < 2 or rows.take(known).rarest < MIN_RAREST:
                return None
            design = np.column_stack([np.ones(len(rows)), x])
            theta, influence = fitted(design, rows.labels, weight * known, rows.logits)
            fits.append(Measured(float(theta[1]), self.groups.placed(name, influence[:, 1])))
        return fits[0] - fits[1]

    def _pooled(self, one: Measured, other: Measured) -> Measured:
        """Their mean, each by its precision."""
        noise = [_error(self.groups, measured) ** 2 for measured in (one, other)]
        share = noise[1] / sum(noise) if sum(noise) else 0.5
        influence = share * one.influence + (1.0 - share) * other.influence
        return Measured(share * one.value + (1.0 - share) * other.value, influence)

    def levels(self, slope: Measured | None, is_proven: Callable[[Measured], bool]) -> tuple[Measured | None, Measured | None]:
        """Change of the level, and how much more it is where the bundle ranked, if that is proven."""
        ranked = self._level(False, slope)
        random = self._level(True, slope) if self.has_random else None
        if ranked is None or random is None:
            return ranked, None
        selection = ranked - random
        if is_proven(selection):
            return random, selection
        return self._pooled(ranked, random), None

    def _level(self, is_random: bool, slope: Measured | None) -> Measured | None:
        online, offline = PAIRS[is_random]
        rows, held = self.groups[online], self.groups[offline]
        if min(rows.rarest, held.rarest) < MIN_RAREST:
            return None
        ones, x = np.ones((len(rows), 1)), places(rows)
        given = slope.value if slope is not None else 0.0
        theta, influence = fitted(ones, rows.labels, rows.weight, rows.logits + given * x)
        before, old = fitted(np.ones((len(held), 1)), held.labels, self.weights[online], held.logits)
        total = self.groups.placed(online, influence[:, 0]) - self.groups.placed(offline, old[:, 0])
        if slope is not None:
            moved, _ = fitted(ones, rows.labels, rows.weight, rows.logits + (given + STEP) * x)
            total = total + float(moved[0] - theta[0]) / STEP * slope.influence
        return Measured(float(theta[0] - before[0]), total)


def places(rows: Rows) -> np.ndarray:
    """(B,) log(1 + position), 0 where it is not known."""
    return np.log1p(np.where(np.isfinite(rows.position), rows.position, 0.0))


def fitted(design: np.ndarray, labels: np.ndarray, weight: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted logistic fit by Newton's method: coefficients (K,) and their influence (B, K).

    Args:
        design: (B, K). `offset`: (B,) logits that are given.
    """
    theta = np.zeros(design.shape[1])
    for _ in range(50):
        q = sigmoid(offset + design @ theta)
        slope = (design * (weight * (labels - q))[:, None]).sum(axis=0)
        curvature = np.einsum("bi,b,bj->ij", design, weight * q * (1.0 - q), design)
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(theta)), slope)
        theta = theta + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-10:
            break
    q = sigmoid(offset + design @ theta)
    influence = (design * (weight * (labels - q))[:, None]) @ np.linalg.inv(curvature + 1e-12 * np.eye(len(theta)))
    return theta, influence


# --- the exact way ----------------------------------------------------------------------------------------------------


def _terms(groups: Groups, weight: np.ndarray, mix: Measured | None, parameters: list[Measured]) -> Terms:
    """Every term of the module's head, in its order; `parameters`: slope, level, selection."""
    online, offline = groups[ONLINE], groups[OFFLINE]
    nothing = Measured(0.0, np.zeros(len(groups.users.codes)))
    entropies = [row_loss(rows.scores, np.ones(len(rows))) * rows.scores for rows in (online, offline)]
    entropies = [
        h + row_loss(r.scores, np.zeros(len(r))) * (1 - r.scores) for h, r in zip(entropies, (online, offline), strict=True)
    ]
    shown = [
        _placed(groups, name, ratio(w, h, 1.0))
        for name, w, h in ((ONLINE, online.weight, entropies[0]), (OFFLINE, weight, entropies[1]))
    ]
    losses = [row_loss(rows.scores, rows.labels) for rows in (online, offline)]
    held = _placed(groups, OFFLINE, ratio(weight, losses[1] - entropies[1], 1.0))
    values = np.array([one.value for one in parameters])

    def steps(theta: np.ndarray) -> list[np.ndarray]:
        """Position, calibration, selection and what then is left of the days, as (B,) of the online rows."""
        logits, x = online.logits, places(online)
        rates = [online.scores, *(sigmoid(logits + theta[0] * x + at) for at in np.cumsum([0.0, theta[1], theta[2]]))]
        slopes = row_loss(online.scores, np.zeros(1)) - row_loss(online.scores, np.ones(1))  # the logit, clipped as the loss is
        found = [(before - after) * slopes for before, after in pairwise(rates)]
        return [*found, losses[0] - entropies[0] - sum(found)]

    base = steps(values)
    means = [ratio(online.weight, one, 1.0) for one in base]
    placed = [_placed(groups, ONLINE, one) for one in means]
    for at, parameter in enumerate(parameters):
        if parameter.value:
            moved = steps(values + STEP * np.eye(len(values))[at])
            for number, one in enumerate(moved):
                gradient = (ratio(online.weight, one, 1.0).value - means[number].value) / STEP
                placed[number] = Measured(placed[number].value, placed[number].influence + gradient * parameter.influence)
    position, calibration, selection, left = placed
    return {
        "mix": mix or nothing,
        "shown": shown[0] - shown[1],
        "position": position,
        "calibration": calibration,
        "selection": selection,
        "unexplained": left - held,
    }


def _placed(groups: Groups, name: str, measured: Measured) -> Measured:
    return Measured(measured.value, groups.placed(name, measured.influence))
