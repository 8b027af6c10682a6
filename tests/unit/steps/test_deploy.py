"""A deploy that is started again by its orchestrator after it had decided."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from tests.conftest import WINDOW, TinyRun
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.evidence import Baseline, Rollout
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.steps import DeployPart, parts
from tidewheel.contracts.teacher import TeacherChoice
from tidewheel.contracts.verdict import Phase, Verdict
from tidewheel.registry import Ledger, MlflowRegistry, reconcile, release
from tidewheel.steps.deploy import work
from tidewheel.steps.job import Job
from tidewheel.store import Home


def test_it_finds_its_decision_and_makes_up_for_the_rest_without_a_second_canary(
    tiny_run: TinyRun, quickstart: Recipe, tmp_path: Path
) -> None:
    home = Home.resolve(tmp_path, {})
    shutil.copytree(tiny_run.store.root, tmp_path / "store")
    store, bundle = home.store(), tiny_run.bundle
    ledger = Ledger(store, "quickstart")
    verdict = Verdict(phase=Phase.SUCCESSFUL)
    seen = {"bundle": bundle.digest, "manifest": bundle.manifest, "verdict": verdict, "is_canaried": True, "seen_number": 0}
    entry = release(ledger, None, run_id="run-1", **seen).entry
    baseline = Baseline(production=None, teaching=TeacherChoice(reason="nothing was released yet"), ledger_number=0)
    held_out = DatasetManifest(kind="eval", window=WINDOW, rows=0, weight_sum=0.0, features=(), labels=())
    inputs = {"bundle": bundle.folder / "manifest.json", "baseline": baseline.write(tmp_path / "baseline.json")}
    inputs["eval"] = held_out.write(tmp_path / "eval.json")
    job = Job("deploy", "run-1", datetime(2026, 1, 12, tzinfo=UTC), home, store, {name: str(at) for name, at in inputs.items()})
    part = parts(quickstart)["deploy"]
    assert isinstance(part, DeployPart)

    found = work(part, job, "by hand", dry_run=False)

    rollout = Rollout.parse(found.documents["rollout"], "rollout")
    assert (rollout.decision, rollout.production, rollout.ledger_number) == ("bootstrap", bundle.digest, 1)
    assert found.summary.startswith("bootstrap by an earlier try (ledger entry 1)")
    assert ledger.entries() == (entry,)
    registry = MlflowRegistry(home.registry_url, "quickstart", store.location("bundles"))
    assert registry.aliases() == {"production": bundle.digest}
    assert reconcile(ledger, registry) == []
