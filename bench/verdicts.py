"""How often verdicts are right, on hundreds of logs of a world whose truth is known.

    python -m bench.verdicts [--seeds 400]

A candidate that is worse than production by exactly the margin may be promoted in 5% of logs at most. As many rows as the
calculator asks for have to promote an equal candidate, and fail one that is worse by twice the margin, in 90%. A candidate that
is better on what production shows, and worse where it shows nothing, has to be blocked in 95%.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from statistics import NormalDist, fmean, stdev

from bench.world_models import Judge, Logging, Model, Truth
from tidewheel.contracts.comparison import Estimate
from tidewheel.contracts.evaluation import Claim, Compared, EvaluateConfig
from tidewheel.contracts.evidence import Evaluation
from tidewheel.contracts.verdict import Phase
from tidewheel.evaluation.planning import POWER, TWO_SIDED, detectable, rows_to_detect

MARGIN = 0.01
PRODUCTION = Model(seed=1, size=0.4)
TEMPTING = Model(seed=2, size=0.05, overrated=4.0)
CLAIM_ALONE = EvaluateConfig(claims=(Claim(metric=Compared.AUC, margin=MARGIN),), replay="reported")
WITH_REPLAY = CLAIM_ALONE.model_copy(update={"replay": "required"})
SAMPLED = 0.25  # of the rows without a click
PILOT_LOGS, PILOT_REQUESTS = 20, 1500
TEMPTED_REQUESTS = 12_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=400)
    seeds = parser.parse_args().seeds
    world = Truth(PRODUCTION)
    for gap, what in ((0.0, "equal"), (MARGIN, "worse by the margin"), (2 * MARGIN, "worse by twice the margin")):
        candidate = world.worse_by(2, gap)
        requests, rows = stated_size(world, candidate)
        found = list(verdicts(world, candidate, CLAIM_ALONE, Logging(requests, SAMPLED), seeds))
        phases = Counter(evaluation.verdict.phase.value for evaluation in found)
        shown = ", ".join(f"{phase} {count / seeds:.1%}" for phase, count in phases.most_common())
        print(f"{what}: {rows:,.0f} effective rows of {requests:,} requests are asked for: {shown}")
        predicted, measured = detectable_effects(found)
        print(
            f"  minimum detectable effect: predicted {predicted:.5f}, measured {measured:.5f}, ratio {predicted / measured:.3f}"
        )
    loss = world.engagement(TEMPTING) / world.engagement(PRODUCTION) - 1
    print(f"tempting: AUC {world.auc(TEMPTING) - world.auc(PRODUCTION):+.4f} on what is shown, engagement {loss:+.1%} in truth")
    for is_whole in (True, False):
        logging = Logging(TEMPTED_REQUESTS, SAMPLED, is_whole=is_whole)
        name = "whole" if is_whole else "sampled"
        for config, what in ((CLAIM_ALONE, "without replay"), (WITH_REPLAY, "with replay")):
            found = list(verdicts(world, TEMPTING, config, logging, seeds))
            print(f"  randomized requests {name}, {what}: promoted {promoted(found):.1%}")
        fair = list(verdicts(world, Model(seed=3, size=0.2), WITH_REPLAY, logging, seeds))
        print(f"  randomized requests {name}, a better candidate with replay: promoted {promoted(fair):.1%}")


def stated_size(world: Truth, candidate: Model) -> tuple[int, float]:
    """Requests and effective rows that, so say a few small logs, show a distance of `MARGIN` in 90% of logs."""
    judge = Judge(world, candidate, CLAIM_ALONE)
    pilots = [_difference(judge.judge(10_000 + seed, Logging(PILOT_REQUESTS, SAMPLED))) for seed in range(PILOT_LOGS)]
    asked = fmean(rows_to_detect(pilot, MARGIN) or 0.0 for pilot in pilots)
    return round(PILOT_REQUESTS * asked / fmean(pilot.effective_rows for pilot in pilots)), asked


def verdicts(world: Truth, candidate: Model, config: EvaluateConfig, logging: Logging, seeds: int) -> Iterator[Evaluation]:
    judge = Judge(world, candidate, config)
    return (judge.judge(seed, logging) for seed in range(seeds))


def promoted(found: list[Evaluation]) -> float:
    return sum(evaluation.verdict.phase is Phase.SUCCESSFUL for evaluation in found) / len(found)


def detectable_effects(found: list[Evaluation]) -> tuple[float, float]:
    """What single logs predict, on average, and what the spread of their differences says."""
    differences = [_difference(evaluation) for evaluation in found]
    spread = stdev(difference.value or 0.0 for difference in differences)
    return fmean(detectable(one) or 0.0 for one in differences), (TWO_SIDED + NormalDist().inv_cdf(POWER)) * spread


def _difference(evaluation: Evaluation) -> Estimate:
    return evaluation.comparison.differences["click"]["auc"]


if __name__ == "__main__":
    main()
