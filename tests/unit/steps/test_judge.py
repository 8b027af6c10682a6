"""A judge's job over real servers: what it finds stands in the journal and, at the end, in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest

from tests.canaries import Setting, setting
from tests.conftest import TinyRun
from tidewheel.contracts.ledger import Decision
from tidewheel.contracts.offer import CanaryOffer
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.contracts.target import ArgoTarget
from tidewheel.contracts.verdict import Phase
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.ranker import load_bundle
from tidewheel.registry.release import rollback
from tidewheel.serving import start_server
from tidewheel.steps.canary import found as recorded
from tidewheel.steps.judge import Asked, judge, phase_of
from tidewheel.steps.offers import publish
from tidewheel.store import Home

TARGET = ArgoTarget(kind="argo", namespace="serving", name="feed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home.resolve(tmp_path_factory.mktemp("judge"), {})


@pytest.fixture(scope="module")
def made(place: Home, tiny_run: TinyRun, make_rows: Callable[[Recipe, int, int], pa.Table]) -> Setting:
    found = setting(place.store(), tiny_run, make_rows, TARGET)
    found.bootstrap(TARGET)
    return found


@contextmanager
def asking(
    place: Home, made: Setting, offer: CanaryOffer, candidate: str, revision: str
) -> Iterator[Callable[[int], CanaryResult]]:
    """Ask about steps while two servers run: the candidate's pods serve `candidate`, the others production."""
    publish(made.store, offer)
    with (
        start_server(load_bundle(made.store, candidate).folder) as new,
        start_server(load_bundle(made.store, made.ledger.production() or "").folder) as old,
    ):
        yield lambda step: judge(place, Asked(offer.key, revision, step, new.url, old.url))


def test_a_canary_is_judged_step_by_step_and_decided_once(place: Home, made: Setting) -> None:
    offer = made.offer(made.harmful, "harmful")
    with asking(place, made, offer, made.harmful, "h1") as ask:
        found = ask(1)
        assert phase_of(found, 1) is Phase.FAILED
        again = ask(1)
    assert again == found
    *_, entry = made.ledger.entries()
    assert (entry.decision, entry.run_id, entry.production) == (Decision.ROLLED_BACK, "harmful", made.production)
    assert entry.target == TARGET
    assert "logloss" in entry.reason or "calibration" in entry.reason
    assert recorded(made.store, offer) == found  # what the run's report shows, although `deploy` did not lead it
    assert made.ledger.last_number() == 2

    offer = made.offer(made.equal, "equal")
    with asking(place, made, offer, made.equal, "e1") as ask:
        assert phase_of(ask(1), 1) is Phase.SUCCESSFUL
        assert made.ledger.last_number() == 2  # nothing is decided before the last step
        assert phase_of(ask(2), 2) is Phase.SUCCESSFUL
    *_, entry = made.ledger.entries()
    assert (entry.decision, entry.production) == (Decision.PROMOTED, made.equal)

    # Another image with the same bundle: new pods against old ones, and nothing is decided about it.
    with asking(place, made, offer, made.equal, "e2") as ask:
        assert [phase_of(ask(step), step) for step in (1, 2)] == [Phase.SUCCESSFUL] * 2
    assert made.ledger.last_number() == 3

    with asking(place, made, offer, made.production, "e3") as ask:  # pods that serve what nobody offered
        assert phase_of(ask(1), 1) is Phase.ERROR
    assert made.ledger.last_number() == 3

    # Taken back: the very pods that passed do not pass again.
    rollback(made.ledger, None, reason="a test")
    with asking(place, made, offer, made.equal, "e1") as ask:
        assert phase_of(ask(1), 1) is Phase.ERROR


def test_a_decision_about_another_production_is_not_made(place: Home, made: Setting) -> None:
    offer = made.offer(made.harmful, "late")
    stale = offer.model_copy(update={"baseline": offer.baseline.model_copy(update={"ledger_number": 0})})
    with asking(place, made, stale, made.harmful, "l1") as ask, pytest.raises(RetryableError, match="run again"):
        ask(1)


def test_what_was_never_offered_and_a_step_that_is_not_planned_are_refused(place: Home, made: Setting) -> None:
    with pytest.raises(ConfigError, match="no such offer"):
        judge(place, Asked("quickstart/0", "r", 1, "http://127.0.0.1:9", "http://127.0.0.1:9"))
    offer = made.offer(made.equal, "third")
    publish(made.store, offer)
    with pytest.raises(ConfigError, match="step 3 of 2"):
        judge(place, Asked(offer.key, "r", 3, "http://127.0.0.1:9", "http://127.0.0.1:9"))


def test_pods_that_do_not_answer_are_not_passed(place: Home, made: Setting) -> None:
    offer = made.offer(made.equal, "silent")
    publish(made.store, offer)
    found = judge(place, Asked(offer.key, "s1", 1, "http://127.0.0.1:9", "http://127.0.0.1:9"))
    assert phase_of(found, 1) is not Phase.SUCCESSFUL
