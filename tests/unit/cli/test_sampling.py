"""`tidewheel sample` as a user types it, and every command of docs/sampling.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.e2e.command import QUICKSTART, ROOT, settings, tidewheel
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.sampling import SampleConfig
from tidewheel.store import Home

PATH = ROOT / "docs" / "sampling.md"
DOCUMENT = PATH.read_text(encoding="utf-8")
OUTPUT = re.compile(r"```text\n(.*?)```", re.DOTALL)
COMMANDS = [command.strip() for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL) for command in block.splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home, so that the window is ingested once."""
    return tmp_path_factory.mktemp("home")


def test_the_worked_example_prints_what_the_document_shows(home: Path, monkeypatch: pytest.MonkeyPatch, golden: bool) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    words = shlex.split(COMMANDS[0])
    assert words[:3] == ["tidewheel", "sample", "--preview"]

    ended = tidewheel(*words[1:], home=home, cwd=ROOT)

    assert ended.code == 0, ended.err
    printed = "\n".join(line.rstrip() for line in ended.out.splitlines())
    if golden:
        PATH.write_text(OUTPUT.sub(lambda _: f"```text\n{printed}\n```", DOCUMENT), encoding="utf-8")
    shown = OUTPUT.search(PATH.read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[1].strip() == printed.strip(), "docs/sampling.md shows another output than the command gives: make golden"


def test_the_other_commands_of_the_document_run(home: Path) -> None:
    assert len(COMMANDS) == 2

    ended = tidewheel(*shlex.split(COMMANDS[1])[1:], home=home, cwd=ROOT)

    assert ended.code == 0, ended.err
    store = Home.resolve(home).store()
    for name, split in ended.document["splits"].items():
        _, manifest = store.load("datasets", split["digest"], DatasetManifest, full=True)
        assert (manifest.kind, manifest.rows, manifest.weight_sum) == (name, split["rows"], split["weight_sum"])
        assert manifest.sampling is not None
        assert manifest.sampling.digest == ended.document["plan_digest"]


def test_the_section_in_the_document_is_a_section_that_is_accepted() -> None:
    block = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block is not None
    section = SampleConfig.model_validate(yaml.safe_load(block[1])["sample"])
    assert [rule.rate for rule in section.rules] == [0.5, 1.0, 0.2]


def test_a_preview_publishes_nothing_and_agrees_with_the_datasets(home: Path) -> None:
    rules = settings(
        "sample.rules=[{name: feed, where: {surface: [feed]}, none_of: [click], rate: 0.3}]",
        "sample.exclude=[{name: segment, where: {user_segment: [s1]}}]",
        "sample.never_downsample=[like]",
    )
    arguments = ("sample", "--recipe", QUICKSTART, *rules, "--json")
    published = home / "store" / "datasets"
    before = sorted(published.iterdir()) if published.exists() else []

    seen = tidewheel(*arguments, "--preview", home=home)
    after = sorted(published.iterdir())
    made = tidewheel(*arguments, home=home)

    assert (seen.code, made.code) == (0, 0), seen.err + made.err
    assert len(set(after) - set(before)) <= 1  # the impressions, if this test came first
    assert list((home / "runs").iterdir()) == []
    preview = seen.document
    assert preview["plan_digest"] == made.document["plan_digest"]
    assert [rule["name"] for rule in preview["rules"]][:3] == ["segment", "never_downsample", "feed"]
    assert preview["total"]["rows_out"] == preview["splits"]["train"]["rows"] == made.document["splits"]["train"]["rows"]
    assert sum(rule["rows_out"] for rule in preview["rules"]) == preview["total"]["rows_out"]
    assert preview["total"]["impressions"]["lower"] < preview["total"]["impressions"]["value"]


@pytest.mark.slow
def test_both_engines_publish_the_same_plan_rows_and_weights(home: Path) -> None:
    rules = settings("sample.negative_rate=1", "sample.preset=niche_boost", "sample.caps=[{column: user_segment, rows: 900}]")
    arguments = ("sample", "--recipe", QUICKSTART, *rules, "--json")

    arrow = tidewheel(*arguments, home=home)
    spark = tidewheel(*arguments, "--set", "sample.engine=spark", home=home)

    assert (arrow.code, spark.code) == (0, 0), arrow.err + spark.err
    assert arrow.document["plan_digest"] == spark.document["plan_digest"]
    for name, split in arrow.document["splits"].items():
        other = spark.document["splits"][name]
        assert (split["rows"], split["weight_sum"]) == (other["rows"], other["weight_sum"])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("sample.rules=[{name: r, all_of: [clik], rate: 0.5}]", ("sample names clik", "click, like, long_view")),
        ("sample.preset=balancd", ("sample.preset", "balanced")),
        ("sample.rules=[{name: r, where: {surfac: [feed]}, rate: 0.5}]", ("no column surfac", "surface")),
    ],
)
def test_a_recipe_that_is_wrong_is_one_line_and_exit_code_2(home: Path, setting: str, words: tuple[str, ...]) -> None:
    ended = tidewheel("sample", "--preview", "--recipe", QUICKSTART, *settings(setting), home=home)

    assert ended.code == 2
    assert [word for word in words if word not in ended.last_line] == []
