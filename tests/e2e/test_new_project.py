"""What `init` writes works, and the documents say what is so."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, tidewheel
from tidewheel.cli.recipes import load_recipe

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "src" / "tidewheel" / "cli" / "templates" / "README.md"]


def fenced_commands(path: Path) -> list[str]:
    """Every command line in the `sh` blocks of a document."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


COMMANDS = [(path.name, command) for path in DOCUMENTS for command in fenced_commands(path)]


def test_init_writes_a_recipe_that_loads_and_a_readme(tmp_path: Path) -> None:
    ended = tidewheel("init", tmp_path / "shop", "--json")

    assert ended.code == 0
    assert ended.document["written"] == [str(tmp_path / "shop" / name) for name in ("recipe.yaml", "README.md")]
    assert load_recipe(tmp_path / "shop" / "recipe.yaml").name == "quickstart"


def test_init_never_writes_over_anything(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    ended = tidewheel("init", tmp_path)

    assert ended.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_doctor_is_well_on_a_working_machine(tmp_path: Path) -> None:
    tidewheel("init", tmp_path / "shop")

    ended = tidewheel("doctor", "--recipe", tmp_path / "shop" / "recipe.yaml", "--json", home=tmp_path / "home")

    assert ended.code == 0, ended.out
    assert {check["name"] for check in ended.document["checks"]} >= {"python", "disk", "home", "recipe", "log", "torch"}


def test_doctor_names_what_is_not_well(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x")

    ended = tidewheel("doctor", "--recipe", tmp_path / "recipe.yaml", "--json", home=tmp_path / "home")

    sick = {check["name"]: check["found"] for check in ended.document["checks"] if not check["is_well"]}
    assert ended.code == 1
    assert "recipe.yaml" in sick["recipe"]


def test_compile_writes_what_run_executes(tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "quickstart.yaml"

    ended = tidewheel("compile", "--recipe", recipe, "--output", tmp_path / "pipeline.yaml", "--json")

    golden = ROOT / "tests" / "pipelines" / "golden" / "quickstart.yaml"
    assert ended.code == 0
    assert ended.document["recipe_digest"] == load_recipe(recipe).digest
    assert (tmp_path / "pipeline.yaml").read_text() == golden.read_text()


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_every_documented_command_exists(document: str, command: str) -> None:
    """The commands themselves run in the other tests of this folder; here: none names what is not there."""
    words = shlex.split(command)
    program, arguments = Path(words[0]).name, words[1:]
    assert program in ("make", "tidewheel", "python"), f"{document}: {command}"
    if program == "make":
        targets = [word for word in arguments if "=" not in word]
        assert subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True).returncode == 0
    elif program == "tidewheel":
        helped = tidewheel(arguments[0], "--help")
        options = [word for word in arguments[1:] if word.startswith("--")]
        assert helped.code == 0
        assert [option for option in options if option not in helped.out] == []


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## The tree")[1].split("```")[1]
    folders = {line.split("/")[0].strip() for line in tree.splitlines() if re.match(r"^ {0,2}\w+/", line)}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    top = {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")} - {"src"}
    inside = {path.split("/")[2] for path in tracked if path.startswith("src/tidewheel/") and path.count("/") > 2}

    assert top | inside == folders - {"src"}


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*DOCUMENTS[:2], *(ROOT / "docs").rglob("*.md")]
    broken = [
        (document.name, target)
        for document in documents
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]

    assert broken == []
