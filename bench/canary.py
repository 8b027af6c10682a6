"""How often a canary aborts the harmless and how soon it convicts the harmful, looked at again and again.

    python -m bench.canary [--seeds 1000] [--harm-seeds 200] [--look 20]

Drawn requests of users who differ (no server): each look is the judgement of `tidewheel.rollout.analysis.assess` on all signals
of both arms. A/A: both arms are the same bundle, looked at after every --look requests of each arm up to 3,000, and never
stopped; beside it a z-test of engagement at level 5% at the same looks. Harm: one of an error rate of twice the limit,
calibration 10% off, engagement 5% down, each with a limit below it: how many of the candidate's requests pass until it is
convicted, and how many a test with a fixed horizon, the same level and a power of 95% would take.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist, median

import numpy as np

from tidewheel.contracts.recipe import CanaryStep, DeployConfig
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.analysis import assess
from tidewheel.rollout.evidence import ArmEvidence, Evidence, adjusted, log_calibration

SHOWN, USERS = 8, 1500
STEP = CanaryStep(share=0.1, min_requests=400, max_requests=3000)
HEALTHY = DeployConfig(steps=(STEP,))
ALPHA, POWER = HEALTHY.alpha, 0.95
SIGNALS = 6  # among which the level of a proof of harm is split
SERIES = ("latencies", "users", "engagement", "predicted", "actual", "impressions", "scored", "expected")


@dataclass(frozen=True)
class Harm:
    """A candidate that is worse in one way, and a plan whose limit lies below it, up to `requests` an arm."""

    name: str
    signal: str
    config: DeployConfig
    requests: int
    engagement: float = 1.0
    overconfidence: float = 1.0
    error_rate: float = 0.0


HARMS = (
    Harm("errors at twice the limit of 1%", "errors", HEALTHY, 6000, error_rate=0.02),
    Harm(
        "predictions 10% too high, limit 3%",
        "calibration",
        HEALTHY.model_copy(update={"max_calibration_error": 0.03}),
        20_000,
        overconfidence=1.1,
    ),
    Harm(
        "engagement 5% down, margin 1%",
        "engagement",
        HEALTHY.model_copy(update={"max_engagement_drop": 0.01}),
        40_000,
        engagement=0.95,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--harm-seeds", type=int, default=200)
    parser.add_argument("--look", type=int, default=20)
    options = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        ends = list(pool.map(partial(same_bundle, look=options.look), range(options.seeds), chunksize=10))
        aborted, naive = (sum(found) / options.seeds for found in zip(*ends, strict=True))
        print(
            f"A/A, {options.seeds:,} canaries, a look every {options.look} requests: aborted {aborted:.1%}, z-test {naive:.1%}"
        )
        for harm in HARMS:
            look = max(options.look, harm.requests // 200)
            found = list(pool.map(partial(convicted_after, harm, look), range(options.harm_seeds), chunksize=2))
            seen = [requests for requests in found if requests is not None]
            fixed = fixed_horizon(harm)
            print(
                f"{harm.name}: convicted {len(seen) / len(found):.1%}, after {median(seen):,.0f} requests (median), "
                f"fixed horizon {fixed:,.0f}: {median(seen) / fixed:.2f} times"
            )


def an_arm(rng: np.random.Generator, count: int, harm: Harm | None) -> ArmEvidence:
    """`count` requests of SHOWN items by users who click differently; each arm has users of its own."""
    taste = np.exp(rng.normal(0.0, 0.4, USERS))
    users = rng.integers(0, USERS, count)
    rate = np.clip(0.1 * taste[users], 0.0, 0.6)
    engagement, overconfidence = (harm.engagement, harm.overconfidence) if harm else (1.0, 1.0)
    clicks = rng.binomial(SHOWN, rate * engagement).astype(np.float64)
    return ArmEvidence(
        requests=count,
        errors=0,
        latencies=rng.lognormal(math.log(0.002), 0.3, count),
        users=users,
        engagement=clicks,
        predicted=SHOWN * rate * engagement * overconfidence,
        actual=clicks,
        impressions=np.full(count, float(SHOWN)),
        scored=rate * engagement * overconfidence,
        expected=SHOWN * rate,
    )


def looks(seed: int, config: DeployConfig, harm: Harm | None, requests: int, look: int) -> Iterator[tuple[int, Evidence]]:
    """Requests of either arm so far, and what is known then."""
    rng = np.random.default_rng([seed, requests])
    candidate, control = an_arm(rng, requests, harm), an_arm(rng, requests, None)
    failed = np.cumsum(rng.random(requests) < (harm.error_rate if harm else 0.0))
    for seen in range(look, requests + 1, look):
        both = [
            replace(arm, requests=seen, **{name: getattr(arm, name)[:seen] for name in SERIES}) for arm in (candidate, control)
        ]
        yield seen, Evidence(replace(both[0], errors=int(failed[seen - 1])), both[1], True)


def same_bundle(seed: int, look: int) -> tuple[bool, bool]:
    """Whether any look at two equal arms aborts, and whether a z-test of engagement would at any of them."""
    aborted = naive = False
    for _, evidence in looks(seed, HEALTHY, None, STEP.max_requests, look):
        aborted |= any(signal.phase is Phase.FAILED for signal in assess(evidence, HEALTHY))
        mine, other = (arm.engagement for arm in (evidence.candidate, evidence.control) if arm is not None)
        error = math.sqrt(mine.var() / len(mine) + other.var() / len(other))
        naive |= error > 0 and (mine.mean() - other.mean()) / error < NormalDist().inv_cdf(ALPHA)
    return aborted, naive


def convicted_after(harm: Harm, look: int, seed: int) -> int | None:
    """The candidate's requests at the first look at which the signal is Failed; None where it never is."""
    for seen, evidence in looks(seed, harm.config, harm, harm.requests, look):
        if any(signal.name == harm.signal and signal.phase is Phase.FAILED for signal in assess(evidence, harm.config)):
            return seen
    return None


def fixed_horizon(harm: Harm) -> float:
    """Requests an arm at which one look at the signal's level convicts with a power of 95%: one-sided z-test on the spread
    that the same statistic has in a large canary of this kind."""
    level = NormalDist().inv_cdf(1 - ALPHA / SIGNALS) + NormalDist().inv_cdf(POWER)
    if harm.signal == "errors":
        limit, rate = harm.config.max_error_rate, harm.error_rate
        spread = NormalDist().inv_cdf(1 - ALPHA / SIGNALS) * math.sqrt(limit * (1 - limit))
        return ((spread + NormalDist().inv_cdf(POWER) * math.sqrt(rate * (1 - rate))) / (rate - limit)) ** 2
    size = 20_000
    _, evidence = next(looks(10_000, harm.config, harm, size, size))
    (signal,) = (one for one in assess(evidence, harm.config) if one.name == harm.signal)
    if harm.signal == "engagement":
        assert evidence.control is not None
        mine, other = adjusted(evidence.candidate, evidence.control)
        error, distance = math.hypot(mine.standard_error, other.standard_error) / other.value, 1 - harm.engagement
    else:
        found = log_calibration(evidence.candidate)
        error, distance = found.standard_error, math.log(harm.overconfidence) - math.log1p(harm.config.max_calibration_error)
    assert signal.estimate is not None
    return size * (level * error / distance) ** 2


if __name__ == "__main__":
    main()
