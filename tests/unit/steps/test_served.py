"""Production on a cluster as a projection of the ledger, over a workload in memory; tests/cluster has the real one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from tests.canaries import Setting, setting
from tests.conftest import TinyRun
from tidewheel.contracts.ledger import Decision
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.rollout import CanaryBatch
from tidewheel.contracts.target import ArgoTarget
from tidewheel.contracts.verdict import Phase, Verdict
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.ranker import load_bundle
from tidewheel.registry.release import quarantine, rollback
from tidewheel.rollout import StoredJournal
from tidewheel.rollout.remote import journal_name
from tidewheel.rollout.workload import Standing
from tidewheel.steps import served
from tidewheel.steps.canary import decide
from tidewheel.steps.offers import publish
from tidewheel.steps.served import follow, followed, shares_of, tried_in_steps, weight_of
from tidewheel.store import Store

TARGET = ArgoTarget(kind="argo", namespace="serving", name="feed")


@dataclass
class MemoryWorkload:
    """A Rollout that does at once what it is asked to, and whose canary ends as `ends` says."""

    now: Standing
    ends: Standing | None = None
    fault: Exception | None = None
    offers: int = 0
    where: str = "rollout feed in namespace serving"

    def standing(self) -> Standing:
        if self.fault is not None:
            raise self.fault
        return self.now

    def offer(self, bundle: str, canary: str) -> None:
        self.offers += 1
        self.now = replace(self.now, bundle=bundle, canary=canary, is_settled=False, revision="new")

    def serve(self, bundle: str, canary: str = "") -> Standing:
        self.now = replace(self.now, bundle=bundle, canary=canary or self.now.canary, is_settled=True, is_aborted=False)
        return self.now

    def wait(self, seconds: float, told: Callable[[Standing], None] = lambda standing: None) -> Standing:
        told(self.now)
        if self.ends is not None:
            self.now = replace(
                self.now, is_settled=self.ends.is_settled, is_aborted=self.ends.is_aborted, words=self.ends.words
            )
        return self.now


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: TinyRun, make_rows: Callable[[Recipe, int, int], pa.Table]
) -> Setting:
    store = Store.open(str(tmp_path_factory.mktemp("served") / "store"))
    found = setting(store, tiny_run, make_rows, TARGET)
    found.bootstrap(TARGET)
    return found


@pytest.fixture
def made(first: Setting, tmp_path: Path) -> Setting:
    """A first release, in a store of the test's own."""
    shutil.copytree(first.store.root, tmp_path / "store")
    return replace(first, store=Store.open(str(tmp_path / "store")))


@pytest.fixture
def workload(made: Setting, monkeypatch: pytest.MonkeyPatch) -> MemoryWorkload:
    shares = shares_of(made.part.deploy.steps)
    standing = Standing(made.production, "", "old", is_settled=True, is_aborted=False, words="Healthy", shares=shares)
    found = MemoryWorkload(standing)
    monkeypatch.setattr(served, "Workload", lambda target: found)
    return found


def test_what_serves_already_is_left_alone(made: Setting, workload: MemoryWorkload) -> None:
    assert follow(made.ledger) == []
    workload.now = replace(workload.now, bundle=made.equal)
    (said,) = follow(made.ledger)
    assert said.startswith(f"{workload.where}: serves {made.production[:12]}, before {made.equal[:12]}")
    assert follow(made.ledger) == []


def test_a_candidate_on_trial_is_left_alone_until_something_is_decided(made: Setting, workload: MemoryWorkload) -> None:
    offer = made.offer(made.equal)
    publish(made.store, offer)
    workload.offer(offer.candidate, offer.key)
    assert follow(made.ledger) == []
    quarantine(made.ledger, None, bundle=made.production, reason="a decision of any kind")
    assert len(follow(made.ledger)) == 1
    assert workload.now.bundle == made.production


