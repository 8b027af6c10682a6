"""What may have happened to a feature on its way to the server, as other columns to score the same rows with.

Legend: B rows of the days, R of them that are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby

import numpy as np

from tidewheel.contracts.diagnosis import CauseKind
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.ranker.columns import Coded, Columns

# Mistakes of units, likelier first: percent, per mille, minutes, hours, days, kilo, cents, and the way back.
UNITS = (100.0, 0.01, 1000.0, 0.001, 60.0, 1 / 60, 3600.0, 1 / 3600, 24.0, 1 / 24, 10.0, 0.1, -1.0)
FACTORS = tuple(float(x) for x in np.exp(np.linspace(-1.4, 1.4, 8)))  # the nearest is made exact
SHIFTS = (-4.0, -2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0, 4.0)  # in deviations of the feature
MAX_VALUES = 24  # of a feature, tried on every row

# Of two explanations that do as well the simpler one is named: what it costs, in shares of the gap explained.
COST = {
    "null": 0.001,
    "zero": 0.002,
    "past": 0.002,
    "unit": 0.003,
    "factor": 0.005,
    "shift": 0.008,
    "other": 0.03,
    "between": 0.1,
}


@dataclass(frozen=True)
class Serving:
    """The days' rows as they can be scored again.

    Attributes:
        served: (B,) probability that was answered.
        columns: raw columns of the bundle's features, as known offline.
        score: raw columns of any rows -> probabilities.
        uncalibrated: the same from the bundle's uncalibrated twin, where it has one.
        history: rows of the days before as well; `past`: days -> entity -> (B,) the row of `history` that has what was known of
            the row's user or item so many days earlier, -1 where none has.
        logged: columns that the server wrote down as it scored them.
    """

    served: np.ndarray
    columns: Columns
    features: tuple[FeatureSpec, ...]
    score: Callable[[Columns], np.ndarray]
    uncalibrated: Callable[[Columns], np.ndarray] | None = None
    history: Columns = field(default_factory=dict)
    past: Mapping[int, Mapping[Entity, np.ndarray]] = field(default_factory=dict)
    logged: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class Hypothesis:
    """`make`: (R,) indexes of rows -> the columns that the server had instead. `known`: (B,) rows it can speak of, or all.

    Several such columns: any of them may have been the one, with these `shares` if it was a value of another row.
    `amount`: the factor, the shift or the days, where there is one.
    """

    kind: CauseKind
    features: tuple[str, ...]
    detail: str
    cost: float
    make: Callable[[np.ndarray], Sequence[Columns]]
    known: np.ndarray | None = None
    shares: tuple[float, ...] = ()
    amount: float = 0.0


def taken(columns: Columns, rows: np.ndarray) -> dict[str, np.ndarray | Coded]:
    """The columns at these rows (R,)."""
    return {
        name: Coded(column.codes[rows], column.values) if isinstance(column, Coded) else column[rows]
        for name, column in columns.items()
    }


def replaced(columns: Columns, rows: np.ndarray, found: Columns) -> dict[str, np.ndarray | Coded]:
    """The columns (B,) with `found` (R,) at these rows."""
    changed = dict(columns)
    for name, new in found.items():
        old, values = np.asarray(columns[name]), np.asarray(new)
        whole = old.astype(object if values.dtype.kind == "O" else np.result_type(old.dtype, values.dtype))
        whole[rows] = values
        changed[name] = whole
    return changed


def hypotheses(serving: Serving, columns: Columns, is_broad: bool) -> Iterator[Hypothesis]:
    """Everything that is tried, on top of `columns`, which may have been set right in parts before.

    `is_broad`: also that a feature had a value of any other row.
    """
    suspects = [feature for feature in serving.features if not set(feature.columns) <= set(serving.logged)]
    for feature in suspects:
        yield _one(CauseKind.COVERAGE, feature, "null", COST["null"], partial(_nulls_at, feature))
        if feature.kind is FeatureKind.NUMERIC:
            yield from _of_numbers(feature, _numbers(columns[feature.name]), is_broad)
        elif is_broad and not feature.is_sequence:
            yield _other(feature, _commonest(columns[feature.name]))
    yield from _of_the_past(serving, suspects)
    yield from _as_logged(serving, columns)


def _one(
    kind: CauseKind, feature: FeatureSpec, detail: str, cost: float, *makes: Callable[[np.ndarray], Columns]
) -> Hypothesis:
    return Hypothesis(kind, (feature.name,), detail, cost, lambda rows: [make(rows) for make in makes])


def _nulls_at(feature: FeatureSpec, rows: np.ndarray) -> Columns:
    return nulls(feature, len(rows))


def nulls(feature: FeatureSpec, count: int) -> dict[str, np.ndarray]:
    """The feature's columns (count,) as they are where the feature is not there."""
    if feature.is_sequence:
        items, ages = feature.columns
        return {items: np.zeros((count, feature.length), np.int64), ages: np.full((count, feature.length), -1)}
    if feature.kind is FeatureKind.NUMERIC:
        return {feature.name: np.full(count, np.nan)}
    return {feature.name: np.full(count, None, dtype=object)}


