from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.cli.recipes import load_recipe
from tidewheel.errors import ConfigError

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
KUAIRAND = ROOT / "recipes" / "kuairand.yaml"


def test_a_setting_replaces_one_value() -> None:
    assert load_recipe(QUICKSTART, ["train.optimizer.epochs=5"]).train.optimizer.epochs == 5


def test_recipes_that_say_the_same_have_one_digest(tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text("# another comment\n" + QUICKSTART.read_text())

    assert load_recipe(copy).digest == load_recipe(QUICKSTART).digest


def test_the_data_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").mkdir()
    monkeypatch.chdir(tmp_path)

    assert load_recipe(KUAIRAND, (), Path("log")).source.path == str(tmp_path / "log")


@pytest.mark.parametrize(
    ("setting", "want"),
    [
        ("sample.negative_rat=0.5", r"sample\.negative_rat: unknown key\. Did you mean negative_rate\?"),
        ("sample.negative_rate=1.4", r"sample\.negative_rate: .*probability in \(0, 1\]\. Did you mean 0\.014\?, found 1\.4"),
        ("sample.negative_rate=0", r"sample\.negative_rate: .*probability in \(0, 1\], found 0"),
        ("train.optimizer.epochs=many", r"train\.optimizer\.epochs: .*integer.*found 'many'"),
        ("window.eval_days=7", r"window: eval_days is 7 of 7 days"),
        ("deploy.goal_label=buy", r"deploy\.goal_label names buy; expected labels"),
        ("source.kind=kafka", r"source: .*kafka"),
        ("train.network.levels=3", r"train\.network: levels is 3 and mixture is mmoe; expected mixture ple"),
        ("train.network.mixture=moe", r"train\.network\.mixture: .*'mmoe' or 'ple'"),
        ("nonsense", r"--set nonsense: expected section\.key=value"),
    ],
)
def test_a_fault_names_its_place_and_the_remedy(setting: str, want: str) -> None:
    with pytest.raises(ConfigError, match=want):
        load_recipe(QUICKSTART, [setting])


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("name: [", "is not YAML"),
        ("- a list", "expected a mapping"),
        ("name: x", r"source: field required"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, want: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=want):
        load_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read \(No such file or directory\)"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_missing_data_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data folder .*absent: is not there; .*--data"):
        load_recipe(KUAIRAND, (), tmp_path / "absent")


def test_the_world_takes_no_data_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="built-in world"):
        load_recipe(QUICKSTART, (), tmp_path)


@pytest.mark.parametrize("step", ["train", "distill"])
def test_a_gate_of_the_context_needs_features_of_the_context(step: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(QUICKSTART.read_text().replace("entity: context", "entity: item"))

    with pytest.raises(ConfigError, match=rf"{step}\.network\.context is epnet; 0 of 18 features have entity context"):
        load_recipe(recipe, [f"{step}.network.context=epnet"])
