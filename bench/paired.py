"""Paired differences of AUC between two systems over (window, seed) pairs, and three intervals of their mean. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from bench.bootstrap import CONFIDENCE, PresortedAuc, interval, resampled_weights

Run = tuple[str, int]  # window, seed


@dataclass(frozen=True)
class Day:
    """The evaluation rows of one window: users (N,) ids that mean the same in every window, labels (N,) 0 or 1."""

    users: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """The mean over all runs of AUC(ours) − AUC(peer), the share of runs in which it is above 0, and 95% intervals.

    `over_runs` takes runs as independent; `over_windows` only windows, whose seeds are averaged; `over_users` holds the
    trained models fixed and draws users again.
    """

    runs: int
    ours: float
    peer: float
    difference: float
    won: float
    over_runs: tuple[float, float]
    over_windows: tuple[float, float]
    over_users: tuple[float, float]


def compare(
    ours: Mapping[Run, np.ndarray], peer: Mapping[Run, np.ndarray], days: Mapping[str, Day], replicates: int
) -> Comparison:
    """Compare the scores (N,) of two systems, a run at a time, on the rows of the run's window.

    Raises:
        ValueError: the two have no run in common, or one has a run that the other lacks.
    """
    if set(ours) != set(peer) or not ours:
        missing = sorted(set(ours) ^ set(peer))
        raise ValueError(f"runs: {missing or 'none'} of one system alone; expected the same runs of both. Run the bench again")
    aucs = {run: tuple(_auc(system[run], days[run[0]]) for system in (ours, peer)) for run in ours}
    differences = {run: a - b for run, (a, b) in aucs.items()}
    windows = sorted({window for window, _ in differences})
    means = [statistics.fmean(d for (window, _), d in differences.items() if window == of) for of in windows]
    values = list(differences.values())
    return Comparison(
        runs=len(values),
        ours=statistics.fmean(a for a, _ in aucs.values()),
        peer=statistics.fmean(b for _, b in aucs.values()),
        difference=statistics.fmean(values),
        won=sum(d > 0 for d in values) / len(values),
        over_runs=t_interval(values),
        over_windows=t_interval(means),
        over_users=interval(np.array(list(_resampled(ours, peer, days, replicates)))),
    )


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's interval of the mean of independent values; (NaN, NaN) for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = float(student.ppf((1 + confidence) / 2, len(values) - 1)) * deviation / len(values) ** 0.5
    return mean - half, mean + half


def _auc(scores: np.ndarray, day: Day) -> float:
    return PresortedAuc(scores, day.labels)(np.ones(len(scores)))


def _resampled(
    ours: Mapping[Run, np.ndarray], peer: Mapping[Run, np.ndarray], days: Mapping[str, Day], replicates: int
) -> Iterator[float]:
    """The mean difference under each replicate: a user who is drawn twice counts twice in every window at once."""
    windows = sorted({window for window, _ in ours})
    _, users = np.unique(np.concatenate([days[window].users for window in windows]), return_inverse=True)
    ends = np.cumsum([len(days[window].users) for window in windows])
    parts = {window: slice(end - len(days[window].users), end) for window, end in zip(windows, ends, strict=True)}
    sorted_once = [
        (parts[run[0]], PresortedAuc(ours[run], days[run[0]].labels), PresortedAuc(peer[run], days[run[0]].labels))
        for run in ours
    ]
    for weight in resampled_weights(users, np.ones(len(users)), replicates, seed=0):
        yield statistics.fmean(a(weight[part]) - b(weight[part]) for part, a, b in sorted_once)
