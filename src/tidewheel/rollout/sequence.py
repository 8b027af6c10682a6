"""Bounds that hold at every look at once: one may watch them continuously and stop whenever one likes.

Sources:
    Robbins 1970, "Statistical methods related to the law of the iterated logarithm" (mixture boundaries).
    Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
        Annals of Statistics 49(2): the one-sided normal mixture and its closed form.
    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence
        sequences", Annals of Statistics 52(6): the same boundary with an estimated standard error.
    Howard, Ramdas 2022, "Sequential estimation of quantiles with applications to A/B testing and best-arm
        identification", Bernoulli 28(3): order statistics as bounds of a quantile.
    Waudby-Smith, Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS-B 86(1): mixtures of
        likelihood ratios as e-processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Alternatives over which the Bernoulli mixtures average, with equal weights but for the first of BETTER: a healthy
# server fails never, and that is the case to be quick in.
BETTER = ((0.0, 0.6), (0.1, 0.1), (0.25, 0.1), (0.5, 0.1), (0.75, 0.1))  # (rate / limit, weight)
WORSE = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # (rate - limit) / (1 - limit)
STEPS, PRECISE = 50, 1e-9  # of Newton's method, which takes about four; after the last the error is a square of it
LARGEST = 200.0  # exponent, beyond which a rate is 0 or 1


@dataclass(frozen=True)
class Estimate:
    """A statistic and its standard error at this look; both may be NaN when there is nothing to estimate from."""

    value: float
    standard_error: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.standard_error)


def width(standard_error: float, alpha: float, sharpest_at: float) -> float:
    """One-sided distance that an estimate leaves from the truth, at any look ever, with probability at most `alpha`.

    Args:
        standard_error: of the estimate at this look, > 0.
        alpha: in (0, 0.5).
        sharpest_at: the standard error at which the bound shall be tightest; fixed before the first look.

    Howard et al. 2021, one-sided normal mixture: with x = t rho^2,
    se * sqrt(2 (x + 1) / x * log(1 + sqrt(x + 1) / (2 alpha))); rho as in Waudby-Smith et al. 2024, section 2, at 2 alpha.
    """
    level = -2.0 * math.log(2.0 * alpha)
    x = (level + math.log1p(level)) * (sharpest_at / standard_error) ** 2
    return standard_error * math.sqrt(2.0 * (x + 1.0) / x * math.log1p(math.sqrt(x + 1.0) / (2.0 * alpha)))


def bounds(estimate: Estimate, alpha: float, *sharpest_at: float) -> tuple[float, float]:
    """Lower and upper bound, each of which misses the truth at some look with probability at most `alpha`.

    Several `sharpest_at` share `alpha`, and the narrowest of their bounds holds (union bound): one sees small effects late,
    another large ones soon.

    An exact zero of the standard error (all observations alike) gives no bound: it is lack of evidence, not certainty.
    """
    if not estimate.is_finite or estimate.standard_error <= 0.0:
        return -math.inf, math.inf
    distance = min(width(estimate.standard_error, alpha / len(sharpest_at), sharpest) for sharpest in sharpest_at)
    return estimate.value - distance, estimate.value + distance


def clustered_error(influence: np.ndarray, clusters: np.ndarray) -> float:
    """Standard error of a sum of influences (N,), added up within users first; NaN below two users."""
    if len(clusters) and not 0 <= clusters.min() <= clusters.max() < 2 * len(clusters):
        _, clusters = np.unique(clusters, return_inverse=True)  # else they are places of sums already
    sums = np.bincount(clusters, weights=influence)
    count = int(np.count_nonzero(np.bincount(clusters)))
    if count < 2:
        return math.nan
    return math.sqrt(count / (count - 1) * float(np.square(sums).sum()))


def median_bounds(ordered: Sequence[float], alpha: float, sharpest_at: int) -> tuple[float, float]:
    """Bounds of the median of (N,) values in order, each missing it at some look with probability at most `alpha`.

    Howard & Ramdas 2022: the number of values below the median is a sum of +-1/2 steps, which is sub-Gaussian with
    variance N / 4, so no estimate enters. `sharpest_at` is the N at which the bounds shall be tightest.
    """
    count = len(ordered)
    if count == 0:
        return -math.inf, math.inf
    shift = count * width(0.5 / math.sqrt(count), alpha, 0.5 / math.sqrt(sharpest_at))
    low, high = math.floor(count / 2 - shift), math.ceil(count / 2 + shift)
    return (float(ordered[low - 1]) if low >= 1 else -math.inf), (float(ordered[high]) if high < count else math.inf)


def rate_bounds(events: int, trials: int, alpha: float) -> tuple[float, float]:
    """Bounds of a rare rate: all rates that neither mixture can refute at level `alpha` each. Exact, not asymptotic.

    One alternative alone refutes rates from a place on that has a closed form; the whole mixture refutes a few more.
    """
    if trials == 0:
        return 0.0, 1.0
    threshold, others = -math.log(alpha), trials - events
    lower, upper = 0.0, 1.0
    if events:
        gains = [(share, threshold + math.log(len(WORSE)) - others * math.log1p(-share)) for share in WORSE]
        alone = max(share / (share + math.expm1(min(gain / events, LARGEST))) for share, gain in gains)
        lower = _last_refuted(alone, threshold, lambda rate: _evidence_above(events, others, rate))
    if others:
        gains = [(share, threshold - math.log(weight) - _times_log(events, share)) for share, weight in BETTER]
        odds = [(share, math.expm1(min(gain / others, LARGEST))) for share, gain in gains]
        alone = min(odd / (odd + 1.0 - share) for share, odd in odds)
        upper = _last_refuted(alone, threshold, lambda rate: _evidence_below(events, others, rate))
    return lower, upper


def log_evidence_below(events: int, trials: int, limit: float) -> float:
    """Log of an e-process against `rate >= limit`: once above log(1 / alpha), the rate is below the limit at level alpha.

    A mixture of likelihood ratios of smaller rates to `limit`, in (0, 1); each is a supermartingale under every rate >= limit.
    """
    return _evidence_below(events, trials - events, limit)[0]


def log_evidence_above(events: int, trials: int, limit: float) -> float:
    """Log of an e-process against `rate <= limit`, the mirror of `log_evidence_below`."""
    return _evidence_above(events, trials - events, limit)[0]


def _evidence_below(events: int, others: int, limit: float) -> tuple[float, float]:
    """The log evidence of rates `share * limit`, and its slope in `limit`."""
    terms = []
    for share, weight in BETTER:
        ratio = (1.0 - share * limit) / (1.0 - limit)  # of the likelihoods of no event
        gained = _times_log(events, share) + others * math.log(ratio)
        terms.append((math.log(weight) + gained, others * (1.0 - share) / (ratio * (1.0 - limit) ** 2)))
    return _log_sum(terms)


def _evidence_above(events: int, others: int, limit: float) -> tuple[float, float]:
    """The log evidence of rates `limit + share * (1 - limit)`, and its slope in `limit`."""
    terms = []
    for share in WORSE:
        rate = limit + share * (1.0 - limit)
        gained = events * math.log(rate / limit) + others * math.log1p(-share)
        terms.append((gained - math.log(len(WORSE)), -events * share / (limit * rate)))
    return _log_sum(terms)


def _times_log(count: int, share: float) -> float:
    """count * log(share), which is zero for nothing and -inf for something whose share is zero."""
    return count * math.log(share) if share > 0.0 else -math.inf if count else 0.0


def _log_sum(terms: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Log of the sum of exp(term), and its slope from the terms' own."""
    largest = max(term for term, _ in terms)
    parts = [(math.exp(term - largest), slope) for term, slope in terms]
    total = sum(part for part, _ in parts)
    return largest + math.log(total), sum(part * slope for part, slope in parts) / total


def _last_refuted(rate: float, threshold: float, evidence: Callable[[float], tuple[float, float]]) -> float:
    """The refuted rate that is nearest to the estimate, from one that is refuted.

    Log evidence is convex in the rate (a log of a sum of log-convex terms), so Newton's steps never leave the refuted side.
    """
    for _ in range(STEPS):
        if not 0.0 < rate < 1.0:
            break
        found, slope = evidence(rate)
        step = (found - threshold) / slope
        rate -= step
        if abs(step) <= PRECISE:
            break
    return min(max(rate, 0.0), 1.0)
