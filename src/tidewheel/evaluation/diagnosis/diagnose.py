"""Why a bundle does otherwise online than offline: ranked causes whose effects on the log-loss add up. Pure.

The way from the log-loss of the held-out rows to that of the served scores is walked in steps that add up exactly: first what
moved between the evaluation and the days for the same scores (`outcome_shifts`), then what moved the scores themselves on the
same rows (`serving_skew`). Both are in nats of log-loss an impression, so that causes of either kind can be ranked.
Legend: B joined rows of the days, N rows of all groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidewheel.contracts.diagnosis import Cause, CauseKind, Diagnosis, Finding, Joined, Places, Term
from tidewheel.contracts.window import Window
from tidewheel.evaluation.diagnosis.lost_features import Lost, lost_features
from tidewheel.evaluation.diagnosis.outcome_shifts import (
    MIN_RAREST,
    OFFLINE,
    OFFLINE_RANDOM,
    ONLINE,
    ONLINE_RANDOM,
    PAIRS,
    Shifts,
    outcome_shifts,
    proof,
)
from tidewheel.evaluation.diagnosis.rows import Groups, Rows, behaviour, estimate
from tidewheel.evaluation.diagnosis.sentences import of_lost, of_outcomes, of_serving
from tidewheel.evaluation.diagnosis.served_features import Serving
from tidewheel.evaluation.diagnosis.serving_skew import Skew, served_otherwise, serving_skew
from tidewheel.evaluation.intervals import POSITIVE, Users
from tidewheel.evaluation.metrics import Measured, effective_rows, ratio, row_loss

MIN_ROWS = 200  # joined; fewer are no evidence of anything
MIN_USERS = 30
MAX_PLACES = 12
KINDS = {
    "mix": CauseKind.TRAFFIC_MIX,
    "position": CauseKind.POSITION,
    "calibration": CauseKind.CALIBRATION,
    "selection": CauseKind.SELECTION,
}


@dataclass(frozen=True)
class Question:
    """What is asked: of which bundle, released by which run, on which days; and how many impressions there were.

    `impressions` of the window, `of_bundle` of them served by it.
    """

    recipe: str
    label: str
    window: Window
    bundle: str
    run_id: str
    impressions: int
    of_bundle: int


def diagnose(question: Question, online: Rows, offline: Rows, serving: Serving) -> Diagnosis:
    """Compare what was served with the bundle's own scores and its held-out rows, and name what differs.

    Args:
        online: the joined rows (B,) of the days, `serving` says what was served of each.
        offline: the held-out rows of the run that released the bundle, in random order or not.
    """
    joined = Joined(impressions=question.impressions, of_bundle=question.of_bundle, joined=len(online))
    if shortage := _shortage(online, offline, question.label):
        return _answer(question, Finding.INCONCLUSIVE, shortage, joined)
    is_off = served_otherwise(serving, online.weight, online.scores)
    joined = joined.model_copy(
        update={
            "randomized": int(online.is_randomized.sum()),
            "served_differently": float(online.weight[is_off].sum() / online.weight.sum()),
        }
    )
    has_ranked = all(_rarest_ranked(rows) >= MIN_RAREST for rows in (online, offline))
    ranked = ~online.is_randomized if has_ranked else np.ones(len(online), dtype=bool)
    groups = _groups(online, offline, has_ranked)
    shifts = outcome_shifts(groups)
    lost = lost_features(groups, proof(groups, max(1, len(online.missing))))
    skews = serving_skew(serving, online.weight, online.scores)
    places = _places(groups, shifts)
    causes, terms = _outcome_causes(groups, shifts, lost, places)
    more, served = _serving_causes(groups, ranked, skews, (online.scores, serving.served))
    ordered = sorted((*causes, *more), key=lambda cause: -abs(cause.log_loss.value or 0.0))
    message = ordered[0].sentence if ordered else _nothing(joined)
    answer = _answer(question, Finding.EXPLAINED if ordered else Finding.NOTHING, message, joined)
    rows = groups[ONLINE]
    return answer.model_copy(
        update={
            "offline": behaviour(groups[OFFLINE], groups[OFFLINE].scores),
            "rescored": behaviour(rows, rows.scores),
            "served": behaviour(rows, serving.served[ranked]),
            "causes": tuple(ordered),
            "terms": (*terms, *served),
            "places": places,
        }
    )


def _answer(question: Question, finding: Finding, message: str, joined: Joined) -> Diagnosis:
    return Diagnosis(
        recipe=question.recipe,
        label=question.label,
        window=question.window,
        bundle=question.bundle,
        run_id=question.run_id,
        finding=finding,
        message=message,
        joined=joined,
    )


def _shortage(online: Rows, offline: Rows, label: str) -> str:
    """What there is too little of to say anything, or nothing."""
    for name, rows in (("joined rows", online), ("held-out rows", offline)):
        users = len(np.unique(rows.users))
        if len(rows) < MIN_ROWS or users < MIN_USERS or rows.rarest < MIN_RAREST:
            return (
                f"{len(rows)} {name} of {users} users, {rows.rarest} of the rarer class of {label}; expected at least "
                f"{MIN_ROWS} rows, {MIN_USERS} users and {MIN_RAREST} of each class: take more days"
            )
    return ""


def _rarest_ranked(rows: Rows) -> int:
    """Rows of the rarer class in lists that were not in random order."""
    return rows.take(~rows.is_randomized).rarest


def _groups(online: Rows, offline: Rows, has_ranked: bool) -> Groups:
    """Ranked rows and those in random order apart; all together where too few are ranked."""
    if not has_ranked:
        return Groups.of({ONLINE: online, OFFLINE: offline})
    parts = {ONLINE: online.take(~online.is_randomized), OFFLINE: offline.take(~offline.is_randomized)}
    if online.is_randomized.any() and offline.is_randomized.any():
        parts[ONLINE_RANDOM] = online.take(online.is_randomized)
        parts[OFFLINE_RANDOM] = offline.take(offline.is_randomized)
    return Groups.of(parts)


def _outcome_causes(
    groups: Groups, shifts: Shifts, lost: list[Lost], places: tuple[Places, ...]
) -> tuple[list[Cause], list[Term]]:
    """What moved for the same scores, and every term from offline to re-scored.

    What lost features cost is in what was shown and in what is unexplained; it is taken out of the latter.
    """
    effective = effective_rows(groups[ONLINE].weight)
    steps = dict(shifts.terms)
    for one in lost:
        steps["unexplained"] = steps["unexplained"] - one.log_loss
        steps[f"{CauseKind.COVERAGE.value} {one.feature}"] = one.log_loss
    terms = {name: groups.estimate(measured, effective) for name, measured in steps.items()}
    causes = [
        Cause(
            kind=KINDS[name],
            features=(shifts.mix,) if name == "mix" else (),
            detail="outcomes" if name == "calibration" else "",
            rows_share=1.0,
            log_loss=terms[name],
            sentence=of_outcomes(name, groups, shifts, places),
        )
        for name in shifts.proven
    ]
    causes += [
        Cause(
            kind=CauseKind.COVERAGE,
            features=(one.feature,),
            detail="null in the log",
            rows_share=one.online,
            log_loss=terms[f"{CauseKind.COVERAGE.value} {one.feature}"],
            sentence=of_lost(one),
        )
        for one in lost
    ]
    return causes, [Term(name=name, log_loss=term) for name, term in terms.items()]


def _serving_causes(
    groups: Groups, ranked: np.ndarray, skews: list[Skew], scores: tuple[np.ndarray, np.ndarray]
) -> tuple[list[Cause], list[Term]]:
    """What moved the scores of the same rows, and the terms from re-scored to served; `scores` (B,) are those two."""
    rows, (rescored, served) = groups[ONLINE], scores
    effective, causes, terms = effective_rows(rows.weight), [], []

    def step(name: str, before: np.ndarray, after: np.ndarray) -> Term:
        change = row_loss(after[ranked], rows.labels) - row_loss(before[ranked], rows.labels)
        found = ratio(rows.weight, change, 1.0)
        placed = Measured(found.value, groups.placed(ONLINE, found.influence))
        return Term(name=name, log_loss=groups.estimate(placed, effective))

    for skew in skews:
        term = step(" ".join(filter(None, (skew.kind.value, ", ".join(skew.features)))), skew.before, skew.after)
        share = float(rows.weight[skew.is_hit[ranked]].sum() / rows.weight.sum())
        terms.append(term)
        causes.append(
            Cause(
                kind=skew.kind,
                features=skew.features,
                detail=skew.detail,
                rows_share=min(share, 1.0),
                log_loss=term.log_loss,
                sentence=of_serving(skew, share),
            )
        )
    terms.append(step("served otherwise", skews[-1].after if skews else rescored, served))
    return causes, terms


def _places(groups: Groups, shifts: Shifts) -> tuple[Places, ...]:
    """Actual / predicted by position, of lists in random order where there are enough."""
    pair = PAIRS[shifts.has_random]
    known = [groups[name].position[np.isfinite(groups[name].position)] for name in pair]
    shared = sorted({int(x) for x in known[0]} & {int(x) for x in known[1]})[:MAX_PLACES]
    found = []
    for position in shared:
        sides = []
        for name in pair:
            rows = groups[name].take(groups[name].position == position)
            actual = ratio(rows.weight, (rows.labels == 1).astype(np.float64), rows.scores)
            measured = actual if actual.value > 0 else Measured.undefined(len(rows))
            sides.append(estimate(measured, Users.of(rows.users), effective_rows(rows.weight), POSITIVE))
        found.append(Places(position=position, online=sides[0], offline=sides[1]))
    return tuple(found)


def _nothing(joined: Joined) -> str:
    return (
        f"{joined.joined:,} rows joined, served scores are the bundle's own on "
        f"{1.0 - joined.served_differently:.1%} of them, and neither traffic, positions nor calibration have moved provably"
    )
