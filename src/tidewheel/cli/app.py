"""The `tidewheel` command: its verbs, and how errors become one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
from typing import NoReturn

import typer

from tidewheel import __version__
from tidewheel.cli import inspect, project, release, turn
from tidewheel.errors import TidewheelError

app = typer.Typer(
    name="tidewheel",
    help="Retrain a recommendation ranker from its own logs and roll each new model out safely.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True)) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


for verb in (*turn.VERBS, *inspect.VERBS, *release.VERBS, *project.VERBS):
    app.command()(verb)


def main() -> NoReturn:
    """Run a command. Exit codes: 0 production is known good, 1 anything else, 2 usage or recipe, 3 data rejected."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    is_debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get("TIDEWHEEL_DEBUG"))
    try:
        code = app(args=arguments or ["--help"], standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.TyperException as error:
        _complain(f"{error} (see tidewheel --help)", "UsageError", arguments)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted", "Interrupted", arguments)
        sys.exit(1)
    except TidewheelError as error:
        if is_debug:
            raise
        _complain(str(error), type(error).__name__, arguments)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the reader of our output left; nothing is left to say)
        sys.exit(1)
    except Exception as error:
        if is_debug:
            raise
        _complain(f"{type(error).__name__}: {error} (a bug; --debug shows where)", "Bug", arguments)
        sys.exit(1)


def _complain(message: str, kind: str, arguments: list[str]) -> None:
    """One line on stderr; with --json the one document on stdout as well."""
    line = " ".join(message.split())
    print(f"tidewheel: {line}", file=sys.stderr)
    if "--json" in arguments:
        print(json.dumps({"error": {"kind": kind, "message": line}}))
