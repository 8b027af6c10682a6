"""Releases begin the holdout experiment, its verdict ends it, and who is served by whom follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.registry.test_release import GOOD, NOW, MemoryRegistry
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.experiment import Experiment, HoldoutConfig
from tidewheel.contracts.ledger import Decision, experiment_after, previous_production, untrusted
from tidewheel.contracts.verdict import Phase, Reason, Verdict
from tidewheel.errors import ContractError, RetryableError
from tidewheel.ranker import OpenBundle
from tidewheel.registry import Ledger, Release, assignment_after, end_experiment, quarantine, release, rollback
from tidewheel.store import Store

RULES = HoldoutConfig(share=0.1)
HARM = Verdict(
    phase=Phase.FAILED,
    reasons=(Reason(check="since period 2", phase=Phase.FAILED, message="holdout, since period 2: -25.0%", value=-0.25),),
)
SILENCE = Verdict(
    phase=Phase.INCONCLUSIVE,
    reasons=(Reason(check="since period 1", phase=Phase.INCONCLUSIVE, message="holdout, since period 1: +0.1%"),),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Store.open(str(tmp_path)), "quickstart")


@pytest.fixture
def manifest(tiny_bundle: OpenBundle) -> BundleManifest:
    return tiny_bundle.manifest


def publish(ledger: Ledger, manifest: BundleManifest, *bundles: str, rules: HoldoutConfig | None = RULES) -> None:
    for bundle in bundles:
        seen = len(ledger.entries())
        release(
            ledger,
            None,
            bundle=bundle,
            manifest=manifest,
            verdict=GOOD,
            is_canaried=True,
            seen_number=seen,
            run_id=f"run-{seen + 1}",
            holdout=rules,
            clock=lambda: NOW,
        )


def running(ledger: Ledger) -> Experiment:
    found = experiment_after(ledger.entries())
    assert found is not None
    return found


def end(ledger: Ledger, verdict: Verdict, registry: MemoryRegistry | None = None, **more: object) -> Release:
    given = {"experiment": running(ledger), "seen_number": len(ledger.entries()), "clock": lambda: NOW} | more
    return end_experiment(ledger, registry, verdict=verdict, **given)


def shares(ledger: Ledger) -> dict[str, float]:
    record = assignment_after(ledger.entries())
    return {} if record is None else {share.bundle: share.share for share in record.shares}


def test_a_promotion_begins_it_in_the_time_of_the_log(ledger: Ledger, manifest: BundleManifest) -> None:
    publish(ledger, manifest, "a")
    assert experiment_after(ledger.entries()) is None
    publish(ledger, manifest, "b")
    found = running(ledger)
    assert (found.new, found.previous, found.number, found.rules) == ("b", "a", 2, RULES)
    assert found.begins == manifest.lineage.window.end


def test_every_version_has_a_salt_of_its_own(ledger: Ledger, manifest: BundleManifest) -> None:
    publish(ledger, manifest, "a", "b")
    first = running(ledger)
    publish(ledger, manifest, "c")
    second = running(ledger)
    assert (second.new, second.previous) == ("c", "b")
    assert first.salt != second.salt


def test_without_rules_nobody_is_held_out(ledger: Ledger, manifest: BundleManifest) -> None:
    publish(ledger, manifest, "a", "b", rules=None)
    assert experiment_after(ledger.entries()) is None
    assert shares(ledger) == {"b": 1.0}


def test_nobody_is_held_out_on_a_bundle_that_is_not_trusted(ledger: Ledger, manifest: BundleManifest) -> None:
    publish(ledger, manifest, "a")
    quarantine(ledger, None, bundle="a", reason="bad data", clock=lambda: NOW)
    publish(ledger, manifest, "b")
    assert experiment_after(ledger.entries()) is None


def test_who_is_served_by_whom_follows_from_the_ledger(ledger: Ledger, manifest: BundleManifest) -> None:
    assert shares(ledger) == {}
    publish(ledger, manifest, "a")
    assert shares(ledger) == {"a": 1.0}
    publish(ledger, manifest, "b")
    assert shares(ledger) == {"a": 0.1, "b": 0.9}
    rollback(ledger, None, reason="by hand", clock=lambda: NOW)
    assert shares(ledger) == {"a": 1.0}


def test_proven_harm_goes_back_and_stands_in_the_ledger_with_its_numbers(ledger: Ledger, manifest: BundleManifest) -> None:
    registry = MemoryRegistry()
    publish(ledger, manifest, "a", "b")
    for bundle in "ab":
        registry.register(bundle, {})
    entry = end(ledger, HARM, registry).entry
    assert (entry.decision, entry.bundle, entry.production, entry.previous) == (Decision.REVERTED, "a", "a", "b")
    assert entry.reason == "delayed harm: holdout, since period 2: -25.0%"
    assert entry.verdict == HARM
    assert entry.experiment is None
    assert "b" in untrusted(ledger.entries())
    assert registry.pointers["production"] == "a"


def test_silence_at_the_end_serves_everybody_and_says_that_nothing_was_proven(ledger: Ledger, manifest: BundleManifest) -> None:
    publish(ledger, manifest, "a", "b")
    entry = end(ledger, SILENCE).entry
    assert (entry.decision, entry.bundle, entry.production) == (Decision.CONCLUDED, "b", "b")
    assert entry.verdict.phase is Phase.INCONCLUSIVE
    assert entry.reason == "holdout experiment 2 is over: Inconclusive: holdout, since period 1: +0.1%"
    assert shares(ledger) == {"b": 1.0}
    assert untrusted(ledger.entries()) == {}
    assert previous_production(ledger.entries()) == "a"


def test_after_its_end_an_earlier_production_can_still_be_gone_back_to(ledger: Ledger, manifest: BundleManifest) -> None:
    publish(ledger, manifest, "a", "b")
    end(ledger, SILENCE)
    assert rollback(ledger, None, reason="by hand", clock=lambda: NOW).entry.production == "a"


def test_a_verdict_on_what_was_replaced_meanwhile_is_refused(ledger: Ledger, manifest: BundleManifest) -> None:
    publish(ledger, manifest, "a", "b")
    judged = running(ledger)
    publish(ledger, manifest, "c")
    with pytest.raises(RetryableError, match="judged at entry 2"):
        end(ledger, HARM, experiment=judged, seen_number=2)
    assert shares(ledger) == {"b": 0.1, "c": 0.9}


def test_a_bundle_that_could_not_serve_is_not_gone_back_to(ledger: Ledger, manifest: BundleManifest) -> None:
    publish(ledger, manifest, "a", "b")

    def refuse(bundle: str) -> None:
        raise ContractError(f"bundle {bundle}: damaged")

    with pytest.raises(ContractError, match="bundle a: damaged"):
        end(ledger, HARM, check=refuse)
    assert len(ledger.entries()) == 2
