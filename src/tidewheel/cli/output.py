"""What commands print: one JSON document on stdout, or a table for people; progress goes to stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from tidewheel.contracts.report import Outcome, RunReport

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
    """Print a table for people on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(Text.from_markup(cell) for cell in row))
    Console().print(grid)


def short(digest: str | None) -> str:
    return digest[:12] if digest else "-"


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
