"""The verb that samples one window outside a run: what the recipe's rules do to it, or the splits themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tidewheel.cli.output import emit, plain, short, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.cli.scratch import scratch_run
from tidewheel.cli.turn import announce, moment_of
from tidewheel.cli.turning import next_window_end
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.sampling import SamplePlan
from tidewheel.contracts.steps import SamplePart, parts
from tidewheel.store.home import Home

if TYPE_CHECKING:
    from tidewheel.sampling import RuleTally, Sampled
    from tidewheel.steps.job import Job

SPLITS = ("train", "calibration", "eval", "randomized")


def sample(
    recipe: Path, data: Path | None, window_end: str, settings: list[str], home: str, is_preview: bool, as_json: bool
) -> None:
    """Ingest the window, unless an earlier run did, and show what its rules do; or write the splits and show them."""
    chosen = load_recipe(recipe, settings, data)
    place = Home.resolve(Path(home) if home else None)
    end = moment_of(window_end) if window_end else next_window_end(chosen, place)
    announce(chosen, end, Console(stderr=True))
    with scratch_run(chosen.name, place, "sample") as folder:
        from tidewheel.steps import ingest

        given = {name: part.to_json() for name, part in parts(chosen).items()}
        impressions = {"impressions": str(folder / "impressions.json")}
        ingest.main(given["ingest"], folder.name, end.isoformat(), {}, impressions)
        if is_preview:
            document = _preview(SamplePart.parse(given["sample"], "sample"), _job(place, folder, end, impressions))
            emit(document, as_json, lambda: _show_preview(document))
            return
        document = _published(given["sample"], folder, end, impressions)
        emit(document, as_json, lambda: _show_splits(document["splits"]))


def _job(home: Home, folder: Path, end: datetime, inputs: dict[str, str]) -> Job:
    from tidewheel.steps.job import Job

    return Job("sample", folder.name, end.astimezone(UTC), home, home.store(), inputs)


def _preview(part: SamplePart, job: Job) -> dict[str, Any]:
    from tidewheel.steps import sample as step

    source, sampled = step.look(part, job)
    return {
        "window": source.window.model_dump(mode="json"),
        "impressions": {"digest": source.digest, "rows": source.rows},
        "plan_digest": sampled.plan.digest,
        "plan": sampled.plan.model_dump(mode="json"),
        "rules": [{"name": rule.name, "rate": rule.rate, **_row(sampled.rules[rule.name])} for rule in sampled.plan.rules],
        "total": _row(_total(sampled)),
        "splits": {
            name: {"rows": split.rows, "weight_sum": split.weight_sum, "excluded": int(split.statistics["excluded"])}
            for name, split in sampled.splits.items()
        },
    }


def _total(sampled: Sampled) -> RuleTally:
    from tidewheel.sampling import RuleTally

    return sum(sampled.rules.values(), RuleTally())


def _row(tally: RuleTally) -> dict[str, Any]:
    """One rule in numbers; without a kept row it has no weights."""
    total = tally.total
    lower, upper = total.interval()
    return {
        "rows_in": tally.rows_in,
        "rows_out": tally.rows_out,
        "effective_rows": tally.effective_rows,
        "weight_min": tally.weight_min if tally.rows_out else None,
        "weight_max": tally.weight_max if tally.rows_out else None,
        "impressions": {"value": total.value, "lower": lower, "upper": upper},
    }


def _published(config: str, folder: Path, end: datetime, inputs: dict[str, str]) -> dict[str, Any]:
    from tidewheel.steps import sample as step

    outputs = {name: str(folder / f"{name}.json") for name in SPLITS}
    step.main(config, folder.name, end.isoformat(), inputs, outputs)
    manifests = {name: DatasetManifest.read(Path(path)) for name, path in outputs.items()}
    splits = {
        name: {"digest": manifest.digest, "rows": manifest.rows, "weight_sum": manifest.weight_sum}
        for name, manifest in manifests.items()
    }
    window = manifests["train"].window.model_dump(mode="json")
    return {"window": window, "plan_digest": _plan(manifests["train"]).digest, "splits": splits}


def _plan(manifest: DatasetManifest) -> SamplePlan:
    assert manifest.sampling is not None
    return manifest.sampling


def _show_preview(document: dict[str, Any]) -> None:
    rows = [[plain(rule["name"]), f"{rule['rate']:.4g}", *_cells(rule)] for rule in document["rules"]]
    rows.append(["[bold]train[/]", "", *_cells(document["total"])])
    table(("rule", "rate", "rows in", "rows out", "effective", "weights", "stand for"), rows)
    splits = [[name, f"{split['rows']:,}", f"{split['weight_sum']:,.0f}"] for name, split in document["splits"].items()]
    print()
    table(("split", "rows", "weight sum"), splits)
    excluded = sum(split["excluded"] for split in document["splits"].values())
    if excluded:
        print(f"\n{excluded:,} rows of excluded groups are in no split; no total stands for them")
    print(f"\nplan {short(document['plan_digest'])}; nothing was written")


def _cells(row: dict[str, Any]) -> list[str]:
    counts = f"{row['rows_in']:,}", f"{row['rows_out']:,}", f"{row['effective_rows']:,.0f}"
    if not row["rows_out"]:
        return [*counts, "-", "-"]
    total = row["impressions"]
    stand_for = f"{total['value']:,.0f} ± {total['upper'] - total['value']:,.0f}"
    return [*counts, f"{row['weight_min']:.4g} to {row['weight_max']:.4g}", stand_for]


def _show_splits(splits: dict[str, Any]) -> None:
    rows = [[name, short(one["digest"]), f"{one['rows']:,}", f"{one['weight_sum']:,.0f}"] for name, one in splits.items()]
    table(("split", "digest", "rows", "weight sum"), rows)
