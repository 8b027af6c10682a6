"""docs/model.md says what is so. Its command runs in tests/e2e/test_model_page.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tidewheel.cli.recipes import load_recipe
from tidewheel.contracts.network import NetworkConfig
from tidewheel.ranker.network import Network

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_recipe_fragment_is_accepted(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    for step, fields in yaml.safe_load(block("yaml")).items():
        document[step] |= fields
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert (recipe.train.network.mixture, recipe.train.network.context) == ("ple", "epnet")


def test_the_python_fragment_prints_a_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = NetworkConfig(embedding_dim=500, cross_layers=0, experts=1, hidden=(2,))
    Network(config=config, sizes=(3,), num_numbers=0, labels=("click",)).write(tmp_path / "network.json")
    monkeypatch.chdir(tmp_path)
    exec(block("python"), {})
    # One expert 500 x 2, its gate 500 + 2, head 2 and linear path 500
    assert capsys.readouterr().out == "2,004 multiply-adds a candidate\n"


def test_every_field_of_the_network_is_explained() -> None:
    assert [field for field in NetworkConfig.model_fields if f"`{field}" not in DOCUMENT] == []
