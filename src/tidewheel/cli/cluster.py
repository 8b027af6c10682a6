"""`tidewheel doctor --cluster`: whether a cluster and this account can run tidewheel."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tidewheel.cli.output import emit, plain, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.errors import ConfigError

if TYPE_CHECKING:
    from tidewheel.cluster.doctor import Asked, Examination

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
ALLOWED = {True: "[green]✓[/]", False: "[red]✗[/]", None: "?"}


def doctor(namespace: str, recipe: Path | None, as_json: bool) -> int:
    """Look at the cluster of the current context. Exit code 1 when something that runs need is not well.

    Raises:
        ConfigError: the recipe cannot be read, or the namespace cannot be one.
    """
    from tidewheel.cluster.doctor import examine

    if namespace and not NAME.fullmatch(namespace):
        raise ConfigError(f"--namespace {namespace}: is no name of a namespace; expected lower case letters, digits and dashes")
    chosen = load_recipe(recipe, needs_data=False) if recipe is not None else None
    with Console(stderr=True).status("asking the cluster"):
        found = examine(namespace, chosen, os.environ)
    emit(found, as_json, lambda: _show(found))
    return 1 if found.is_in_the_way else 0


def _show(found: Examination) -> None:
    out = Console(highlight=False, soft_wrap=True)
    out.print(f"context {plain(found.context) or '-'}, namespace {found.namespace or '-'}\n")
    marks = {True: "[green]✓[/]", False: "[red]✗[/]"}
    for finding in found.checks:
        mark = "[yellow]![/]" if not finding.is_well and not finding.is_in_the_way else marks[finding.is_well]
        out.print(f"{mark} [bold]{plain(finding.name)}[/]: {plain(finding.found)}")
        if not finding.is_well:
            out.print(f"    expected: {plain(finding.expected)}\n    remedy: {plain(finding.remedy)}")
    if found.rights:
        out.print("\nwhat this account may do itself:\n")
        _show_rights(found.rights)
    in_the_way = [finding.name for finding in found.checks if finding.is_in_the_way]
    said = f"in the way: {', '.join(dict.fromkeys(in_the_way))}" if in_the_way else "nothing is in the way"
    out.print(f"\n{plain(said)}  (✗ runs need it, ! only something that they may do)")


def _show_rights(rights: Sequence[Asked]) -> None:
    verbs = list(dict.fromkeys(each.verb for each in rights))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for each in rights:
        rows.setdefault((each.use, each.namespace, each.resource), {})[each.verb] = ALLOWED[each.is_allowed]
    table(
        ("for", "namespace", "resource", *verbs), [[*key, *(row.get(verb, "") for verb in verbs)] for key, row in rows.items()]
    )
