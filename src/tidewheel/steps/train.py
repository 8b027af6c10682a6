"""Train: the multi-task ranker, with the pinned teacher when there is one."""

from __future__ import annotations

import os

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.evidence import Baseline
from tidewheel.contracts.learning import TrainConfig
from tidewheel.contracts.placement import Placed
from tidewheel.contracts.steps import TrainPart
from tidewheel.contracts.training import TrainingReport
from tidewheel.pods.own import own_pod
from tidewheel.pods.rayjobs import RayJobDriver
from tidewheel.ranker.bundle import MODELS, load_bundle
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.memory import ChildMemory
from tidewheel.training.driver import Driver
from tidewheel.training.train import train


def main(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = TrainPart.parse(config, "train")

    def key(job: Job) -> object:
        baseline = job.input("baseline", Baseline)
        return [part.model_dump(mode="json"), job.input_digests()["train"], baseline.teaching.bundle]

    again = Again(entry=f"{__name__}:main", arguments={"config": config})
    run_step("train", run_id, window_end, inputs, outputs, lambda job: work(part, job), key, again=again)


def work(part: TrainPart, job: Job) -> Result:
    baseline = job.input("baseline", Baseline)
    folder, dataset = job.dataset("train")
    dataset.expect_features(part.features)
    taught_by, generation = baseline.teaching.bundle, baseline.teaching.generation
    teacher = load_bundle(job.store, taught_by) if taught_by else None
    # Encoded rows are found again by a later run of the same work, whatever that run is called.
    rows = digest_of(
        [[f.model_dump(mode="json") for f in part.features], [label.name for label in part.labels], dataset.digest]
    )
    told: list[TrainingReport] = []
    staging = job.store.staging("ranker")
    manifest = train(
        folder,
        part.features,
        part.labels,
        part.train,
        teacher,
        staging,
        job.progress,
        job.home.scratch / rows,
        job.store,
        told.append,
        driver_of(part.train, job),
    )
    manifest = manifest.model_copy(
        update={
            "generation": 0 if generation is None else generation + 1,
            "inputs": {"train": dataset.digest},
        }
    )
    with job.overhead():
        digest, manifest = job.store.publish(MODELS, staging, manifest)
    taught = f"taught by {taught_by[:12]}" if taught_by else f"no teacher: {baseline.teaching.reason}"
    return Result(
        documents={"ranker": manifest.to_json(), "training": told[0].to_json()},
        folders={"ranker": f"{MODELS}/{digest}"},
        summary=f"{dataset.rows:,} rows, {taught}",
    )


def driver_of(config: TrainConfig, job: Job) -> Driver | None:
    """A RayJob where the recipe places workers in pods of their own; None: workers live in this pod, or there are none."""
    placed = Placed.of(os.environ)
    if placed is None or placed.workers is None or config.engine != "ray":
        return None
    pod = own_pod(os.environ)
    if pod is None:
        return None
    sizes = ChildMemory(job.memory, "workers")
    sized = placed.model_copy(update={"workers": sizes.sized(placed.workers, config.num_workers)})
    return RayJobDriver(pod, sized, job.run_id, config.num_workers, config.max_failures, sizes)
