"""Distill: the compact student that is served, published as one bundle."""

from __future__ import annotations

from pathlib import Path

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.bundle import Lineage
from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.steps import DistillPart
from tidewheel.ranker.bundle import BUNDLES, load_model
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.training.distill import distill


def main(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = DistillPart.parse(config, "distill")

    def key(job: Job) -> object:
        # The lineage names the recipe that first made these bytes; another section of it changing makes no new bundle.
        return [part.model_dump(mode="json", exclude={"recipe_digest"}), job.input_digests()]

    again = Again(entry=f"{__name__}:main", arguments={"config": config})
    run_step("distill", run_id, window_end, inputs, outputs, lambda job: work(part, job), key, again=again)


def work(part: DistillPart, job: Job) -> Result:
    folder, ranker = load_model(job.store, digest_of(job.input("ranker", ModelManifest)))
    train_folder, train = job.dataset("train")
    calibration_folder, calibration = job.dataset("calibration")
    for dataset in (train, calibration):
        dataset.expect_features(ranker.features)
    lineage = Lineage(
        run_id=job.run_id,
        recipe=part.recipe,
        recipe_digest=part.recipe_digest,
        window=train.window,
        datasets={"train": train.digest, "calibration": calibration.digest},
        teacher=ranker.teacher,
        generation=ranker.generation,
    )
    made = distill(
        folder,
        ranker,
        train_folder,
        calibration_folder,
        part.distill,
        part.labels,
        Path(job.inputs["profile"]),
        lineage,
        job.store,
        part.recipe,
        job.store.staging("bundle"),
        job.progress,
    )
    size = sum(entry.bytes for entry in made.bundle.files)
    cost = f"{made.latency.microseconds_per_candidate:.2f} us a candidate"
    return Result(
        documents={"bundle": made.bundle.to_json(), "latency": made.latency.to_json()},
        folders={"bundle": f"{BUNDLES}/{made.digest}"},
        summary=f"bundle {made.digest[:12]}, {size / 1e6:.1f} MB, {cost}",
    )
