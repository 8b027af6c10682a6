"""The same command on a real log: successive windows, the second taught by and compared with the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import KUAIRAND, KUAIRAND_DATA, tidewheel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not KUAIRAND_DATA.is_dir(), reason="KuaiRand is not beside this checkout (../shared/data/kuairand_pure_std)"
    ),
]


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    home = tmp_path_factory.mktemp("real") / "home"
    reports = []
    for _ in range(2):
        ended = tidewheel("run", "--recipe", KUAIRAND, "--data", KUAIRAND_DATA, "--json", home=home)
        assert ended.code == 0, ended.err
        reports.append(ended.document)
    return reports


def test_each_call_turns_the_wheel_for_the_next_day(turns: list[dict[str, Any]]) -> None:
    assert [turn["window"]["end"][:10] for turn in turns] == ["2022-05-04", "2022-05-05"]
    assert [turn["outcome"] for turn in turns] == ["bootstrap", "promoted"]


def test_the_first_is_teacher_and_baseline_of_the_second(turns: list[dict[str, Any]]) -> None:
    first, second = turns

    assert second["teacher"] == first["bundle"]
    assert set(second["metrics"]) == {"ranker", "student", "production"}
    assert second["production"] == second["bundle"]


def test_repeats_are_removed_and_every_row_counts_once(turns: list[dict[str, Any]]) -> None:
    """The window [2022-04-25, 2022-05-04) has 154,437 rows, of which 150,055 are distinct impressions."""
    data = turns[0]["datasets"]

    assert sum(data[split]["rows"] for split in ("train", "calibration", "eval", "randomized")) == 150_055
    assert data["eval"]["weight_sum"] == data["eval"]["rows"]


@pytest.mark.parametrize("label", ["click", "long_view"])
def test_the_student_ranks_and_is_calibrated(turns: list[dict[str, Any]], label: str) -> None:
    for turn in turns:
        student, ranker = (turn["metrics"][model][label] for model in ("student", "ranker"))
        assert student["auc"]["value"] > 0.71
        assert student["auc"]["value"] > ranker["auc"]["value"] - 0.006
        assert 0.94 < student["calibration_ratio"]["value"] < 1.06


def test_the_second_comparison_is_in_the_verdict(turns: list[dict[str, Any]]) -> None:
    checks = {reason["check"] for reason in turns[1]["verdicts"]["evaluate"]["reasons"]}

    assert any("vs production" in check or "drop" in check for check in checks), checks


def test_data_beyond_the_log_is_refused(tmp_path: Path) -> None:
    ended = tidewheel("run", "--recipe", KUAIRAND, "--data", KUAIRAND_DATA, "--window-end", "2022-06-01", home=tmp_path / "h")

    assert ended.code == 3
    assert "2022-05-05" in ended.err + ended.out
