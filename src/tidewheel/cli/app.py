"""The `tidewheel` command: every verb with its options, and how errors become one line and an exit code.

Only signatures live here: a verb imports what it needs when it is called, so `--help` costs a quarter of a second.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tidewheel import __version__
from tidewheel.cli import groups, options
from tidewheel.cli.options import DataOption, HomeOption, JsonFlag, NameOption, RecipeOption, SetOption
from tidewheel.errors import ConfigError, TidewheelError

INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt

app = typer.Typer(
    name="tidewheel",
    help="Retrain a recommendation ranker from its own logs and roll each new model out safely.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for name, group in (
    ("schema", groups.schema_app),
    ("rollout", groups.rollout_app),
    ("schedule", groups.schedule_app),
    ("bench", groups.bench_app),
):
    app.add_typer(group, name=name)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True)) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    recipe: RecipeOption,
    data: DataOption = None,
    window_end: Annotated[str, typer.Option(help="End of the window, UTC. Default: one stride after the last turn.")] = "",
    settings: SetOption = None,
    home: HomeOption = "",
    reason: Annotated[str, typer.Option(help="Why; stands in the ledger.")] = "by hand",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge and canary, but change nothing.")] = False,
    require: Annotated[list[str] | None, typer.Option(help="Exit with 4 unless the run ends so, e.g. promoted.")] = None,
    verify: Annotated[str, typer.Option(help="Check a sample of the bytes that are reused, or full. Default: sampled.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Turn the wheel once: ingest, sample, validate, train, distill, evaluate, deploy."""
    from tidewheel.cli import turn

    code = turn.run(recipe, data, window_end, settings or [], home, reason, dry_run, require or [], as_json, verify)
    raise typer.Exit(code)


