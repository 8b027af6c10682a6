"""A student with fewer features goes through whole turns, teaches the next model, and is refused when it is too slow."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.e2e.command import QUICKSTART, ROOT, SMALL, Ended, settings, tidewheel
from tests.e2e.test_new_project import fenced_commands
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.report import RunReport

pytestmark = pytest.mark.slow

DROPPED = ("user_segment", "item_category", "author_click_rate")


def turn(home: Path, end: str, *more: str) -> Ended:
    words = ["run", "--recipe", QUICKSTART, "--window-end", end, *settings(*SMALL, *more), "--json"]
    return tidewheel(*words, home=home, cwd=ROOT)


def report_of(ended: Ended) -> RunReport:
    assert ended.code == 0, ended.err
    return RunReport.model_validate(ended.document)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("student") / "home"


@pytest.fixture(scope="module")
def two(home: Path) -> tuple[RunReport, RunReport]:
    """A first release without some features, and the next turn with all of them."""
    fewer = f"distill.without_features=[{', '.join(DROPPED)}]"
    return report_of(turn(home, "2026-01-12", fewer)), report_of(turn(home, "2026-01-19"))


def features_of(home: Path, bundle: str | None) -> set[str]:
    manifest = BundleManifest.read(home / "store" / "bundles" / str(bundle) / "manifest.json")
    return {feature.name for feature in manifest.features}


def test_a_student_with_fewer_features_is_released(home: Path, two: tuple[RunReport, RunReport]) -> None:
    first, _ = two
    assert first.outcome == "bootstrap"
    assert {"ranker", "student"} <= set(first.metrics)
    assert features_of(home, first.bundle).isdisjoint(DROPPED)


def test_it_teaches_and_is_compared_with_a_student_that_has_all(home: Path, two: tuple[RunReport, RunReport]) -> None:
    first, second = two
    assert second.outcome in ("promoted", "rolled_back", "rejected")
    assert second.teacher == first.bundle
    assert set(DROPPED) <= features_of(home, second.bundle)
    assert second.metrics["production"]["click"]["auc"].value == pytest.approx(0.7, abs=0.1)


def test_what_the_student_costs_is_in_the_report(two: tuple[RunReport, RunReport]) -> None:
    latency = two[0].latency
    assert latency is not None
    assert 0 < latency.microseconds_per_candidate <= latency.median_microseconds_per_candidate


def test_a_student_over_its_budget_ends_the_run_with_2_and_releases_nothing(
    home: Path, two: tuple[RunReport, RunReport]
) -> None:
    ended = turn(home, "2026-01-26", "distill.max_microseconds_per_candidate=0.001")
    assert ended.code == 2
    assert "us a candidate" in ended.err
    assert (ended.document["outcome"], ended.document["bundle"]) == ("failed", None)
    assert ended.document["production"] == two[1].production


def test_the_documented_command_releases_a_student_calibrated_by_slice(tmp_path: Path) -> None:
    (command,) = fenced_commands(ROOT / "docs" / "distill.md")
    words = shlex.split(command)
    assert words[:2] == ["tidewheel", "run"]
    ended = tidewheel(*words[1:], *settings(*SMALL), "--json", home=tmp_path / "home", cwd=ROOT)
    assert report_of(ended).outcome == "bootstrap"
