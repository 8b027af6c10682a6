"""Who may do what, read from the roles themselves; test_cluster.py asks a real API server the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.overlay import OVERLAYS, ROOT, built, moved, named, needs_kubectl, objects
from tests.manifests.rights import MAY_NOT, NOBODY_MAY, RIGHTS, rights_of

pytestmark = needs_kubectl


def granted(found: list[dict[str, Any]]) -> dict[str, frozenset[str]]:
    """Account -> everything that its bindings give it."""
    roles = named(found, "Role")
    bound = {name: frozenset[str]() for name in named(found, "ServiceAccount")}
    for binding in named(found, "RoleBinding").values():
        for subject in binding["subjects"]:
            bound[subject["name"]] |= rights_of(roles[binding["roleRef"]["name"]]["rules"])
    return bound


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_account_may_do_what_the_table_says_and_nothing_else(overlay: str) -> None:
    assert granted(objects(overlay)) == RIGHTS


@pytest.mark.parametrize("account", sorted(RIGHTS))
def test_no_account_may_do_what_hurts_most(account: str) -> None:
    assert not RIGHTS[account] & {*NOBODY_MAY, *MAY_NOT[account]}


def test_every_account_has_something_it_may_not_do() -> None:
    assert set(MAY_NOT) == set(RIGHTS)
    assert all(MAY_NOT.values())


def test_rights_move_with_their_namespace(tmp_path: Path) -> None:
    """A binding whose subjects stayed behind would give its rights to accounts of another namespace."""
    found = list(yaml.safe_load_all(built(moved("production", "elsewhere", tmp_path))))

    assert {subject["namespace"] for each in named(found, "RoleBinding").values() for subject in each["subjects"]} == {
        "elsewhere"
    }
    assert set(named(found, "Namespace")) == {"elsewhere"}
    assert granted(found) == RIGHTS


def test_the_page_names_every_account() -> None:
    page = (ROOT / "docs" / "operations" / "manifests.md").read_text(encoding="utf-8")

    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `tidewheel-")]
    assert {name.strip(" `") for row in rows for name in row.split(",")} == set(RIGHTS)