@app.command()
def simulate(
    recipe: RecipeOption,
    turns: Annotated[int, typer.Option(min=1, help="How many windows, from the recipe's first.")] = 3,
    settings: SetOption = None,
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Turn the wheel several times on the built-in world, from its first window.

    Goes on where an interrupted simulation stopped. A home where all turns are over is moved aside, not continued.
    """
    from tidewheel.cli import turn

    raise typer.Exit(turn.simulate(recipe, turns, settings or [], home, as_json))


@app.command(name="compile")
def compile_(
    recipe: RecipeOption,
    output: Annotated[Path, typer.Option("--output", help="Where the pipeline YAML goes.")] = Path("pipeline.yaml"),
    is_manifest: options.ManifestFlag = False,
    namespace: Annotated[str, typer.Option(help="Of --manifest. Default: the one that kubectl applies it to.")] = "",
    data: DataOption = None,
    settings: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compile the recipe to a Kubeflow pipeline, the same that `run` executes."""
    from tidewheel.cli import turn

    turn.compile_pipeline(recipe, output, is_manifest, namespace, data, settings or [], as_json)


@app.command()
def submit(
    recipe: RecipeOption,
    data: Annotated[str, typer.Option(help="Folder of the log as pods see it; replaces source.path of the recipe.")] = "",
    window_end: options.NextWindowOption = "",
    settings: SetOption = None,
    reason: Annotated[str, typer.Option(help="Why; stands in the ledger.")] = "by hand",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge and canary, but change nothing.")] = False,
    service_account: Annotated[str, typer.Option(help="Whom the run's pods run as.")] = "tidewheel-run",
    is_waiting: Annotated[bool, typer.Option("--wait", help="Follow the run to its end; its ending is the exit code.")] = False,
    patience: options.PatienceOption = 300,
    as_json: JsonFlag = False,
) -> None:
    """Run the recipe's pipeline once on the Kubeflow Pipelines that $KFP_ENDPOINT names."""
    from tidewheel.cli import submit as submitting

    waits = patience if is_waiting else None
    code = submitting.submit(recipe, data, window_end, settings or [], reason, dry_run, service_account, waits, as_json)
    raise typer.Exit(code)


@app.command()
def sample(
    recipe: RecipeOption,
    is_preview: Annotated[bool, typer.Option("--preview", help="Show what each rule does; write nothing.")] = False,
    data: DataOption = None,
    window_end: Annotated[str, typer.Option(help="End of the window, UTC. Default: one stride after the last turn.")] = "",
    settings: SetOption = None,
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Sample one window: what each rule keeps, its effective rows and weights; or the splits themselves."""
    from tidewheel.cli import sampling

    sampling.sample(recipe, data, window_end, settings or [], home, is_preview, as_json)


@app.command()
def diagnose(
    recipe: RecipeOption,
    data: DataOption = None,
    window_end: Annotated[str, typer.Option(help="End of the days, UTC. Default: one stride after the last turn.")] = "",
    days: Annotated[int, typer.Option(min=0, help="How many days before that. Default: those of the recipe's window.")] = 0,
    label: Annotated[str, typer.Option(help="Whose scores. Default: deploy.goal_label.")] = "",
    settings: SetOption = None,
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Why production does otherwise than its evaluation said: ranked causes, each with its part of the log-loss."""
    from tidewheel.cli import diagnosis

    diagnosis.diagnose(recipe, data, window_end, days, label, settings or [], home, as_json)


@app.command()
def status(
    last: options.LastOption = 20,
    is_cluster: Annotated[bool, typer.Option("--cluster", help="Also what the cluster has of each run.")] = False,
    namespace: options.NamespaceOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """What serves now, the newest runs and those at work."""
    from tidewheel.cli import status as looking

    looking.status(last, is_cluster, namespace, home, as_json)


@app.command()
def explain(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id; the latest when not given.")] = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Why a run ended as it did: every check with its numbers, what would have changed it, steps, data, teacher."""
    from tidewheel.cli import inspect

    inspect.explain(run_id, home, as_json)


@app.command()
def history(
    at: Annotated[str, typer.Option("--at", help="What served at this time, UTC.")] = "",
    name: NameOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Every release decision; with --at, what was in production then: its data, teachers, verdicts, and what became of it."""
    from tidewheel.cli import past

    past.history(at, name, home, as_json)


@app.command()
def lineage(name: NameOption = "", home: HomeOption = "", as_json: JsonFlag = False) -> None:
    """Which bundle learned from which, and which of them may teach."""
    from tidewheel.cli import inspect

    inspect.lineage(name, home, as_json)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; stands in the ledger.")],
    to: Annotated[str, typer.Option(help="Digest of an earlier production, or its beginning. Default: the one before.")] = "",
    retraining: options.RetrainingOption = "",
    name: NameOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Make an earlier production serve again: one ledger entry, then everything that follows from it."""
    from tidewheel.cli import release

    release.rollback(reason, to, retraining, name, home, as_json)


@app.command()
def quarantine(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Digest of a bundle, or its beginning.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the ledger.")],
    name: NameOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Never again learn from a bundle, nor from what learned from it. What serves stays."""
    from tidewheel.cli import release

    release.quarantine(bundle, reason, name, home, as_json)


@app.command()
def resume(
    reason: Annotated[str, typer.Option(help="Why; stands in the ledger.")],
    name: NameOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Let runs begin and teachers teach again, which a rollback held up."""
    from tidewheel.cli import release

    release.resume(reason, name, home, as_json)


@app.command()
def reconcile(name: NameOption = "", home: HomeOption = "", as_json: JsonFlag = False) -> None:
    """Make traffic, state and registry say what the ledger says. Safe to repeat, and after a crash between any two writes."""
    from tidewheel.cli import release

    release.reconcile(name, home, as_json)


@app.command()
def gc(
    recipe: options.RulesOption = None,
    releases: Annotated[int | None, typer.Option("--keep-releases", min=1, help="Replaces retention.releases.")] = None,
    days: Annotated[int | None, typer.Option("--keep-days", min=0, help="Replaces retention.days.")] = None,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    name: NameOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Remove bundles, datasets, rankers and run folders that nothing needs any more."""
    from tidewheel.cli import gc

    gc.gc(recipe, releases, days, is_dry_run, name, home, as_json)


@app.command()
def watch(
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Default: that of the run that began the experiment.")] = None,
    until: Annotated[str, typer.Option(help="Let the built-in world live until then, UTC, with a look a day.")] = "",
    settings: SetOption = None,
    name: NameOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Judge production against its held-out users; proven harm takes it back, the horizon ends the experiment."""
    from tidewheel.cli import watch as watching

    watching.watch(recipe, name, until, settings or [], home, as_json)


@app.command()
def experiment(
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Default: that of the run that began the experiment.")] = None,
    settings: SetOption = None,
    name: NameOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """What the holdout experiment shows so far: arms, days, effect by period with bounds, verdict. Changes nothing."""
    from tidewheel.cli import watch as watching

    watching.experiment(recipe, name, settings or [], home, as_json)


@app.command()
def serve(
    bundle: Annotated[str, typer.Option(help="Digest of a bundle, and no other. Default: follow production.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    log: Annotated[Path | None, typer.Option("--log", help="Folder of the hybrid log to write.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that answer, a core for each.")] = 1,
    poll_seconds: Annotated[float, typer.Option(help="How often to look for another assignment.")] = 1.0,
    max_versions: Annotated[int, typer.Option(min=1, help="Bundles that serve at once at most.")] = 3,
    max_candidates: Annotated[int, typer.Option(min=1, help="Of one request; more: 400.")] = 10_000,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests being read or scored; more: 429.")] = 64,
    body_seconds: Annotated[float, typer.Option(help="Until a request is whole; later: 408.")] = 5.0,
    drain_seconds: Annotated[float, typer.Option(min=0, help="After SIGTERM: not ready, but answering.")] = 0.0,
    name: NameOption = "",
    home: HomeOption = "",
) -> None:
    """Serve production as it changes, or one bundle, over the Open Inference Protocol v2, until interrupted."""
    from tidewheel.cli import release

    options = {
        "--host": host,
        "--port": port,
        "--processes": processes,
        "--poll-seconds": poll_seconds,
        "--max-versions": max_versions,
        "--max-candidates": max_candidates,
        "--max-waiting": max_waiting,
        "--body-seconds": body_seconds,
        "--drain-seconds": drain_seconds,
    }
    release.serve(bundle, options if log is None else {**options, "--log": log}, name, home)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Write a commented recipe and a README that works."""
    from tidewheel.cli import project

    project.init(directory, as_json)


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Also check this recipe.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Also check the log in this folder.")] = None,
    is_cluster: Annotated[
        bool, typer.Option("--cluster", help="Check the cluster, and what this account may do in it.")
    ] = False,
    namespace: options.NamespaceOption = "",
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Check this machine, the home and, when named, a recipe and its log; or a cluster. Exit code 1: something is not well."""
    from tidewheel.cli import project

    if is_cluster:
        from tidewheel.cli import cluster

        if data is not None or home:
            raise ConfigError(
                "doctor --cluster: looks at the cluster alone; leave --data and --home to a call without --cluster"
            )
        raise typer.Exit(cluster.doctor(namespace, recipe, as_json))
    if namespace:
        raise ConfigError(f"--namespace {namespace}: is of a cluster; add --cluster")

    raise typer.Exit(project.doctor(recipe, data, home, as_json))


def main() -> NoReturn:
    """Run a command. Exit codes: 0 production is known good, 1 anything else, 2 usage or recipe, 3 data rejected."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    is_debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get("TIDEWHEEL_DEBUG"))
    try:
        code = app(args=arguments or ["--help"], standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except typer.TyperException as error:
        _complain(f"{error} (see tidewheel --help)", "UsageError", arguments)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted", "Interrupted", arguments)
        sys.exit(1)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the reader of our output left; nothing is left to say)
        sys.exit(1)
    except Exception as error:
        if is_debug:
            raise
        if isinstance(error, TidewheelError):
            _complain(str(error), type(error).__name__, arguments)
            sys.exit(error.exit_code)
        _complain(f"{type(error).__name__}: {error} (a bug; --debug shows where)", "Bug", arguments)
        sys.exit(1)


def _complain(message: str, kind: str, arguments: list[str]) -> None:
    """One line on stderr; with --json the one document on stdout as well."""
    line = " ".join(message.split())
    print(f"tidewheel: {line}", file=sys.stderr)
    if "--json" in arguments:
        print(json.dumps({"error": {"kind": kind, "message": line}}))