def test_an_aborted_candidate_makes_room(made: Setting, workload: MemoryWorkload) -> None:
    offer = made.offer(made.equal)
    publish(made.store, offer)
    workload.offer(offer.candidate, offer.key)
    workload.now = replace(workload.now, is_aborted=True)
    assert len(follow(made.ledger)) == 1
    assert (workload.now.bundle, workload.now.is_aborted) == (made.production, False)


def test_a_decision_stands_where_the_cluster_does_not_answer(made: Setting, workload: MemoryWorkload) -> None:
    workload.fault = RetryableError("the cluster does not answer")
    assert followed(made.ledger) == ["the cluster does not answer; `tidewheel reconcile` repairs it"]
    with pytest.raises(RetryableError):
        follow(made.ledger)


def test_without_a_cluster_in_the_ledger_nobody_is_asked(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry.model_copy(update={"target": None}) for entry in made.ledger.entries()]
    ledger = made.ledger
    monkeypatch.setattr(ledger, "entries", lambda: entries)
    assert follow(ledger) == []


def test_an_abort_without_a_verdict_is_an_error_and_the_rollout_says_why(made: Setting, workload: MemoryWorkload) -> None:
    workload.ends = replace(workload.now, is_aborted=True, words="Degraded: pods did not start")
    offer = made.offer(made.equal)
    result = tried_in_steps(TARGET, offer, made.ledger, is_closed_loop=False)
    assert result.verdict.phase is Phase.ERROR
    assert "was aborted: Degraded: pods did not start; see kubectl --namespace" in result.verdict.explain()
    assert tried_in_steps(TARGET, offer, made.ledger, is_closed_loop=False) == result
    assert workload.offers == 1  # nobody gets it twice


def test_a_promotion_without_a_verdict_is_an_error(made: Setting, workload: MemoryWorkload) -> None:
    workload.ends = replace(workload.now, words="Healthy")
    result = tried_in_steps(TARGET, made.offer(made.equal), made.ledger, is_closed_loop=False)
    assert result.verdict.phase is Phase.ERROR
    assert "promoted without a verdict" in result.verdict.explain()


def test_the_journal_of_these_pods_is_what_counts(made: Setting, workload: MemoryWorkload) -> None:
    workload.ends = replace(workload.now, is_aborted=True)
    offer = made.offer(made.equal)
    journal = StoredJournal(made.store, journal_name(offer.key, "new"), "a judge")
    journal.lead()
    journal.append(CanaryBatch(taken=1, seconds=0, took_seconds=0, candidate=None, control=None, fault="gone", is_fatal=True))
    result = tried_in_steps(TARGET, offer, made.ledger, is_closed_loop=False)
    assert result.verdict.explain() == "step 1: gone"


def test_a_rollout_with_other_steps_is_refused_before_anything_is_changed(made: Setting, workload: MemoryWorkload) -> None:
    workload.now = replace(workload.now, shares=(0.2,))
    with pytest.raises(ConfigError, match=r"give 20% of users, the recipe's plan 20%, 50%; upgrade the chart"):
        tried_in_steps(TARGET, made.offer(made.equal), made.ledger, is_closed_loop=False)
    assert workload.offers == 0


def test_a_rollback_is_followed_wherever_the_rollout_is(made: Setting, workload: MemoryWorkload) -> None:
    offer = made.offer(made.equal)
    publish(made.store, offer)
    decide(made.ledger, None, offer, load_bundle(made.store, made.equal).manifest, Verdict(phase=Phase.SUCCESSFUL))
    assert made.ledger.entries()[-1].decision is Decision.PROMOTED
    assert len(follow(made.ledger)) == 1
    assert workload.now.bundle == made.equal
    rollback(made.ledger, None, reason="a test")
    assert len(follow(made.ledger)) == 1
    assert workload.now.bundle == made.production


@pytest.mark.parametrize(("share", "weight"), [(0.001, 1), (0.05, 5), (0.07, 7), (0.101, 11), (0.5, 50), (1.0, 100)])
def test_a_share_is_a_whole_percent_and_never_none(share: float, weight: int) -> None:
    assert weight_of(share) == weight
