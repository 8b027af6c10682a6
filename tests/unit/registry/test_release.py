"""Decisions, their projections, and a crash between the two."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.registry.memory import MemoryRegistry
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.ledger import AfterRollback, Decision
from tidewheel.contracts.retraining import retraining_after
from tidewheel.contracts.verdict import Phase, Reason, Verdict
from tidewheel.errors import ConfigError, ContractError, PausedError, RetryableError
from tidewheel.ranker import OpenBundle
from tidewheel.registry import Ledger, Release, quarantine, reconcile, release, resume, rollback
from tidewheel.registry.release import expect_open
from tidewheel.store import Store

NOW = datetime(2026, 1, 12, tzinfo=UTC)
GOOD = Verdict(phase=Phase.SUCCESSFUL)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Store.open(str(tmp_path)), "quickstart")


@pytest.fixture
def manifest(tiny_bundle: OpenBundle) -> BundleManifest:
    return tiny_bundle.manifest


def decide(ledger, registry, manifest, bundle: str, verdict: Verdict = GOOD, is_canaried: bool = True) -> Release:
    seen = len(ledger.entries())
    return release(
        ledger,
        registry,
        bundle=bundle,
        manifest=manifest,
        verdict=verdict,
        is_canaried=is_canaried,
        seen_number=seen,
        run_id=f"run-{seen + 1}",
        clock=lambda: NOW,
    )


def test_the_first_success_is_the_bootstrap_and_the_next_a_promotion(ledger: Ledger, manifest: BundleManifest) -> None:
    registry = MemoryRegistry()
    assert decide(ledger, registry, manifest, "a").entry.decision is Decision.BOOTSTRAP
    assert decide(ledger, registry, manifest, "b").entry.decision is Decision.PROMOTED
    assert ledger.production() == "b"
    assert registry.pointers == {"production": "b", "previous": "a"}
    assert registry.known["b"]["tidewheel.verdict"] == "Successful"


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.SUCCESSFUL])
def test_whatever_is_not_successful_leaves_production_alone(ledger: Ledger, manifest: BundleManifest, phase: Phase) -> None:
    registry = MemoryRegistry()
    decide(ledger, registry, manifest, "a")
    bad = Verdict(phase=phase, reasons=(Reason(check="x", phase=phase, message="3 > limit 2"),))
    made = decide(ledger, registry, manifest, "b", bad)
    assert made.entry.decision is Decision.ROLLED_BACK
    assert made.entry.reason == "3 > limit 2"
    assert ledger.production() == "a"
    assert registry.pointers == {"production": "a"}


def test_without_a_canary_even_a_success_is_a_rejection(ledger: Ledger, manifest: BundleManifest) -> None:
    made = decide(ledger, None, manifest, "a", GOOD, is_canaried=False)
    assert made.entry.decision is Decision.REJECTED
    assert ledger.production() is None


def test_a_decision_on_a_stale_view_is_refused(ledger: Ledger, manifest: BundleManifest) -> None:
    decide(ledger, None, manifest, "a")
    with pytest.raises(RetryableError, match="run again"):
        release(ledger, None, bundle="b", manifest=manifest, verdict=GOOD, is_canaried=True, seen_number=0, run_id="r")
    assert ledger.production() == "a"


@pytest.mark.parametrize("verb", ["register", "versions", "aliases", "point"])
def test_a_crash_between_the_ledger_and_the_registry_is_repaired_once(
    ledger: Ledger, manifest: BundleManifest, verb: str
) -> None:
    registry = MemoryRegistry()
    decide(ledger, registry, manifest, "a")
    registry.register("b", {})
    registry.point("candidate", "b")
    registry.dies_at = verb
    made = decide(ledger, registry, manifest, "b")
    assert "registry is down" in made.unprojected
    assert ledger.production() == "b"  # the decision stands
    registry.dies_at = ""
    assert [told for told in reconcile(ledger, registry) if told.startswith("alias")] == [
        "alias production: a → b",
        "alias previous: none → a",
        "alias candidate: b → none",
    ]
    assert registry.pointers == {"production": "b", "previous": "a"}
    assert reconcile(ledger, registry) == []


def test_an_alias_that_somebody_moved_is_moved_back(ledger: Ledger, manifest: BundleManifest) -> None:
    registry = MemoryRegistry()
    decide(ledger, registry, manifest, "a")
    decide(ledger, registry, manifest, "b")
    registry.pointers["production"] = "a"
    assert reconcile(ledger, registry) == ["alias production: a → b"]


def test_rolling_back_goes_to_the_previous_production(ledger: Ledger, manifest: BundleManifest) -> None:
    registry = MemoryRegistry()
    for bundle in ("a1", "b1", "c1"):
        decide(ledger, registry, manifest, bundle)
    made = rollback(ledger, registry, reason="complaints", clock=lambda: NOW)
    assert made.entry.decision is Decision.REVERTED
    assert (made.entry.production, made.entry.previous, made.entry.reason) == ("b1", "c1", "complaints")
    assert registry.pointers == {"production": "b1", "previous": "a1"}
    assert rollback(ledger, registry, to="a", reason="more").entry.production == "a1"


def test_rolling_back_to_a_bundle_that_cannot_serve_changes_nothing(ledger: Ledger, manifest: BundleManifest) -> None:
    for bundle in ("a1", "b1"):
        decide(ledger, None, manifest, bundle)

    def damaged(bundle: str) -> None:
        raise ContractError(f"bundle {bundle}: damaged")

    with pytest.raises(ContractError, match="bundle a1: damaged"):
        rollback(ledger, None, reason="x", check=damaged)
    assert ledger.production() == "b1"


def test_rolling_back_to_nowhere_is_refused(ledger: Ledger, manifest: BundleManifest) -> None:
    with pytest.raises(ConfigError, match="nothing was ever released"):
        rollback(ledger, None, reason="x")
    decide(ledger, None, manifest, "a1")
    with pytest.raises(ConfigError, match="no earlier production"):
        rollback(ledger, None, reason="x")
    decide(ledger, None, manifest, "a2")
    for to, message in (("a", "names 2 bundles"), ("a2", "is production already"), ("zz", "names 0 bundles")):
        with pytest.raises(ConfigError, match=message):
            rollback(ledger, None, reason="x", to=to)
    assert ledger.production() == "a2"


def test_a_quarantined_bundle_serves_on_but_is_not_gone_back_to(ledger: Ledger, manifest: BundleManifest) -> None:
    registry = MemoryRegistry()
    for bundle in ("a1", "b1", "c1"):
        decide(ledger, registry, manifest, bundle)
    made = quarantine(ledger, registry, bundle="b", reason="wrong labels", clock=lambda: NOW)
    assert made.entry.decision is Decision.QUARANTINED
    assert (made.entry.bundle, made.entry.production, made.entry.previous) == ("b1", "c1", "c1")
    assert registry.pointers == {"production": "c1", "previous": "a1"}
    assert reconcile(ledger, registry) == []
    assert rollback(ledger, registry, reason="x").entry.production == "a1"


@pytest.mark.parametrize(
    ("bundle", "message"),
    [("z", "names 0 bundles of the ledger; expected one of a1, a2"), ("a", "names 2 bundles"), ("a2", "nobody already")],
)
def test_a_bundle_that_is_unknown_or_quarantined_already_is_not_quarantined(
    ledger: Ledger, manifest: BundleManifest, bundle: str, message: str
) -> None:
    for made in ("a1", "a2"):
        decide(ledger, None, manifest, made)
    quarantine(ledger, None, bundle="a2", reason="wrong labels")
    with pytest.raises(ConfigError, match=message):
        quarantine(ledger, None, bundle=bundle, reason="x")
    assert len(ledger.entries()) == 3


def test_a_retry_of_a_run_finds_its_decision_also_after_others_decided(ledger: Ledger, manifest: BundleManifest) -> None:
    registry = MemoryRegistry()
    decide(ledger, registry, manifest, "a1")
    made = decide(ledger, registry, manifest, "b1").entry
    rollback(ledger, registry, reason="complaints")

    again = release(
        ledger, registry, bundle="b1", manifest=manifest, verdict=GOOD, is_canaried=True, seen_number=1, run_id=made.run_id
    )

    assert (again.entry, again.repaired) == (made, ())
    assert (len(ledger.entries()), ledger.production()) == (3, "a1")


def released_with(ledger: Ledger, manifest: BundleManifest, bundle: str, policy: AfterRollback | None) -> None:
    seen, by = len(ledger.entries()), {"run_id": f"run-{bundle}", "retraining": policy}
    release(ledger, None, bundle=bundle, manifest=manifest, verdict=GOOD, is_canaried=True, seen_number=seen, **by)


def test_a_reversion_does_what_the_recipe_of_the_last_release_said(ledger: Ledger, manifest: BundleManifest) -> None:
    released_with(ledger, manifest, "a1", AfterRollback.CONTINUE)
    released_with(ledger, manifest, "b1", AfterRollback.PAUSE)
    released_with(ledger, manifest, "c1", None)  # whoever decided did not know

    assert rollback(ledger, None, reason="x").entry.retraining is AfterRollback.PAUSE
    assert rollback(ledger, None, reason="y", retraining=AfterRollback.REANCHOR).entry.retraining is AfterRollback.REANCHOR
    assert retraining_after(ledger.entries()).is_paused, "whoever asks for less does not end a pause"


def test_a_pause_ends_by_hand_and_what_serves_stays(ledger: Ledger, manifest: BundleManifest) -> None:
    released_with(ledger, manifest, "a1", AfterRollback.PAUSE)
    with pytest.raises(ConfigError, match="nothing is held up"):
        resume(ledger, None, reason="x")
    released_with(ledger, manifest, "b1", AfterRollback.PAUSE)
    rollback(ledger, None, reason="complaints")
    with pytest.raises(PausedError, match=r"recipe shop: retraining is paused since entry 3"):
        expect_open(ledger.entries(), "shop")

    made = resume(ledger, None, reason="found it", clock=lambda: NOW).entry

    assert (made.decision, made.production, made.previous, made.bundle) == (Decision.RESUMED, "a1", "a1", "a1")
    expect_open(ledger.entries(), "shop")
