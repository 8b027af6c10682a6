"""Sample: split by time, select by hash, weigh every row."""

from __future__ import annotations

from contextlib import ExitStack

from tidewheel.contracts.dataset import DatasetManifest
from tidewheel.contracts.steps import SamplePart
from tidewheel.logs.session import embedded_session
from tidewheel.sampling.dataframe import sample
from tidewheel.steps.job import DATASETS, Job, Result, run_step


def main(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = SamplePart.parse(config, "sample")

    def key(job: Job) -> object:
        return [part.model_dump(mode="json"), job.input_digests()]

    run_step("sample", run_id, window_end, inputs, outputs, lambda job: work(part, job), key)


def work(part: SamplePart, job: Job) -> Result:
    folder, source = job.dataset("impressions")
    staging = job.store.staging("splits")
    with ExitStack() as engines:
        with job.overhead():
            spark = engines.enter_context(embedded_session())
        splits = sample(spark, folder / "impressions", part.sample, part.window, source.window, source.labels, staging)
    documents, folders = {}, {}
    with job.overhead():
        for name, split in splits.items():
            manifest = DatasetManifest(
                kind=name,
                window=source.window,
                rows=split.rows,
                weight_sum=split.weight_sum,
                features=source.features,
                labels=source.labels,
                inputs={"impressions": source.digest},
            )
            digest, manifest = job.store.publish(DATASETS, staging / name, manifest)
            documents[name], folders[name] = manifest.to_json(), f"{DATASETS}/{digest}"
        staging.rmdir()
    counts = ", ".join(f"{splits[name].rows:,} {name}" for name in ("train", "calibration", "eval", "randomized"))
    return Result(documents=documents, folders=folders, summary=counts)