def _of_numbers(feature: FeatureSpec, values: np.ndarray, is_broad: bool) -> Iterator[Hypothesis]:
    name, finite = feature.name, values[np.isfinite(values)]
    if not len(finite):
        return
    yield _one(CauseKind.COVERAGE, feature, "zero", COST["zero"], lambda rows: {name: np.zeros(len(rows))})
    for number, factor in enumerate((*UNITS, *FACTORS)):
        yield times(feature, values, factor, "unit" if number < len(UNITS) else "factor")
    for shift in SHIFTS if finite.std() > 0 else ():
        yield plus(feature, values, float(shift * finite.std()))
    if is_broad:
        levels, counts = np.unique(np.quantile(finite, (np.arange(MAX_VALUES) + 0.5) / MAX_VALUES), return_counts=True)
        yield _other(feature, levels.tolist(), tuple((counts / MAX_VALUES).tolist()))


def _other(feature: FeatureSpec, values: Sequence[object], shares: tuple[float, ...] = ()) -> Hypothesis:
    """Any of these values, as if the feature of another row had come. A number reaches whatever lies between two of them."""

    def constant(value: object, rows: np.ndarray) -> Columns:
        dtype = np.float64 if feature.kind is FeatureKind.NUMERIC else object
        return {feature.name: np.full(len(rows), value, dtype=dtype)}

    cost = COST["between" if shares else "other"]
    made = _one(CauseKind.VALUE_DRIFT, feature, "other", cost, *(partial(constant, value) for value in values))
    return replace(made, shares=shares)


def times(feature: FeatureSpec, values: np.ndarray, factor: float, cost: str = "factor") -> Hypothesis:
    """The number times a factor."""
    detail = f"times {factor:.4g}"
    made = _one(CauseKind.VALUE_DRIFT, feature, detail, COST[cost], lambda rows: {feature.name: values[rows] * factor})
    return replace(made, amount=factor)


def plus(feature: FeatureSpec, values: np.ndarray, shift: float) -> Hypothesis:
    """The number and a constant."""
    detail = f"plus {shift:.4g}"
    made = _one(CauseKind.VALUE_DRIFT, feature, detail, COST["shift"], lambda rows: {feature.name: values[rows] + shift})
    return replace(made, amount=shift)


def _commonest(column: np.ndarray | Coded) -> list[object]:
    """The commonest values of an id or a vocabulary."""
    if isinstance(column, Coded):
        values, counts = list(column.values), np.bincount(column.codes, minlength=len(column.values))
    else:
        distinct, counts = np.unique([value for value in column.tolist() if value is not None], return_counts=True)
        values = distinct.tolist()
    order = [at for at in np.argsort(-counts, kind="stable") if counts[at] and values[at] is not None]
    return [values[at] for at in order[:MAX_VALUES]]


def _of_the_past(serving: Serving, suspects: Sequence[FeatureSpec]) -> Iterator[Hypothesis]:
    """Single features, those with one first word (`item_`), those of one entity and all of them, as they were."""
    aging = [
        feature for feature in suspects if feature.entity is not Entity.CONTEXT and set(feature.columns) <= set(serving.history)
    ]
    by_word = sorted(aging, key=_first_word)
    groups: list[tuple[FeatureSpec, ...]] = [(feature,) for feature in aging]
    groups += [tuple(part) for _, part in groupby(by_word, key=_first_word)]
    groups += [tuple(feature for feature in aging if feature.entity is entity) for entity in (Entity.USER, Entity.ITEM)]
    groups.append(tuple(aging))
    for days in sorted(serving.past):
        seen = set()
        for group in groups:
            changing = tuple(feature for feature in group if _changes(serving, feature, days))
            if changing and changing not in seen:
                seen.add(changing)
                yield stale(serving, changing, days)


