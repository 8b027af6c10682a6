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
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Alternatives over which the Bernoulli mixtures average, with equal weights but for the first of BETTER: a healthy
# server fails never, and that is the case to be quick in.
BETTER = ((0.0, 0.6), (0.1, 0.1), (0.25, 0.1), (0.5, 0.1), (0.75, 0.1))  # (rate / limit, weight)
WORSE = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # (rate - limit) / (1 - limit)
BISECTIONS = 40  # halvings of [0, 1]: far below any float that is printed


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


def ratio_of_sums(numerator: np.ndarray, denominator: np.ndarray, clusters: np.ndarray) -> Estimate:
    """sum(numerator) / sum(denominator) with a standard error clustered on whole users, by linearization.

    Args:
        numerator, denominator: (N,) one value a request.
        clusters: (N,) int64 user of each request; requests of one user are not independent.

    Cochran 1977, "Sampling Techniques", section 6.4 and chapter 9: var = U / (U - 1) sum_u (y_u - r x_u)^2 / x^2.
    """
    total = float(denominator.sum())
    if total == 0.0:
        return Estimate(math.nan, math.nan)
    ratio = float(numerator.sum()) / total
    return Estimate(ratio, clustered_error((numerator - ratio * denominator) / total, clusters))


def clustered_error(influence: np.ndarray, clusters: np.ndarray) -> float:
    """Standard error of a sum of influences (N,), added up within users first; NaN below two users."""
    if len(clusters) and not 0 <= clusters.min() <= clusters.max() < 2 * len(clusters):
        _, clusters = np.unique(clusters, return_inverse=True)  # else they are places of sums already
    sums = np.bincount(clusters, weights=influence)
    count = int(np.count_nonzero(np.bincount(clusters)))
    if count < 2:
        return math.nan
    return math.sqrt(count / (count - 1) * float(np.square(sums).sum()))


def median_bounds(values: np.ndarray, alpha: float, sharpest_at: int) -> tuple[float, float]:
    """Bounds of the median of (N,) values, each missing it at some look with probability at most `alpha`.

    Howard & Ramdas 2022: the number of values below the median is a sum of +-1/2 steps, which is sub-Gaussian with
    variance N / 4, so no estimate enters. `sharpest_at` is the N at which the bounds shall be tightest.
    """
    count = len(values)
    if count == 0:
        return -math.inf, math.inf
    shift = count * width(0.5 / math.sqrt(count), alpha, 0.5 / math.sqrt(sharpest_at))
    low, high = math.floor(count / 2 - shift), math.ceil(count / 2 + shift)
    ordered = np.sort(values)
    return (float(ordered[low - 1]) if low >= 1 else -math.inf), (float(ordered[high]) if high < count else math.inf)


def rate_bounds(events: int, trials: int, alpha: float) -> tuple[float, float]:
    """Bounds of a rare rate: all rates that neither mixture can refute at level `alpha` each. Exact, not asymptotic."""
    if trials == 0:
        return 0.0, 1.0
    threshold = math.log(1.0 / alpha)
    estimate = events / trials
    lower = _boundary(estimate, 0.0, lambda rate: log_evidence_above(events, trials, rate) >= threshold)
    upper = _boundary(estimate, 1.0, lambda rate: log_evidence_below(events, trials, rate) >= threshold)
    return lower, upper


def log_evidence_below(events: int, trials: int, limit: float) -> float:
    """Log of an e-process against `rate >= limit`: once above log(1 / alpha), the rate is below the limit at level alpha.

    A mixture of likelihood ratios of smaller rates to `limit`; each is a supermartingale under every rate >= limit.
    """
    return _log_mixture(events, trials, limit, [(share * limit, weight) for share, weight in BETTER])


def log_evidence_above(events: int, trials: int, limit: float) -> float:
    """Log of an e-process against `rate <= limit`, the mirror of `log_evidence_below`."""
    return _log_mixture(events, trials, limit, [(limit + share * (1.0 - limit), 1.0 / len(WORSE)) for share in WORSE])


def _log_mixture(events: int, trials: int, limit: float, alternatives: list[tuple[float, float]]) -> float:
    if not 0.0 < limit < 1.0:
        return math.inf if (limit <= 0.0 and events > 0) or (limit >= 1.0 and events < trials) else 0.0
    terms = []
    for rate, weight in alternatives:
        if rate == 0.0 and events > 0:
            continue
        gained = events * math.log(rate / limit) if events else 0.0
        terms.append(math.log(weight) + gained + (trials - events) * math.log((1.0 - rate) / (1.0 - limit)))
    return float(np.logaddexp.reduce(terms))


def _boundary(inside: float, outside: float, is_refuted: Callable[[float], bool]) -> float:
    """The rate between the estimate and an end of [0, 1] from which on rates are refuted."""
    if not is_refuted(outside):
        return outside
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2.0
        if is_refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside
