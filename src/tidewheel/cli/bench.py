"""`tidewheel bench`: what this machine makes of the work, measured on the data of a run."""

from __future__ import annotations

from collections.abc import Iterable

from tidewheel.cli.inspect import existing_home
from tidewheel.cli.output import emit, table
from tidewheel.cli.recipes import with_settings
from tidewheel.cli.reports import reports
from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.report import RunReport
from tidewheel.errors import ConfigError
from tidewheel.store.home import Home


def train(run_id: str, settings: Iterable[str], home: str, with_roofline: bool, steps: int, rounds: int, as_json: bool) -> None:
    """Measure training on the training rows of a run, as its recipe says."""
    from tidewheel.training.measure import Measured, measure

    place = existing_home(home)
    report = _run_with_rows(place, run_id)
    recipe = with_settings(Recipe.read(place.run(report.run_id) / "recipe.json"), settings)
    folder, dataset = place.store().load("datasets", report.datasets["train"].digest, DatasetManifest)
    dataset.expect_features(recipe.active_features)
    found = measure(folder, recipe.active_features, recipe.labels, recipe.train, steps, rounds, with_roofline)

    def show(found: Measured = found) -> None:
        lines = [
            ["rows", f"{found.rows:,}", f"of {report.run_id}; {found.encoded_bytes_a_row:.0f} bytes each, encoded"],
            ["encoded", f"{found.encoded_rows_per_second:,.0f}", "rows a second"],
            ["trained", f"{found.rows_per_second:,.0f}", f"rows a second, batches of {found.batch_size}, {found.device}"],
            ["waited for rows", f"{found.data_wait_share:.1%}", "of the time"],
        ]
        if found.roofline_rows_per_second is not None:
            lines.append(["roofline", f"{found.roofline_rows_per_second:,.0f}", "rows a second, random tensors in memory"])
            spread = ", ".join(f"{share:.3f}" for share in sorted(found.input_efficiencies))
            lines.append(["input efficiency", f"{found.input_efficiency:.3f}", f"real / roofline, median of {spread}"])
        lines.append(["memory", f"{found.peak_memory_bytes / 2**20:,.0f} MiB", "at its peak"])
        table(("what", "", ""), lines)

    emit(found, as_json, show)


def _run_with_rows(home: Home, run_id: str) -> RunReport:
    """The run asked for, or the newest that got as far as training rows."""
    found = [report for report in reports(home) if "train" in report.datasets and run_id in ("", report.run_id)]
    if not found:
        what = f"run {run_id}" if run_id else "a run"
        raise ConfigError(f"home {home.root}: has no training rows of {what}; make some with tidewheel run")
    return found[-1]
