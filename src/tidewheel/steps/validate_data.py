"""Validate data: the contract, and drift against production's training rows. Rejected data stops the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.evidence import Baseline, DataReport, Profile, WindowRecord
from tidewheel.contracts.ledger import LedgerEntry, earlier_productions, production_after
from tidewheel.contracts.schema import FeatureSpec, feature_columns
from tidewheel.contracts.steps import ValidatePart
from tidewheel.contracts.teacher import choose_teacher
from tidewheel.contracts.window import Window, iso
from tidewheel.errors import RejectedError
from tidewheel.pods.spark_pods import spark_pods
from tidewheel.quality.expectations import contract_columns, library
from tidewheel.quality.rows import ParquetRows, Rows
from tidewheel.quality.validate import Past, is_for_spark, validate
from tidewheel.ranker.bundle import BUNDLES, OpenBundle, load_bundle
from tidewheel.ranker.columns import columns_of
from tidewheel.ranker.scorer import Scorer
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.release import expect_open
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.memory import ChildMemory
from tidewheel.steps.teaching import disagreement_of, misfit_of, randomized_rows
from tidewheel.store.store import Store

if TYPE_CHECKING:
    from tidewheel.quality.spark import Engine

SPLITS = ("train", "calibration", "eval")


def main(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = ValidatePart.parse(config, "validate_data")

    # Read once: what is looked up for reuse is what is compared with.
    pinned: list[tuple[Baseline, list[WindowRecord]]] = []

    def key(job: Job) -> object:
        window = job.input("eval", DatasetManifest).window
        baseline, trailing = pin_baseline(part, job, window), trailing_windows(job.store, part, window)
        pinned.append((baseline, trailing))
        compared = [baseline.model_dump(mode="json"), [record.model_dump(mode="json") for record in trailing]]
        return [part.model_dump(mode="json"), job.input_digests(), *compared]

    again = Again(entry=f"{__name__}:main", arguments={"config": config})
    run_step("validate_data", run_id, window_end, inputs, outputs, lambda job: work(part, job, *pinned[0]), key, again=again)


def work(part: ValidatePart, job: Job, baseline: Baseline, trailing: list[WindowRecord]) -> Result:
    columns = contract_columns(part.features, [label.name for label in part.labels])
    splits = {name: rows_of(job, name, columns) for name in SPLITS}
    is_large = any(is_for_spark(rows, part.validate_data) for rows in splits.values())
    with job.overhead():
        library(with_spark=is_large)
    past = Past(trailing=trailing)
    if baseline.production:
        bundle = load_bundle(job.store, baseline.production)
        held_out = rows_of(job, "eval", [*columns, *feature_columns(bundle.manifest.features)])
        past = Past(profile_of(bundle, part.features), lambda: production_scores(bundle, held_out), trailing)
    window = job.input("eval", DatasetManifest).window
    engine = spark_on_pods(job) if is_large else None
    report, profile = validate(splits, part.features, part.labels, part.validate_data, window, past, job.progress, engine)
    if not report.verdict.is_successful:
        reject(job, report)
    job.store.put(record_name(part.recipe, window), report.window.to_json())
    return Result(
        documents={
            "verdict": report.verdict.to_json(),
            "profile": profile.to_json(),
            "baseline": baseline.to_json(),
            "data": report.to_json(),
        },
        summary=report.verdict.explain(),
    )


def spark_on_pods(job: Job) -> Engine | None:
    """What opens the engine of large splits where the recipe asks for executors; None: it is in this pod."""
    pods = spark_pods(os.environ, job.run_id, ChildMemory(job.memory, "executors"))
    if pods is None:
        return None
    from tidewheel.logs.session import session_on

    pods.expect_shared(job.dataset("train")[0])
    return lambda: session_on(pods)


def profile_of(production: OpenBundle, features: tuple[FeatureSpec, ...]) -> Profile:
    """What production's training rows were like, of the features that the new model will use: a deprecated one may drift."""
    known = Profile.read(production.profile)
    used = {feature.name for feature in features}
    return known.model_copy(
        update={
            field: {name: value for name, value in getattr(known, field).items() if name in used}
            for field in ("numeric_edges", "categorical_values", "shares", "quantiles")
        }
    )


def reject(job: Job, report: DataReport) -> None:
    """Keep what was found for the reports, then stop the run.

    Raises:
        RejectedError: always.
    """
    job.keep("verdict", report.verdict)
    job.keep("data", report)
    raise RejectedError(f"data rejected: {report.verdict.explain()}")


def rows_of(job: Job, name: str, columns: list[str]) -> ParquetRows:
    """A split, read a column at a time."""
    folder, manifest = job.dataset(name)
    return ParquetRows([folder / entry.path for entry in manifest.files if entry.path.endswith(".parquet")], columns)


def production_scores(bundle: OpenBundle, rows: Rows) -> Mapping[str, np.ndarray]:
    """Production's probabilities, label -> (B,); none where the rows lack a feature of it, which drift reports."""
    features = bundle.manifest.features
    names = feature_columns(features)
    if set(names) - set(rows.column_names):
        return {}
    table = pa.table({name: rows[name] for name in names})
    return Scorer(bundle, threads=2).score(columns_of(table, features))


def trailing_windows(store: Store, part: ValidatePart, window: Window) -> list[WindowRecord]:
    """The last windows of this recipe that passed and end before this one, oldest first."""
    found = [WindowRecord.parse(text, name) for name in store.names(_folder(part.recipe)) if (text := store.get(name))]
    earlier = sorted((record for record in found if record.window.end < window.end), key=lambda record: record.window.end)
    return earlier[-part.validate_data.trailing_windows :]


def record_name(recipe: str, window: Window) -> str:
    return f"{_folder(recipe)}/{iso(window.end).replace(':', '')}.json"


def _folder(recipe: str) -> str:
    return f"windows/{recipe}"


def pin_baseline(part: ValidatePart, job: Job, window: Window) -> Baseline:
    """Production and teacher as the ledger has them now, with every byte of theirs checked.

    Raises:
        ContractError: a bundle that the ledger names is damaged, or production is gone.
        PausedError: retraining is paused. Whoever starts runs without `tidewheel run` learns of it here.
    """
    entries = Ledger(job.store, part.recipe).entries()
    expect_open(entries, part.recipe)
    digest = production_after(entries)
    opened = cache(lambda bundle: load_bundle(job.store, bundle))  # production mostly is the teacher too
    if digest:
        opened(digest)
    labels = [label.name for label in part.labels]
    randomized, _ = job.dataset("randomized")

    def is_kept(bundle: str) -> bool:
        return job.store.manifest(BUNDLES, bundle) is not None

    def misfit(entry: LedgerEntry) -> str | None:
        if not is_kept(entry.bundle):
            return "its bytes are in the store no more"
        bundle, min_auc = opened(entry.bundle), part.teaching.min_randomized_auc
        found = misfit_of(bundle, part.features, labels)
        if found or not min_auc:
            return found
        return disagreement_of(bundle, randomized_rows(randomized, bundle, labels), labels, min_auc)

    teaching = choose_teacher(entries, part.teaching, window.end, misfit)
    earlier = tuple(bundle for bundle in earlier_productions(entries) if is_kept(bundle))[: part.releases]
    return Baseline(production=digest, earlier=earlier, teaching=teaching, ledger_number=len(entries))
