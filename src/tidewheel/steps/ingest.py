"""Ingest: a log becomes the canonical impression table of the window."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.steps import IngestPart
from tidewheel.contracts.window import Window
from tidewheel.logs.ingest import ingest
from tidewheel.logs.session import embedded_session
from tidewheel.logs.sources import check_features
from tidewheel.steps.job import DATASETS, Job, Result, run_step
from tidewheel.steps.production import production_scorer, with_production
from tidewheel.world import World


def main(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = IngestPart.parse(config, "ingest")

    read: list[tuple[FeatureSpec, ...]] = []  # production is looked up once: what reuse is asked for is what is read

    def key(job: Job) -> object:
        read.append(prepare(part, job))
        window = Window.ending(job.window_end, part.window.days)
        columns = [feature.model_dump(mode="json") for feature in read[0]]
        return [part.model_dump(mode="json"), columns, str(window), fingerprint(log_folder(part, job), window)]

    run_step("ingest", run_id, window_end, inputs, outputs, lambda job: work(part, job, read[0]), key)


def work(part: IngestPart, job: Job, features: tuple[FeatureSpec, ...]) -> Result:
    window = Window.ending(job.window_end, part.window.days)
    staging = job.store.staging("impressions")
    with ExitStack() as engines:
        with job.overhead():
            spark = engines.enter_context(embedded_session())
        found = ingest(
            spark,
            source=part.source,
            labels=part.labels,
            features=features,
            config=part.ingest,
            window=window,
            out=staging,
            base=log_folder(part, job),
        )
    with job.overhead():
        manifest = DatasetManifest(
            kind="impressions",
            window=window,
            rows=found.rows,
            weight_sum=found.weight_sum,
            features=part.features,
            labels=tuple(label.name for label in part.labels),
            statistics=found.statistics,
        )
        digest, manifest = job.store.publish(DATASETS, staging, manifest)
    quarantined = f", {found.statistics['quarantined']:.0f} quarantined" if found.statistics["quarantined"] else ""
    repeats = found.statistics["exact_duplicates"]
    return Result(
        documents={"impressions": manifest.to_json()},
        folders={"impressions": f"{DATASETS}/{digest}"},
        summary=f"{found.rows:,} impressions, {repeats:,.0f} repeats removed{quarantined}",
    )


def prepare(part: IngestPart, job: Job) -> tuple[FeatureSpec, ...]:
    """Refuse features that leak, and let the built-in world live up to the window's end, ranked by production.

    Returns:
        The features to read: the model's, and those that only production needs to be compared with it.
    """
    bundle, scorer = production_scorer(job.store, part.recipe)
    features = with_production(part.features, scorer.bundle if scorer else None)
    check_features(part.source, features, part.labels, part.ingest.counters)
    if isinstance(part.source, WorldSource):
        world = World(part.source, part.labels, part.ingest.counters, features, job.home.world(part.recipe))
        world.ensure_log(job.window_end, scorer, bundle)
    return features


def log_folder(part: IngestPart, job: Job) -> Path:
    return job.home.world(part.recipe) if isinstance(part.source, WorldSource) else Path(part.source.path)


def fingerprint(folder: Path, window: Window) -> list[tuple[str, int, int]]:
    """Name, bytes and time of every Parquet file of the log that this window may read; days after it do not matter."""
    files = sorted(folder.rglob("*.parquet"))
    first_unread = f"date={window.end.date().isoformat()}"
    read = [path for path in files if not (path.parent.name.startswith("date=") and path.parent.name >= first_unread)]
    return [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in read]