def stale(serving: Serving, features: Sequence[FeatureSpec], days: int) -> Hypothesis:
    """All of these features as they were so many days before."""
    places = {feature: serving.past[days][feature.entity] for feature in features}
    known = np.logical_and.reduce([place >= 0 for place in places.values()])

    def make(rows: np.ndarray) -> list[Columns]:
        found: dict[str, np.ndarray | Coded] = {}
        for feature, place in places.items():
            found |= taken({name: serving.history[name] for name in feature.columns}, place[rows])
        return [found]

    cost = COST["past"] * len(features)
    detail = f"{days} day{'s' if days > 1 else ''} before"
    names = tuple(feature.name for feature in features)
    return Hypothesis(CauseKind.STALENESS, names, detail, cost, make, known, amount=days)


def _first_word(feature: FeatureSpec) -> str:
    return feature.name.split("_")[0]


def _changes(serving: Serving, feature: FeatureSpec, days: int) -> bool:
    """Whether the feature of some row was another one so many days before."""
    place = serving.past[days][feature.entity]
    rows = np.flatnonzero(place >= 0)
    return any(is_different(serving.columns[name], serving.history[name], rows, place[rows]).any() for name in feature.columns)


def is_different(one: np.ndarray | Coded, other: np.ndarray | Coded, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(R,) whether two columns differ at these rows of either; nulls are the same."""
    a, b = np.asarray(one)[rows], np.asarray(other)[others]
    is_float = a.dtype.kind == b.dtype.kind == "f"
    differs = np.asarray(~np.isclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True) if is_float else a != b, dtype=bool)
    return np.asarray(differs.any(axis=1)) if differs.ndim == 2 else differs


def _numbers(column: np.ndarray | Coded) -> np.ndarray:
    return np.asarray(column, dtype=np.float64)


def _as_logged(serving: Serving, columns: Columns) -> Iterator[Hypothesis]:
    """Features that the server wrote down, where they are others than offline: nothing has to be guessed."""
    for feature in serving.features:
        if not set(feature.columns) <= set(serving.logged):
            continue
        everywhere = np.arange(len(serving.served))
        differs = np.logical_or.reduce(
            [is_different(columns[name], serving.logged[name], everywhere, everywhere) for name in feature.columns]
        )
        if differs.any():
            kind, detail = _kind_of_logged(serving, feature, np.flatnonzero(differs))
            written = {name: serving.logged[name] for name in feature.columns}
            yield _one(kind, feature, detail, 0.0, partial(taken, written))


def _kind_of_logged(serving: Serving, feature: FeatureSpec, rows: np.ndarray) -> tuple[CauseKind, str]:
    """What the written values of rows (R,) are, compared with those offline."""
    written = {name: serving.logged[name] for name in feature.columns}
    empty = nulls(feature, len(rows))
    is_null = ~np.logical_or.reduce(
        [is_different(written[name], empty[name], rows, np.arange(len(rows))) for name in feature.columns[-1:]]
    )
    if is_null.mean() > 0.5:
        return CauseKind.COVERAGE, "null"
    for days in sorted(serving.past) if set(feature.columns) <= set(serving.history) else ():
        place = serving.past[days][feature.entity][rows]
        known = rows[place >= 0]
        if len(known):
            name = feature.columns[0]
            is_new = is_different(written[name], serving.history[name], known, place[place >= 0])
            if is_new.mean() < 0.5:
                return CauseKind.STALENESS, f"{days} day{'s' if days > 1 else ''} before"
    if feature.kind is not FeatureKind.NUMERIC:
        return CauseKind.VALUE_DRIFT, "other"
    offline, online = (_numbers(column)[rows] for column in (serving.columns[feature.name], written[feature.name]))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = online / offline
    ratios = ratios[np.isfinite(ratios)]
    middle = float(np.median(ratios)) if len(ratios) else float("nan")
    is_steady = len(ratios) > 0 and np.mean(np.abs(ratios / middle - 1.0) < 0.01) > 0.5
    return CauseKind.VALUE_DRIFT, f"times {middle:.4g}" if is_steady else "other"
