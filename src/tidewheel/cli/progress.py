"""Live progress of a run, read from its `events.jsonl`: one line a step, a bar while a step is at work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

Event = dict[str, Any]
POLL_SECONDS = 0.1
MARKS = {"finished": "[green]✓[/]", "failed": "[red]✗[/]", "interrupted": "[yellow]•[/]"}


def follow(events: Path, is_over: Callable[[], bool], console: Console) -> None:
    """Show the steps of a run until `is_over`; everything goes to `console` (stderr, so stdout stays for results)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(min_width=14, no_wrap=True)),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[words]}[/]", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        current = None
        for event in _events(events, is_over):
            kind, step = event["event"], event["step"]
            if kind == "started":
                current = bars.add_task(step, total=None, words="")
            elif kind == "progress" and current is not None:
                bars.update(current, total=1.0, completed=event["share"], words=event["words"])
            elif kind in MARKS:
                if current is not None:
                    bars.remove_task(current)
                    current = None
                if step != "conclude":
                    bars.console.print(line_of(event), highlight=False, soft_wrap=True)


def line_of(event: Event) -> str:
    """One finished step as a line: mark, name, seconds, what it made."""
    seconds = "reused" if event.get("reused") else f"{event['seconds']:5.1f} s"
    words = str(event.get("words", "")).replace("[", "\\[")
    return f"  {MARKS[event['event']]} {event['step']:<14} {seconds:>7}  [dim]{words}[/]"


def _events(path: Path, is_over: Callable[[], bool]) -> Iterator[Event]:
    """Every complete line of the file, as it grows, until the run is over and the file is read to its end."""
    position = 0
    while True:
        over = is_over()
        if path.exists():
            with path.open(encoding="utf-8") as stream:
                stream.seek(position)
                while (line := stream.readline()).endswith("\n"):
                    position += len(line.encode())
                    yield json.loads(line)
        if over:
            return
        time.sleep(POLL_SECONDS)
