"""The registered features through the command line, and through whole turns of the wheel."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.e2e.command import QUICKSTART, ROOT, SMALL, Ended, settings, tidewheel
from tests.e2e.test_new_project import fenced_commands
from tidewheel.contracts.schema import FeatureSpec

DOCUMENT = ROOT / "docs" / "schema.md"


def recipe_with(folder: Path, *changes: tuple[int, dict[str, object] | None]) -> Path:
    """The quickstart with features changed by id; None takes a feature out, an unknown id adds one."""
    recipe = yaml.safe_load(QUICKSTART.read_text())
    features = {feature["id"]: feature for feature in recipe["features"]}
    for number, change in changes:
        if change is None:
            del features[number]
        else:
            features[number] = features.get(number, {}) | {"id": number} | change
    recipe["features"] = list(features.values())
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the quickstart's features and no run."""
    home = tmp_path_factory.mktemp("registered") / "home"
    ended = tidewheel("schema", "apply", "--recipe", QUICKSTART, "--reason", "first", home=home)
    assert ended.code == 0, ended.err
    return home


@pytest.fixture
def home(registered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(registered, tmp_path / "home"))


def records(home: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(home.glob("store/schema/quickstart/*.json"))]


def test_plan_shows_additive_changes_and_changes_nothing(home: Path, tmp_path: Path) -> None:
    recipe = recipe_with(
        tmp_path, (2, {"deprecated": True}), (19, {"name": "user_segment", "kind": "vocabulary", "entity": "user"})
    )

    ended = tidewheel("schema", "plan", "--recipe", recipe, "--json", home=home)
    shown = tidewheel("schema", "plan", "--recipe", recipe, home=home)

    assert ended.code == shown.code == 0
    assert [(change["kind"], change["id"]) for change in ended.document["changes"]] == [("deprecated", 2), ("added", 19)]
    assert ended.document["is_additive"]
    assert "user_segment" in shown.out
    assert len(records(home)) == 1


def test_plan_ends_with_two_and_a_reason_a_line_when_something_is_refused(home: Path, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, (1, {"num_buckets": 64}), (3, None), (18, {"deprecated": True}))

    ended = tidewheel("schema", "plan", "--recipe", recipe, "--json", home=home)

    refused = {change["id"]: change["reason"] for change in ended.document["changes"] if change["kind"] == "refused"}
    assert ended.code == 2
    assert set(refused) == {1, 3}
    assert "next free is 19" in refused[1]
    assert not ended.document["is_additive"]


def test_apply_refuses_in_one_line_and_writes_nothing(home: Path, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, (1, {"num_buckets": 64}), (3, None))

    ended = tidewheel("schema", "apply", "--recipe", recipe, "--reason", "x", home=home)

    assert ended.code == 2
    assert "num_buckets 8192 to 64" in ended.last_line
    assert "(and 1 more" in ended.last_line
    assert len(ended.err.strip().splitlines()) == 1
    assert len(records(home)) == 1


def test_show_lists_every_feature_with_the_deprecated_ones_marked(home: Path, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, (2, {"deprecated": True}))
    tidewheel("schema", "apply", "--recipe", recipe, "--reason", "segment is stale", home=home)
    tidewheel("schema", "apply", "--recipe", recipe_with(tmp_path, (2, None)), "--reason", "gone", home=home)

    ended = tidewheel("schema", "show", home=home)
    document = tidewheel("schema", "show", "--json", home=home).document

    marked = [line.split() for line in ended.out.splitlines() if "deprecated" in line]
    assert marked == [["2", "user_segment", "deprecated", "vocabulary", "string", "user", "2"]]
    assert re.search(r"record 2, \d{4}-\d\d-\d\d, tidewheel schema apply: segment is stale", ended.out)
    assert [feature["id"] for feature in document["features"]] == list(range(1, 19))
    assert document["schema"] == "tidewheel/schema/v1"
    assert document["reason"] == "segment is stale"  # the line that left the recipe changed nothing


