"""What commands print: one JSON document on stdout, or a table for people; progress goes to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from tidewheel.contracts.report import Outcome, RunReport

LONGEST_WORD = 24  # characters of a cell that is never folded: digests, times, numbers
SHORTEST_TEXT = 8  # characters that are left for what is folded
WIDE = 1_000_000  # columns of what is no terminal: more than any row has
STYLES = {
    Outcome.BOOTSTRAP: "green",
    Outcome.PROMOTED: "green",
    Outcome.REJECTED: "yellow",
    Outcome.ROLLED_BACK: "yellow",
    Outcome.DATA_REJECTED: "red",
    Outcome.FAILED: "red",
}


def emit(document: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print `document` as JSON, or let `show` print it for people."""
    if not as_json:
        show()
        return
    if isinstance(document, BaseModel):
        document = document.model_dump(mode="json", by_alias=True)
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table for people on stdout: long cells are folded where a terminal is narrow, and nowhere else."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=WIDE if is_wide else None)
    cells = [[Text.from_markup(cell) for cell in row] for row in rows]
    longest = [max((len(row[at]) for row in cells), default=0) for at in range(len(columns))]
    are_whole = [size <= LONGEST_WORD and " " not in column for column, size in zip(columns, longest, strict=True)]
    taken = sum(max(size, len(column)) for column, size, is_whole in zip(columns, longest, are_whole, strict=True) if is_whole)
    has_room = taken + 2 * len(columns) + SHORTEST_TEXT <= console.width
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column, is_whole in zip(columns, are_whole, strict=True):
        grid.add_column(column, overflow="fold", no_wrap=is_whole and has_room)
    for row in cells:
        grid.add_row(*row)
    console.print(grid)


def short(digest: str | None, digits: int = 12) -> str:
    return digest[:digits] if digest else "-"


def outcome_text(outcome: Outcome) -> str:
    return f"[{STYLES[outcome]}]{outcome.value}[/]"


def shown(path: Path) -> str:
    """A path as a person would type it: relative to the current folder where it lies in it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def plain(text: str) -> str:
    """Text that is shown as it is, brackets and all."""
    return text.replace("[", "\\[")


def metric(report: RunReport, model: str, label: str, name: str) -> str:
    estimate = report.metrics.get(model, {}).get(label, {}).get(name)
    return "-" if estimate is None or estimate.value is None else f"{estimate.value:.4f}"
