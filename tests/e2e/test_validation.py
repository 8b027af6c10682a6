"""What validation says to a person and to a script, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.e2e.command import settings
from tests.e2e.test_bad_input import assert_refused, run, shop  # noqa: F401 (a fixture)

FEW = r"train: \d+ rows < 1000"


def the_run(home: Path) -> Path:
    (folder,) = (home / "runs").iterdir()
    return folder


def documents(home: Path, name: str) -> dict:
    return json.loads((home / "store" / "documents" / the_run(home).name / f"validate_data.{name}.json").read_text())


def test_rejected_data_ends_the_run_and_leaves_its_page_and_its_document(shop: Path) -> None:  # noqa: F811
    ended = run(shop)

    home = shop / "home"
    assert_refused(ended, home, 3, "rows < 1000")
    page = (the_run(home) / "data.html").read_text()
    assert "Data rejected" in page
    assert re.search(FEW.replace("<", "&lt;"), page)
    assert not re.search(r"(src|href)=[\"']https?:|@import|<script", page)
    assert 'href="data.html"' in (the_run(home) / "report.html").read_text()
    assert documents(home, "data")["verdict"]["phase"] == "Failed"
    assert not (home / "store" / "windows").exists()


def test_the_same_data_passes_with_a_warning_where_the_recipe_says_so(shop: Path) -> None:  # noqa: F811
    ended = run(shop, *settings("validate_data.severity={expect train table row count: warning}"))

    home = shop / "home"
    assert re.search(r"✓ validate_data .*\d+ checks passed, 1 warning", ended.err), ended.err
    assert re.search(f"warning {FEW}", ended.out)
    assert documents(home, "verdict")["phase"] == "Successful"
    assert "⚠ Warning" in (the_run(home) / "data.html").read_text()
    record = json.loads((home / "store" / "windows" / "shop" / "2026-01-03.json").read_text())
    assert record["rows"] == documents(home, "data")["window"]["rows"]


def test_a_severity_of_no_check_is_refused_by_name(shop: Path) -> None:  # noqa: F811
    assert_refused(run(shop, *settings("validate_data.severity={drfit: warning}")), shop / "home", 2, "drfit", "drift")