def test_show_without_registered_features_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()

    ended = tidewheel("schema", "show", home=tmp_path / "home")

    assert ended.code == 2
    assert "tidewheel schema apply" in ended.last_line


def test_a_run_that_is_refused_leaves_no_trace(home: Path, tmp_path: Path) -> None:
    before = sorted(path for path in home.rglob("*") if path.is_file())

    ended = tidewheel("run", "--recipe", recipe_with(tmp_path, (3, None)), home=home)

    assert ended.code == 2
    assert "user_tenure_days (id 3) is registered and not in the recipe" in ended.last_line
    assert sorted(path for path in home.rglob("*") if path.is_file()) == before
    assert not list(home.glob("runs/*"))


def test_a_misspelt_feature_of_the_world_takes_no_id(home: Path, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, (19, {"name": "user_segmnt", "kind": "vocabulary", "entity": "user"}))

    ended = tidewheel("run", "--recipe", recipe, home=home)

    assert ended.code == 2
    assert "Did you mean user_segment?" in ended.last_line
    assert len(records(home)) == 1


# --- docs/schema.md ---


def test_the_documented_commands_run_in_their_order(tmp_path: Path) -> None:
    shutil.copy(QUICKSTART, tmp_path / "recipe.yaml")
    for command in fenced_commands(DOCUMENT):
        program, *arguments = shlex.split(command)
        ended = tidewheel(*arguments, home=tmp_path / "home", cwd=tmp_path)
        assert program == "tidewheel"
        assert ended.code == 0, f"{command}: {ended.err}"


def test_the_documented_remedy_is_accepted(tmp_path: Path, home: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block is not None
    old, new = (FeatureSpec.model_validate(feature).model_dump(mode="json") for feature in yaml.safe_load(block[1]))

    ended = tidewheel("schema", "plan", "--recipe", recipe_with(tmp_path, (1, old), (19, new)), "--json", home=home)

    assert ended.code == 0, ended.out
    assert [(change["kind"], change["id"]) for change in ended.document["changes"]] == [("deprecated", 1), ("added", 19)]


# --- whole turns ---


def run(home: Path, recipe: Path, *more: str) -> Ended:
    return tidewheel("run", "--recipe", recipe, *settings(*SMALL), *more, "--json", home=home)


@pytest.mark.slow
def test_a_turn_without_a_feature_is_compared_with_production_that_has_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = run(home, QUICKSTART, "--reason", "first")
    tried = run(home, recipe_with(tmp_path, (2, {"deprecated": True})), "--dry-run")
    second = run(home, recipe_with(tmp_path, (2, {"deprecated": True})), "--reason", "segment is stale")

    assert (first.code, tried.code, second.code) == (0, 0, 0), first.err + tried.err + second.err
    assert [(record["by"], record["reason"]) for record in records(home)] == [
        (first.document["run_id"], "first"),
        (second.document["run_id"], "segment is stale"),
    ]
    assert records(home)[-1]["feature_digest"] == second.document["feature_digest"] != first.document["feature_digest"]
    assert second.document["outcome"] in ("promoted", "rolled_back", "rejected")
    assert set(second.document["metrics"]) == {"ranker", "student", "production"}
    assert second.document["teacher"] is None
    passed_over = second.document["teaching"]["passed_over"]
    assert passed_over == {first.document["bundle"]: "it takes user_segment, which this recipe does not allow"}
    checks = [reason["check"] for reason in second.document["verdicts"]["validate_data"]["reasons"]]
    assert "drift user_tenure_days" in checks
    assert not [check for check in checks if "user_segment" in check]
    bundle = json.loads((home / "store" / "bundles" / second.document["bundle"] / "manifest.json").read_text())
    assert bundle["feature_digest"] == second.document["feature_digest"]
    assert "user_segment" not in {feature["name"] for feature in bundle["features"]}
    shown = tidewheel("explain", home=home)
    assert f"features {second.document['feature_digest']}" in shown.out
