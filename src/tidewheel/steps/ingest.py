"""Ingest: a log becomes the canonical impression table of the window."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from tidewheel.contracts.dataset import DATASETS, DatasetManifest, LogDay
from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.steps import IngestPart
from tidewheel.contracts.window import Window
from tidewheel.errors import ContractError
from tidewheel.logs.adapter import Request, reach_days
from tidewheel.logs.ingest import IngestResult, ingest, inputs_of, request_of
from tidewheel.logs.session import dataframe_session
from tidewheel.pods.spark_pods import spark_pods
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.living import Serving, readable
from tidewheel.steps.memory import ChildMemory
from tidewheel.steps.production import with_production
from tidewheel.store.store import Store

DAYS = "days"


def main(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = IngestPart.parse(config, "ingest")

    read: list[tuple[FeatureSpec, ...]] = []  # production is looked up once: what reuse is asked for is what is read

    def key(job: Job) -> object:
        read.append(prepare(part, job))
        window = Window.ending(job.window_end, part.window.days)
        columns = [feature.model_dump(mode="json") for feature in read[0]]
        request = asked_of(part, job, read[0])
        return [part.model_dump(mode="json"), columns, str(window), inputs_of(request, window)]

    again = Again(entry=f"{__name__}:main", arguments={"config": config})
    run_step("ingest", run_id, window_end, inputs, outputs, lambda job: work(part, job, read[0]), key, again=again)


def work(part: IngestPart, job: Job, features: tuple[FeatureSpec, ...]) -> Result:
    window = Window.ending(job.window_end, part.window.days)
    staging = job.store.staging("impressions")
    pods = spark_pods(os.environ, job.run_id, ChildMemory(job.memory, "executors"))
    if pods:
        pods.expect_shared(staging)
    with ExitStack() as engines:
        with job.overhead():
            spark = engines.enter_context(dataframe_session(pods))
        found = ingest(
            spark,
            source=part.source,
            labels=part.labels,
            features=features,
            config=part.ingest,
            window=window,
            out=staging,
            base=log_folder(part, job),
            label_horizon=horizon(part),
            cache=StoredDays(job.store),
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
            watermark=found.watermark,
        )
        digest, manifest = job.store.publish(DATASETS, staging, manifest)
    return Result(
        documents={"impressions": manifest.to_json()},
        folders={"impressions": f"{DATASETS}/{digest}"},
        summary=summary_of(found),
    )


def summary_of(found: IngestResult) -> str:
    """What came in, and what did not become an impression, in a few words."""
    counts = found.statistics
    repeats = counts["exact_duplicates"] + counts.get("repeated_events", 0.0)
    words = f"{found.rows:,} impressions, {repeats:,.0f} repeats removed"
    for name, shown in (("quarantined", "quarantined"), ("immature", "without their labels yet")):
        words += f", {counts[name]:,.0f} {shown}" if counts[name] else ""
    return words


class StoredDays:
    """Judged days in the store: a record from what a day was made of to the folder that holds it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, key: str) -> tuple[Path, LogDay] | None:
        digest = self._store.get(f"judged/{key}.json")
        if digest is None:
            return None
        try:
            return self._store.load(DAYS, digest, LogDay)
        except ContractError:
            return None  # gone or damaged: judged again

    def keep(self, key: str, folder: Path, day: LogDay) -> tuple[Path, LogDay]:
        digest, _ = self._store.publish(DAYS, folder, day)
        self._store.put(f"judged/{key}.json", digest)
        return self._store.load(DAYS, digest, LogDay)


def prepare(part: IngestPart, job: Job) -> tuple[FeatureSpec, ...]:
    """Refuse features that leak, and let the built-in world live up to the window's end, ranked by whom the ledger says.

    Returns:
        The features to read: the model's, and those that only production needs to be compared with it.
    """
    serving = Serving.now(job.store, part.recipe)
    wanted = with_production(part.features, serving.production.bundle if serving.production else None)
    # What only production takes and the log has lost, `evaluate` will miss: it must not keep a new model from being trained.
    request = None if isinstance(part.source, WorldSource) else asked_of(part, job, wanted)
    features = readable(part, request, serving.production)
    if isinstance(part.source, WorldSource):
        # The last rows' labels come after the window, and may come late.
        reach = timedelta(days=reach_days(horizon(part), part.ingest.max_lateness_days))
        serving.let_live(serving.world(part, job.home), job.window_end + reach)
    return features


def asked_of(part: IngestPart, job: Job, features: tuple[FeatureSpec, ...]) -> Request:
    """What this window asks of the log, for these features.

    Raises:
        ConfigError: the data folder is missing.
    """
    window = Window.ending(job.window_end, part.window.days)
    return request_of(part.source, part.labels, features, part.ingest, window, log_folder(part, job), horizon(part))


def log_folder(part: IngestPart, job: Job) -> Path:
    return job.home.world(part.recipe) if isinstance(part.source, WorldSource) else Path(part.source.path)


def horizon(part: IngestPart) -> timedelta:
    return timedelta(hours=part.window.label_horizon_hours)
