"""The command of docs/model.md, as a user types it, on a smaller world."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, SMALL, settings, tidewheel
from tests.e2e.test_new_project import fenced_commands


@pytest.mark.slow
def test_the_documented_command_releases_a_ranker_of_other_blocks(tmp_path: Path) -> None:
    (command,) = fenced_commands(ROOT / "docs" / "model.md")
    words = shlex.split(command)
    assert words[:2] == ["tidewheel", "run"]

    ended = tidewheel(*words[1:], *settings(*SMALL), "--json", home=tmp_path / "home", cwd=ROOT)

    assert ended.code == 0, ended.err
    assert ended.document["outcome"] == "bootstrap"
    assert {"ranker", "student"} <= set(ended.document["metrics"])
