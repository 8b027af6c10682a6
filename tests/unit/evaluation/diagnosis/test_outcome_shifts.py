"""What moved for the same scores: mix, positions, calibration or selection, told apart on rows whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tidewheel.contracts.diagnosis import CauseKind, Finding
from tidewheel.contracts.window import Window, parse_time
from tidewheel.evaluation.diagnosis.diagnose import Question, diagnose
from tidewheel.evaluation.diagnosis.outcome_shifts import OFFLINE, ONLINE, outcome_shifts
from tidewheel.evaluation.diagnosis.rows import Groups, Rows, logits_of, sigmoid
from tidewheel.evaluation.diagnosis.served_features import Serving
from tidewheel.evaluation.metrics import logloss

WINDOW = Window(start=parse_time("2026-01-12"), end=parse_time("2026-01-14"))
SEEDS = 200


def rows(seed: int, count: int = 6000, surfaces=(0.5, 0.3, 0.2), level=0.0, slope=0.0, overrated=0.0) -> Rows:
    """A log of users who differ; a fifth of its lists in random order. Truth = the score, moved by what is given."""
    random = np.random.default_rng(seed)
    users = random.integers(0, 400, count)
    surface = random.choice(3, count, p=surfaces)
    logit = np.array([-2.5, -1.0, -2.0])[surface] + random.normal(size=count)
    place, is_random = random.integers(0, 8, count).astype(float), random.random(count) < 0.2
    truth = logit + level + slope * np.log1p(place) - overrated * ~is_random
    truth += np.random.default_rng(seed + 10**6).normal(0.0, 0.1, 400)[users]
    labels = (random.random(count) < sigmoid(truth)).astype(np.int8)
    is_kept = (labels == 1) | (random.random(count) < 0.5)
    found = Rows(
        users=users,
        weight=np.where(labels == 1, 1.0, 2.0),
        labels=labels,
        scores=sigmoid(logit),
        position=place,
        is_randomized=is_random,
        mix={"surface": np.array(["feed", "search", "related"])[surface], "noise": random.choice(np.array(["a", "b"]), count)},
    )
    return found.take(is_kept)


def groups(online: Rows, offline: Rows) -> Groups:
    parts = {ONLINE: online.take(~online.is_randomized), OFFLINE: offline.take(~offline.is_randomized)}
    random = {f"{name}_random": rows.take(rows.is_randomized) for name, rows in ((ONLINE, online), (OFFLINE, offline))}
    return Groups.of(parts | random)


def proven(seed: int, **moved: object) -> tuple[str, ...]:
    return outcome_shifts(groups(rows(2 * seed, **moved), rows(2 * seed + 1))).proven


def share(name: str, **moved: object) -> float:
    """Of seeds in which this is all that is proven, or among two things the one with the larger part of the log-loss."""
    hits = 0
    for seed in range(SEEDS):
        found = outcome_shifts(groups(rows(2 * seed, **moved), rows(2 * seed + 1)))
        parts = {one: abs(found.terms[one].value) for one in found.proven}
        hits += bool(parts) and max(parts, key=parts.__getitem__) == name
    return hits / SEEDS


def test_nothing_is_proven_where_nothing_moved_but_in_2_percent_of_logs():
    false = sum(bool(proven(seed)) for seed in range(SEEDS))
    assert false / SEEDS <= 0.02 + 3 * np.sqrt(0.02 * 0.98 / SEEDS)


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("mix", {"surfaces": (0.2, 0.6, 0.2)}),
        ("calibration", {"level": 0.4}),
        ("position", {"slope": -0.6}),
        ("selection", {"overrated": 0.8}),
    ],
)
def test_what_moved_is_named_first_in_95_percent_of_logs(name, moved):
    assert share(name, **moved) >= 0.95


def test_steps_add_up_to_the_gap_exactly_whatever_moved():
    online, offline = rows(3, surfaces=(0.2, 0.6, 0.2), level=0.5, slope=-0.5, overrated=0.7), rows(4)
    both = groups(online, offline)
    found = outcome_shifts(both)
    assert len(found.proven) >= 3
    new, old = both[ONLINE], both[OFFLINE]
    gap = logloss(new.scores, new.labels, new.weight).value - logloss(old.scores, old.labels, old.weight).value
    assert sum(term.value for term in found.terms.values()) == pytest.approx(gap, abs=1e-12)


def test_the_size_of_a_shift_is_measured():
    slopes, levels = [], []
    for seed in range(20):
        slopes.append(outcome_shifts(groups(rows(2 * seed, slope=-0.6), rows(2 * seed + 1))).slope)
        levels.append(outcome_shifts(groups(rows(2 * seed, level=0.4), rows(2 * seed + 1))).level)
    assert np.mean(slopes) == pytest.approx(-0.6, abs=0.08)
    assert np.mean(levels) == pytest.approx(0.4, abs=0.05)


def test_without_lists_in_random_order_positions_are_told_by_ranked_ones():
    online, offline = rows(5, slope=-0.8), rows(6)
    both = Groups.of({ONLINE: online.take(~online.is_randomized), OFFLINE: offline.take(~offline.is_randomized)})
    found = outcome_shifts(both)
    assert (found.proven, found.has_random) == (("position",), False)


# --- the whole answer ---------------------------------------------------------------------------------------------------


def asked(online: Rows, offline: Rows, served: np.ndarray | None = None):
    def score(columns) -> np.ndarray:
        return columns["p"]

    served = online.scores if served is None else served
    serving = Serving(served=served, columns={"p": online.scores}, features=(), score=score)
    return diagnose(Question("shop", "click", WINDOW, "b" * 64, "shop-1", 9000, 8000), online, offline, serving)


def test_too_few_rows_are_inconclusive_and_say_how_many_there_were():
    found = asked(rows(1).take(np.arange(150)), rows(2))
    assert found.finding is Finding.INCONCLUSIVE
    assert "150 joined rows" in found.message
    assert found.causes == ()


def test_without_a_cause_there_is_nothing_to_explain():
    found = asked(rows(11), rows(12))
    assert (found.finding, found.causes) == (Finding.NOTHING, ())
    assert f"{found.joined.joined:,} rows joined" in found.message


def test_causes_of_both_kinds_are_ranked_and_the_terms_lead_from_held_out_to_served():
    online = rows(13, level=0.5)
    served = sigmoid(0.7 * logits_of(online.scores) + 1.0)
    found = asked(online, rows(14), served)
    assert [(cause.kind, cause.detail) for cause in found.causes[:1]] == [(CauseKind.CALIBRATION, "served")]
    assert (CauseKind.CALIBRATION, "outcomes") in [(cause.kind, cause.detail) for cause in found.causes]
    parts = [abs(cause.log_loss.value) for cause in found.causes]
    assert parts == sorted(parts, reverse=True)
    gap = found.served.log_loss.value - found.offline.log_loss.value
    assert sum(term.log_loss.value for term in found.terms) == pytest.approx(gap, abs=1e-9)
    assert found.joined.served_differently == pytest.approx(1.0, abs=0.01)


def test_a_feature_that_the_log_lacks_is_coverage_although_scores_agree():
    online, offline = rows(15), rows(16)
    is_lost = np.random.default_rng(1).random(len(online)) < 0.2
    has_all = np.zeros(len(offline), dtype=bool)
    found = asked(
        replace(online, missing={"age": is_lost, "rate": ~is_lost & False}),
        replace(offline, missing={"age": has_all, "rate": has_all}),
    )
    assert [(cause.kind, cause.features) for cause in found.causes] == [(CauseKind.COVERAGE, ("age",))]
    assert found.causes[0].rows_share == pytest.approx(0.2, abs=0.02)
    gap = found.served.log_loss.value - found.offline.log_loss.value
    assert sum(term.log_loss.value for term in found.terms) == pytest.approx(gap, abs=1e-9)
