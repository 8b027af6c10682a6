"""Verbs for a new project: init, doctor."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path

from tidewheel.cli.output import emit, plain, short, table
from tidewheel.cli.recipes import load_recipe
from tidewheel.contracts.base import Contract
from tidewheel.contracts.recipe import HybridSource, Recipe, WorldSource
from tidewheel.contracts.window import iso
from tidewheel.errors import ConfigError, TidewheelError
from tidewheel.store.home import Home

ENGINES = ("kfp", "torch", "pyspark", "pysail", "great-expectations", "onnxruntime", "mlflow")
MIN_FREE_BYTES = 2 * 10**9


class Check(Contract):
    """One thing that was looked at. `expected` and `remedy` say what to do where it is not well."""

    name: str
    is_well: bool
    found: str
    expected: str = ""
    remedy: str = ""


def init(directory: Path, as_json: bool) -> None:
    """Write a commented recipe and a README that works."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory}: is not an empty folder; choose another, nothing was written")
    templates = resources.files("tidewheel.cli") / "templates"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("recipe.yaml", "README.md"):
            (directory / name).write_text((templates / name).read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written ({error.strerror})") from error
    written = [str(directory / "recipe.yaml"), str(directory / "README.md")]
    emit({"written": written}, as_json, lambda: print("\n".join([*written, f"next: tidewheel run --recipe {written[0]}"])))


def doctor(recipe: Path | None, data: Path | None, home: str, as_json: bool) -> int:
    """Check this machine, the home and, when named, a recipe and its log. Exit code 1 when something is not well."""
    place = Home.resolve(Path(home) if home else None)
    checks = [_python(), *map(_engine, ENGINES), _disk(place), guarded("home", lambda: _home(place))]
    if place.root.is_dir():
        checks += [guarded("ledger", lambda: _ledger(place)), guarded("production", lambda: _production(place))]
    if recipe is not None:
        checks.append(guarded("recipe", lambda: _recipe(recipe, data)))
        checks.append(guarded("log", lambda: _log(load_recipe(recipe, (), data), place)))
        checks += _target(recipe, data)
    findings = _findings(recipe, data)

    def show() -> None:
        rows = [["[green]✓[/]" if c.is_well else "[red]✗[/]", c.name, plain(c.found), plain(c.remedy)] for c in checks]
        table(("", "check", "found", "remedy"), rows)
        for finding in findings:
            wanted = "" if finding.is_well else f"; expected {finding.expected}: {finding.remedy}"
            print(f"{'✓' if finding.is_well else '✗'} {finding.name}: {finding.found}{wanted}")

    emit({"checks": [check.model_dump() for check in (*checks, *findings)]}, as_json, show)
    return 0 if all(check.is_well for check in (*checks, *findings)) else 1


def guarded(name: str, look: Callable[[], Check]) -> Check:
    """A check that fails with a tidewheel error is not well; its message holds the remedy."""
    try:
        return look()
    except TidewheelError as error:
        return Check(name=name, is_well=False, found=str(error), remedy="as it says")


def _check(name: str, is_well: bool, found: str, remedy: str) -> Check:
    return Check(name=name, is_well=is_well, found=found, remedy="" if is_well else remedy)


def _python() -> Check:
    return _check("python", (3, 11) <= sys.version_info[:2] <= (3, 12), platform.python_version(), "use Python 3.11 or 3.12")


def _engine(name: str) -> Check:
    try:
        return Check(name=name, is_well=True, found=metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(name=name, is_well=False, found="not installed", remedy="pip install 'tidewheel[local]'")


def _disk(home: Home) -> Check:
    free = shutil.disk_usage(_nearest(home)).free
    return _check("disk", free >= MIN_FREE_BYTES, f"{free / 1e9:.0f} GB free", "free 2 GB or choose --home")


def _home(home: Home) -> Check:
    folder = _nearest(home)
    is_well = folder.is_dir() and os.access(folder, os.W_OK)
    return _check("home", is_well, str(home.root), "choose a folder you can write with --home")


def _nearest(home: Home) -> Path:
    """The home, or the folder that it would be made in."""
    return next(folder for folder in (home.root, *home.root.parents) if folder.exists())


def _ledger(home: Home) -> Check:
    from tidewheel.registry.ledger import Ledger, recipes

    store = home.store()
    counts = [f"{name}: {len(Ledger(store, name).entries())} entries" for name in recipes(store)]
    return Check(name="ledger", is_well=True, found=", ".join(counts) or "no decision yet")


def _production(home: Home) -> Check:
    from tidewheel.ranker.bundle import load_bundle
    from tidewheel.registry.ledger import Ledger, recipes

    store = home.store()
    serving = {name: Ledger(store, name).production() for name in recipes(store)}
    for digest in filter(None, serving.values()):
        load_bundle(store, digest)
    found = ", ".join(f"{name}: {short(digest)}, every byte as promised" for name, digest in serving.items() if digest)
    return Check(name="production", is_well=True, found=found or "none yet")


def _recipe(path: Path, data: Path | None) -> Check:
    recipe = load_recipe(path, (), data)
    return Check(
        name="recipe", is_well=True, found=f"{recipe.name}, {len(recipe.active_features)} features, {len(recipe.labels)} labels"
    )


def _target(path: Path, data: Path | None) -> list[Check]:
    from tidewheel.cli import target

    try:
        return target.checks(load_recipe(path, (), data))
    except TidewheelError:  # the recipe's own check says so
        return []


def _findings(recipe: Path | None, data: Path | None) -> list[Check]:
    """What is well and what is not with the hybrid log in `data`; nothing where `data` is another log, which a recipe reads.

    Raises:
        ConfigError: it is no hybrid log, and no recipe says how to read it.
    """
    from tidewheel.logs.hybrid_check import check, is_hybrid_log

    if data is None:
        return []
    if not is_hybrid_log(data):
        if recipe is None:
            raise ConfigError(
                f"--data {data}: has no backend/ or frontend/; a log that is no hybrid log needs --recipe to be read"
            )
        return []
    try:
        source = load_recipe(recipe, (), data).source if recipe is not None else None
    except TidewheelError:  # the recipe's own check says so
        source = None
    found = check(data, source.skip_days if isinstance(source, HybridSource) else ())
    return [Check(name=f.place, is_well=f.is_well, found=f.found, expected=f.expected, remedy=f.remedy) for f in found]


def _log(recipe: Recipe, home: Home) -> Check:
    from tidewheel.logs.sources import check_features, time_span

    check_features(recipe.source, recipe.active_features, recipe.labels, recipe.ingest.counters)
    if isinstance(recipe.source, WorldSource):
        return Check(name="log", is_well=True, found="the built-in world makes its own")
    span = time_span(recipe.source, Path(recipe.source.path))
    if span is None:
        return Check(name="log", is_well=False, found="no impressions", remedy="put the log's Parquet files there")
    return Check(name="log", is_well=True, found=f"impressions from {iso(span[0])} to {iso(span[1])}")
