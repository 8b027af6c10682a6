"""Verbs with a word before them: schema, rollout, schedule, bench. Only signatures, as in `app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidewheel.cli.options import HomeOption, JsonFlag, NameOption, RecipeOption, SetOption

schema_app = typer.Typer(help="The registered features: what a recipe may change of them.", rich_markup_mode=None)
rollout_app = typer.Typer(help="How candidates are tried.", rich_markup_mode=None)
schedule_app = typer.Typer(help="Recurring runs on Kubeflow Pipelines, kept in a file.", rich_markup_mode=None)
bench_app = typer.Typer(help="What this machine makes of the work.", rich_markup_mode=None)


FileOption = Annotated[Path, typer.Option("--file", help="The schedules, a YAML file.")]


@bench_app.callback()
def _bench() -> None:
    """One verb a step."""


@bench_app.command(name="train")
def bench_train(
    run_id: Annotated[str, typer.Argument(help="On whose rows. Default: the newest run that has some.")] = "",
    roofline: Annotated[bool, typer.Option("--roofline", help="Beside it, train on random tensors in memory.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Of each round.")] = 100,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    settings: SetOption = None,
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Rows a second of training on a run's rows, its wait for rows, and its share of what the network alone would do."""
    from tidewheel.cli import bench

    bench.train(run_id, settings or [], home, roofline, steps, rounds, as_json)


@rollout_app.command(name="plan")
def rollout_plan(
    recipe: RecipeOption,
    requests_per_second: Annotated[
        float | None, typer.Option("--requests-per-second", help="Of the whole traffic; says by when each step has ended.")
    ] = None,
    as_helm: Annotated[bool, typer.Option("--helm", help="Print its steps as values of the chart ranker-serving.")] = False,
    settings: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Who sees a candidate at most before its canary must have ended: the plan's worst case."""
    from tidewheel.cli import rollout

    if as_helm:
        rollout.helm_values(recipe, settings or [])
    else:
        rollout.plan(recipe, requests_per_second, settings or [], as_json)


@rollout_app.command(name="judge")
def rollout_judge(
    canary: Annotated[str, typer.Option(help="The annotation tidewheel/canary of the Rollout.")],
    revision: Annotated[str, typer.Option(help="Hash of the candidate's pods.")],
    step: Annotated[int, typer.Option(min=1, help="Counts from 1.")],
    candidate: Annotated[str, typer.Option(help="Address of the candidate's pods, http://HOST:PORT.")],
    production: Annotated[str, typer.Option(help="Address of production's pods.")],
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Lead one step of a canary on a cluster to its end, as the chart's analysis does. Exit code 4 unless it passed."""
    from tidewheel.cli import rollout

    raise typer.Exit(rollout.judge(canary, revision, step, candidate, production, home, as_json))


@schema_app.command(name="plan")
def schema_plan(recipe: RecipeOption, settings: SetOption = None, home: HomeOption = "", as_json: JsonFlag = False) -> None:
    """What the recipe would change of its registered features. Exit code 2 when a change is refused."""
    from tidewheel.cli import schema

    raise typer.Exit(schema.plan(recipe, settings or [], home, as_json))


@schema_app.command(name="apply")
def schema_apply(
    recipe: RecipeOption,
    reason: Annotated[str, typer.Option(help="Why; stands in the record.")],
    settings: SetOption = None,
    home: HomeOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Register the features of the recipe, when every change is additive."""
    from tidewheel.cli import schema

    schema.apply(recipe, settings or [], reason, home, as_json)


@schema_app.command(name="show")
def schema_show(name: NameOption = "", home: HomeOption = "", as_json: JsonFlag = False) -> None:
    """Every feature that a recipe ever had, the deprecated ones too."""
    from tidewheel.cli import schema

    schema.show(name, home, as_json)


@schedule_app.command(name="diff")
def schedule_diff(file: FileOption = Path("schedules.yaml"), as_json: JsonFlag = False) -> None:
    """What apply would do. Changes nothing."""
    from tidewheel.cli import schedules

    schedules.diff(file, as_json)


@schedule_app.command(name="apply")
def schedule_apply(file: FileOption = Path("schedules.yaml"), as_json: JsonFlag = False) -> None:
    """Make the backend's schedules those of the file; no run in flight is ended. Safe to repeat, and after a crash."""
    from tidewheel.cli import schedules

    schedules.apply(file, as_json)


@schedule_app.command(name="list")
def schedule_list(file: FileOption = Path("schedules.yaml"), as_json: JsonFlag = False) -> None:
    """Every schedule of the file and of its group in the backend, and what is not as the file says."""
    from tidewheel.cli import schedules

    schedules.list_(file, as_json)
