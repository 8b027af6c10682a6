"""What the verbs of the holdout experiment say where there is none, and where they cannot look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidewheel.cli import watch as watching
from tidewheel.cli.status import status
from tidewheel.contracts.experiment import HoldoutConfig
from tidewheel.contracts.verdict import Phase, Verdict
from tidewheel.errors import ConfigError
from tidewheel.ranker import OpenBundle
from tidewheel.registry import Ledger, release
from tidewheel.store.home import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("TIDEWHEEL_HOME", "TIDEWHEEL_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return Home.resolve(tmp_path)


def publish(home: Home, bundle: OpenBundle, *digests: str) -> None:
    ledger = Ledger(home.store(), "quickstart")
    for digest in digests:
        seen = len(ledger.entries())
        release(
            ledger,
            None,
            bundle=digest,
            manifest=bundle.manifest,
            verdict=Verdict(phase=Phase.SUCCESSFUL),
            is_canaried=True,
            seen_number=seen,
            run_id=f"run-{seen + 1}",
            holdout=HoldoutConfig(share=0.1),
        )


def test_without_an_experiment_both_verbs_say_so(home: Home, tiny_bundle: OpenBundle, capsys) -> None:
    publish(home, tiny_bundle, "a")
    watching.watch(None, "", "", [], str(home.root), as_json=False)
    assert capsys.readouterr().out == "no holdout experiment runs\n"
    watching.experiment(None, "", [], str(home.root), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"experiment": None}


def test_the_status_shows_the_arms(home: Home, tiny_bundle: OpenBundle, capsys) -> None:
    publish(home, tiny_bundle, "a", "b")
    status(20, False, "", str(home.root), as_json=True)
    shown = json.loads(capsys.readouterr().out)["experiments"]["quickstart"]
    assert (shown["new"], shown["previous"], shown["rules"]["share"]) == ("b", "a", 0.1)
    status(20, False, "", str(home.root), as_json=False)
    assert "10% of its users are held out on a since 2026-01-12" in capsys.readouterr().out


def test_a_run_of_another_home_needs_its_recipe(home: Home, tiny_bundle: OpenBundle) -> None:
    publish(home, tiny_bundle, "a", "b")
    with pytest.raises(ConfigError, match=r"run-2/recipe\.json: the run that began the experiment was made in another home"):
        watching.watch(None, "", "", [], str(home.root), as_json=False)


def test_settings_change_a_named_recipe_only(home: Home, tiny_bundle: OpenBundle) -> None:
    publish(home, tiny_bundle, "a", "b")
    with pytest.raises(ConfigError, match="--set changes a recipe"):
        watching.watch(None, "", "", ["deploy.alpha=0.1"], str(home.root), as_json=False)


def test_a_moment_that_is_none_is_refused(home: Home) -> None:
    with pytest.raises(ConfigError, match="--until soon: expected an ISO 8601"):
        watching.watch(None, "", "soon", [], str(home.root), as_json=False)
