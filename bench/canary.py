"""How often a canary aborts the harmless and how soon it convicts the harmful, looked at after every request.

    python -m bench.canary [--seeds 1000] [--requests 3000] [--look 1] [--harm-seeds 200]

Drawn requests (no server) of users who differ and belong to one arm each. After every --look of them `tidewheel.rollout.canary.
Canary` gets a batch and judges all signals of both arms.

A/A: both arms are the same bundle, and the step is held open for --requests an arm, so that nothing but an abort ends it;
beside it a z-test of engagement at level 5% at the same looks, from the time on at which either arm has 50 requests.
Harm: one of an error rate of twice the limit, calibration 10% off, engagement 5% down, each with a limit below it: how many of
the candidate's requests pass until it is convicted (200 looks), and how many a test with a fixed horizon, the same level and a
power of 95% would take. Before that, what a look costs early and late in a canary.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist, median

import numpy as np

from tidewheel.contracts.recipe import CanaryStep, DeployConfig
from tidewheel.contracts.rollout import ArmBatch, CanaryBatch
from tidewheel.contracts.verdict import Phase
from tidewheel.rollout.canary import Canary
from tidewheel.rollout.evidence import Evidence, adjusted, log_calibration

SHOWN, USERS = 8, 1500
STEP = CanaryStep(share=0.1, min_requests=400, max_requests=100_000)
HEALTHY = DeployConfig(steps=(STEP,))
ALPHA, POWER = HEALTHY.alpha, 0.95
SIGNALS = 6  # among which the level of a proof of harm is split


@dataclass(frozen=True)
class Harm:
    """A candidate that is worse in one way, and a plan whose limit lies below it; traffic of `requests` an arm."""

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
    parser.add_argument("--requests", type=int, default=3000, help="of an arm of an A/A canary")
    parser.add_argument("--look", type=int, default=1, help="requests of both arms between two looks at an A/A canary")
    parser.add_argument("--harm-seeds", type=int, default=200)
    options = parser.parse_args()
    for seen in (1_000, 10_000, 90_000):
        print(f"a look at 200 requests after {seen:,} an arm: {cost_of_a_look(seen):.2f} ms of CPU", flush=True)
    with ProcessPoolExecutor() as pool:
        for harm in HARMS if options.harm_seeds else ():
            found = list(pool.map(partial(convicted_after, harm), range(options.harm_seeds), chunksize=2))
            seen = [requests for requests in found if requests is not None]
            fixed = fixed_horizon(harm)
            print(
                f"{harm.name}: convicted {len(seen) / len(found):.1%}, after {median(seen):,.0f} requests (median), "
                f"fixed horizon {fixed:,.0f}: {median(seen) / fixed:.2f} times",
                flush=True,
            )
        aborted = naive = 0
        same = partial(same_bundle, requests=options.requests, look=options.look)
        for done, (is_aborted, is_naive) in enumerate(pool.map(same, range(options.seeds)), start=1):
            aborted, naive = aborted + is_aborted, naive + is_naive
            if done % 100 == 0 or done == options.seeds:
                print(
                    f"A/A, {done:,} canaries of {options.requests:,} requests an arm, a look every {options.look}: "
                    f"aborted {aborted / done:.1%}, z-test {naive / done:.1%}",
                    flush=True,
                )


@dataclass(frozen=True)
class Traffic:
    """Requests of both arms in order: who asks, what is shown to whom and comes of it."""

    is_candidate: np.ndarray
    is_failed: np.ndarray
    series: dict[str, list]

    def batches(self, look: int) -> Iterator[CanaryBatch]:
        """The requests between two looks, each of which takes a second."""
        for start in range(0, len(self.is_candidate), look):
            yield self.batch(start, start + look)

    def batch(self, start: int, end: int) -> CanaryBatch:
        mine = self.is_candidate[start:end]
        rows = np.arange(start, start + len(mine))
        candidate, control = self._arm(rows[mine]), self._arm(rows[~mine])
        return CanaryBatch(taken=len(rows), seconds=len(rows), took_seconds=0.0, candidate=candidate, control=control)

    def _arm(self, rows: np.ndarray) -> ArmBatch:
        answered = rows[~self.is_failed[rows]].tolist()
        series = {name: tuple([values[row] for row in answered]) for name, values in self.series.items()}
        return ArmBatch(requests=len(rows), errors=len(rows) - len(answered), **series)


def drawn(seed: int, harm: Harm | None, requests: int) -> Traffic:
    """`requests` an arm, about, of SHOWN items by users who click differently."""
    rng, count = np.random.default_rng([seed, requests]), 2 * requests
    is_candidate = rng.random(count) < 0.5
    users = rng.integers(0, USERS, count) + USERS * is_candidate
    rate = np.clip(0.1 * np.exp(rng.normal(0.0, 0.4, 2 * USERS))[users], 0.0, 0.6)
    effect = np.where(is_candidate, harm.engagement if harm else 1.0, 1.0)
    score = rate * effect * np.where(is_candidate, harm.overconfidence if harm else 1.0, 1.0)
    clicks = rng.binomial(SHOWN, rate * effect).astype(np.float64)
    series = {
        "latencies": rng.lognormal(math.log(0.002), 0.3, count),
        "users": users,
        "engagement": clicks,
        "actual": clicks,
        "predicted": SHOWN * score,
        "impressions": np.full(count, float(SHOWN)),
        "scored": score,
        "expected": SHOWN * rate,
    }
    is_failed = is_candidate & (rng.random(count) < (harm.error_rate if harm else 0.0))
    return Traffic(is_candidate, is_failed, {name: values.tolist() for name, values in series.items()})


def ended(config: DeployConfig, batches: Iterator[CanaryBatch]) -> Canary:
    """A canary that has seen the batches, or ended before."""
    canary = Canary(config, has_control=True, is_closed_loop=True)
    for batch in batches:
        if canary.add(batch) is not Phase.RUNNING:
            break
    return canary


def held_for(seconds: int) -> DeployConfig:
    """A plan whose step passes nobody before."""
    step = STEP.model_copy(update={"min_seconds": float(seconds), "max_seconds": float(seconds)})
    return HEALTHY.model_copy(update={"steps": (step,)})


def same_bundle(seed: int, requests: int, look: int) -> tuple[bool, bool]:
    """Whether any look at two equal arms aborts, and whether a z-test of engagement would at any of them."""
    traffic = drawn(seed, None, requests)
    canary = ended(held_for(4 * requests), traffic.batches(look))
    return canary.result().verdict.phase is Phase.FAILED, z_test_alarms(traffic, look)


def z_test_alarms(traffic: Traffic, look: int, smallest: int = 50) -> bool:
    """Whether the candidate's engagement is below control's at 5% at any look, as a test sees it that knows of one look."""
    clicks, means, errors = np.array(traffic.series["engagement"]), [], []
    counts = [np.cumsum(is_in)[look - 1 :: look] for is_in in (traffic.is_candidate, ~traffic.is_candidate)]
    looked = np.minimum(*counts) >= smallest
    for is_in, count in zip((traffic.is_candidate, ~traffic.is_candidate), counts, strict=True):
        n = count[looked]
        mean, square = (np.cumsum(is_in * values)[look - 1 :: look][looked] / n for values in (clicks, clicks**2))
        means.append(mean)
        errors.append((square - mean**2) / n)
    return bool((means[0] - means[1] < NormalDist().inv_cdf(ALPHA) * np.sqrt(errors[0] + errors[1])).any())


def convicted_after(harm: Harm, seed: int) -> int | None:
    """The candidate's requests when the signal fails; None where it does not."""
    canary = ended(harm.config, drawn(seed, harm, harm.requests).batches(harm.requests // 100))
    failed = [signal.name for signal in canary.signals if signal.phase is Phase.FAILED]
    return canary.progress().requests if harm.signal in failed else None


def cost_of_a_look(seen: int, batch: int = 200, looks: int = 10) -> float:
    """Milliseconds of CPU of a look at `batch` requests more, the least of some, in a canary that has seen `seen` an arm."""
    first, costs = 2 * seen, []
    traffic = drawn(1, None, seen + batch * looks)
    canary = Canary(held_for(10 * first), has_control=True, is_closed_loop=True)
    canary.add(traffic.batch(0, first))
    for start in range(first, first + batch * looks, batch):
        found, began = traffic.batch(start, start + batch), time.process_time()
        canary.add(found)
        costs.append(time.process_time() - began)
    return 1000.0 * min(costs)


def fixed_horizon(harm: Harm) -> float:
    """Requests an arm at which one look at the signal's level convicts with a power of 95%: one-sided z-test on the spread
    that the same statistic has in a large canary of this kind."""
    level = NormalDist().inv_cdf(1 - ALPHA / SIGNALS) + NormalDist().inv_cdf(POWER)
    if harm.signal == "errors":
        limit, rate = harm.config.max_error_rate, harm.error_rate
        spread = NormalDist().inv_cdf(1 - ALPHA / SIGNALS) * math.sqrt(limit * (1 - limit))
        return ((spread + NormalDist().inv_cdf(POWER) * math.sqrt(rate * (1 - rate))) / (rate - limit)) ** 2
    traffic = drawn(10_000, harm, 20_000)
    batch = traffic.batch(0, len(traffic.is_candidate))
    evidence = Evidence(has_control=True, is_closed_loop=True)
    evidence.add(batch.candidate, batch.control)
    assert evidence.control is not None
    if harm.signal == "engagement":
        mine, other = adjusted(evidence.candidate.outcomes, evidence.control.outcomes)
        error, distance = math.hypot(mine.standard_error, other.standard_error) / other.value, 1 - harm.engagement
    else:
        error = log_calibration(evidence.candidate).standard_error
        distance = math.log(harm.overconfidence) - math.log1p(harm.config.max_calibration_error)
    return evidence.candidate.requests * (level * error / distance) ** 2


if __name__ == "__main__":
    main()
