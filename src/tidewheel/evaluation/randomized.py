"""Replay on requests whose order was random: would users have done more with what another model puts first?

The rows of a request are shown items in random places. A model that picks the first k of them by its score, and shows the picks
in places that are as random, earns on average what these items earned: nothing is assumed about places, and items that an
earlier model would never have shown are among them as often as any other.

Where the log has but a sample of these requests, nobody knows a model's first k. What can be estimated without bias then is
which share of the other items a model puts below an engaged one: what a ranking earns whose places lose attention linearly, up
to a factor (pairs within requests weighted by the product of their weights, `metrics.request_auc`).

Legend: B rows, S shown items of a request.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tidewheel.contracts.comparison import ENGAGED_ABOVE, SNIPS, Replay, Support
from tidewheel.evaluation.lists import ranks, totals
from tidewheel.evaluation.measure import estimate
from tidewheel.evaluation.metrics import Measured, effective_rows, ratio, request_auc
from tidewheel.evaluation.replay import Logged, clipped_ips, ips, snips, support
from tidewheel.evaluation.sample import Sample

MAX_RHO = 10.0  # where weights are clipped, and doubly robust estimates switch to the model alone


def replay(
    scores: Mapping[str, np.ndarray], sample: Sample, label: str, propensity: np.ndarray, top: int, against: str | None
) -> Replay:
    """Every estimator of every model, and the candidate minus `against`.

    Args:
        scores: model -> probabilities (B,) of the label, in [0, 1]; the candidate first.
        propensity: (B,) in (0, 1], with which each row was shown in its place.
        top: k.
        against: name of the model to compare with, or None; its probabilities are then what doubly robust estimates expect.
    """
    candidate = next(iter(scores))
    found: dict[str, dict[str, Measured]] = {}
    supports = {}
    for model, by in scores.items():
        if sample.has_lists:
            log = logged(by, sample, label, propensity, top)
            found[model], supports[model] = estimators(log, scores[against or candidate]), _support(log, propensity)
        else:
            weight = sample.weight / propensity
            found[model] = {ENGAGED_ABOVE: request_auc(by, sample.labels[label], weight, sample.requests)}
            supports[model] = _support_of_pairs(weight, propensity)
    gaps = {name: found[candidate][name] - found[against][name] for name in found[candidate]} if against else {}
    return Replay(
        requests=len(np.unique(sample.requests)),
        rows=len(sample.weight),
        top=top,
        judged_by=SNIPS if sample.has_lists else ENGAGED_ABOVE,
        values={model: {name: estimate(each, sample) for name, each in by.items()} for model, by in found.items()},
        differences={name: estimate(gap, sample) for name, gap in gaps.items()},
        support=supports,
    )


def logged(scores: np.ndarray, sample: Sample, label: str, propensity: np.ndarray, top: int) -> Logged:
    """The choices that the log made, and the model's: which of the shown items gets one of its first `top` places.

    p: of all shown items of the request, each as likely as its own propensity says: 1 / S where these are equal. All rows of
    the requests have to be there.
    """
    return Logged(
        reward=(sample.labels[label] == 1).astype(np.float64),
        propensity=propensity / totals(propensity, sample.requests),
        target=(ranks(scores, sample.requests) < top) / top,
        weight=sample.weight,
    )


def estimators(log: Logged, expected: np.ndarray) -> dict[str, Measured]:
    """IPS, SNIPS, clipped IPS, doubly robust and its switch variant; `expected` (B,) is by a model that never saw the rows.

    What is expected of the picks is itself estimated from the rows, and its error counts (Dudík et al. 2014, eq. 8, with the
    weighted mean over what the log has of the picks in place of the sum over all actions).
    """
    rho, within = log.rho, log.rho <= MAX_RHO
    of_picks = ratio(log.weight, rho * expected, rho)
    residual = rho * (log.reward - expected)
    return {
        SNIPS: snips(log),
        "ips": ips(log),
        "clipped_ips": clipped_ips(log, MAX_RHO),
        "doubly_robust": of_picks + ratio(log.weight, residual, 1.0),
        "switch_doubly_robust": of_picks + ratio(log.weight, np.where(within, residual, 0.0), 1.0),
    }


def _support(log: Logged, propensity: np.ndarray) -> Support:
    found = support(log)
    return Support(
        effective_rows=found.effective_rows,
        reached=found.reached,
        mean_weight=found.mean_rho,
        largest_share=found.largest_share,
        smallest_propensity=float(propensity.min()),
    )


def _support_of_pairs(weight: np.ndarray, propensity: np.ndarray) -> Support:
    return Support(
        effective_rows=effective_rows(weight),
        reached=1.0,
        mean_weight=1.0,
        largest_share=float(weight.max() / weight.sum()),
        smallest_propensity=float(propensity.min()),
    )
