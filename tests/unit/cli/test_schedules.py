"""What the verbs of schedules read, and what they say of a backend."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.kubeflow import BackendInMemory
from tidewheel.cli.recipes import load_cluster_recipe
from tidewheel.cli.schedules import _states, read_schedules
from tidewheel.cluster.schedules import Wanted, apply, found_of
from tidewheel.contracts.schedules import Schedules
from tidewheel.errors import ConfigError

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "operations" / "submitted-runs.md"
KUAIRAND = ROOT / "recipes" / "kuairand.yaml"


def wanted(name: str) -> Wanted:
    parameters = {"window_end": "then", "reason": "scheduled", "dry_run": False}
    return Wanted("default", name, "quickstart", b"yaml", "0" * 64, "0 0 3 * * *", parameters, "somebody", True)


def test_the_file_on_the_page_keeps_the_contract() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

    found = Schedules.model_validate(yaml.safe_load(block))

    assert [(each.name, each.sent_cron) for each in found.schedules] == [("weekly", "0 0 3 * * MON")]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (None, r"schedules\.yaml: cannot be read \(No such file or directory\)"),
        ("a: [", r"schedules\.yaml: is not YAML"),
        ("- a", r"expected schema: tidewheel/schedules/v1 and schedules, found list"),
        ("schema: tidewheel/schedules/v2\nschedules: []", r"schedules\.yaml: schema: .*'tidewheel/schedules/v1'"),
        (
            "schema: tidewheel/schedules/v1\nschedules: [{name: a, recipe: b, cron: x}]",
            r"schedules\.0\.cron: cron has 1 fields",
        ),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_fault(tmp_path: Path, text: str | None, want: str) -> None:
    file = tmp_path / "schedules.yaml"
    if text is not None:
        file.write_text(text)

    with pytest.raises(ConfigError, match=want):
        read_schedules(file)


def test_a_list_says_what_is_not_as_the_file_says() -> None:
    backend = BackendInMemory()
    apply(backend, "default", [wanted("right"), wanted("off"), wanted("gone"), wanted("changed")])
    by_title = {each.title: each.id for each in backend.runs.values()}
    backend.disable(by_title["tidewheel-off"])
    changed = by_title["tidewheel-changed"]
    backend.runs[changed] = replace(backend.runs[changed], cron="0 1 1 * * *")
    file = [wanted("right"), wanted("off"), wanted("new"), wanted("changed")]

    rows = _states(file, found_of("default", backend.recurring_runs()))

    assert {(row["name"], row["state"]) for row in rows} == {
        ("right", "enabled"),
        ("off", "disabled: the file enables it"),
        ("gone", "enabled: not in the file"),
        ("changed", "enabled: its cron was changed by hand to 0 1 1 * * *"),
        ("changed", "missing"),
        ("new", "missing"),
    }


@pytest.mark.parametrize(
    ("data", "want"),
    [("", r"source\.path is not given; expected an absolute folder"), ("data/log", r"source\.path is data/log; expected")],
)
def test_a_log_must_lie_where_pods_see_it(data: str, want: str) -> None:
    with pytest.raises(ConfigError, match=want):
        load_cluster_recipe(KUAIRAND, (), data)


@pytest.mark.parametrize("data", ["/data/log", "s3://bucket/log"])
def test_a_log_of_pods_need_not_be_here(data: str) -> None:
    source = load_cluster_recipe(KUAIRAND, (), data).source

    assert getattr(source, "path", None) == data
