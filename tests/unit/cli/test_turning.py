from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.cli.recipes import load_recipe
from tidewheel.cli.turn import simulate
from tidewheel.cli.turning import _new_run, _register, decided, next_window_end
from tidewheel.contracts.report import Outcome, RunReport
from tidewheel.contracts.window import Window, iso, parse_time
from tidewheel.errors import ConfigError
from tidewheel.registry.schema import SchemaHistory
from tidewheel.store import Home

RECIPE_FILE = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"
RECIPE = load_recipe(RECIPE_FILE)


def left(home: Home, end: str, outcome: Outcome, *, recipe: str = "quickstart", dry_run: bool = False) -> None:
    """A concluded run of a window that ended at `end`."""
    report = RunReport(
        run_id=f"{recipe}-{end}",
        recipe=recipe,
        recipe_digest="d",
        window=Window.ending(parse_time(end), 7),
        outcome=outcome,
        reason="",
        dry_run=dry_run,
        steps=(),
    )
    report.write(home.run(report.run_id) / "run.json")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path, {})


def test_the_first_window_is_the_recipes(home: Home) -> None:
    assert iso(next_window_end(RECIPE, home)) == "2026-01-12"


@pytest.mark.parametrize("outcome", [Outcome.BOOTSTRAP, Outcome.PROMOTED, Outcome.REJECTED, Outcome.ROLLED_BACK])
def test_after_a_decision_comes_the_next_window(home: Home, outcome: Outcome) -> None:
    left(home, "2026-01-12", outcome)

    assert iso(next_window_end(RECIPE, home)) == "2026-01-19"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.DATA_REJECTED])
def test_a_window_that_nothing_was_decided_about_comes_again(home: Home, outcome: Outcome) -> None:
    left(home, "2026-01-12", outcome)

    assert iso(next_window_end(RECIPE, home)) == "2026-01-12"


def test_a_dry_run_decides_nothing(home: Home) -> None:
    left(home, "2026-01-12", Outcome.PROMOTED, dry_run=True)

    assert iso(next_window_end(RECIPE, home)) == "2026-01-12"


def test_another_recipe_in_the_same_home_does_not_matter(home: Home) -> None:
    left(home, "2026-02-01", Outcome.PROMOTED, recipe="kuairand")

    assert iso(next_window_end(RECIPE, home)) == "2026-01-12"


def test_a_run_whose_features_were_taken_meanwhile_leaves_no_folder(home: Home) -> None:
    features = SchemaHistory(home.store(), RECIPE.name)
    first, *others = RECIPE.features
    features.register((first.model_copy(update={"name": "taken"}), *others), reason="faster", by="another run")
    home.run("mine").mkdir(parents=True)

    with pytest.raises(ConfigError, match="id 1 belongs to taken"):
        _register(RECIPE, features, "why", "mine", home.run("mine"))

    assert not home.run("mine").exists()


def test_homes_that_share_a_store_take_different_run_ids(tmp_path: Path) -> None:
    shared = {"TIDEWHEEL_STORE": str(tmp_path / "store")}
    homes = [Home.resolve(tmp_path / name, shared) for name in ("one", "two", "one")]

    ids = [_new_run(RECIPE, home, home.store(), parse_time("2026-01-12"))[0] for home in homes]

    assert ids == ["quickstart-20260112-1", "quickstart-20260112-2", "quickstart-20260112-3"]


def test_a_finished_simulation_is_not_moved_aside_without_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEWHEEL_STORE", str(tmp_path / "store"))
    home = Home.resolve(tmp_path / "home")
    left(home, "2026-01-12", Outcome.BOOTSTRAP)

    with pytest.raises(ConfigError, match=r"its store .* is no part of it"):
        simulate(RECIPE_FILE, turns=1, settings=[], home=str(home.root), as_json=False)

    assert decided(RECIPE, home)
