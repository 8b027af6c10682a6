"""Sample: split by time, select by hash, weigh every row."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from tidewheel.contracts.dataset import DATASETS, DatasetManifest
from tidewheel.contracts.steps import SamplePart
from tidewheel.pods.spark_pods import spark_pods
from tidewheel.sampling import Sampled, preview, sample
from tidewheel.steps.beside import Again
from tidewheel.steps.job import Job, Result, run_step
from tidewheel.steps.memory import ChildMemory


def main(config: str, run_id: str, window_end: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = SamplePart.parse(config, "sample")

    def key(job: Job) -> object:
        return [part.model_dump(mode="json"), job.input_digests()]

    again = Again(entry=f"{__name__}:main", arguments={"config": config})
    run_step("sample", run_id, window_end, inputs, outputs, lambda job: work(part, job), key, again=again)


def work(part: SamplePart, job: Job) -> Result:
    folder, source = job.dataset("impressions")
    staging = job.store.staging("splits")
    sampled = _sample(part, job, folder / "impressions", source, staging)
    documents, folders = {}, {}
    with job.overhead():
        for name, split in sampled.splits.items():
            manifest = DatasetManifest(
                kind=name,
                window=source.window,
                rows=split.rows,
                weight_sum=split.weight_sum,
                features=source.features,
                labels=source.labels,
                statistics=split.statistics,
                inputs={"impressions": source.digest},
                sampling=sampled.plan,
            )
            digest, manifest = job.store.publish(DATASETS, staging / name, manifest)
            documents[name], folders[name] = manifest.to_json(), f"{DATASETS}/{digest}"
        staging.rmdir()
    counts = ", ".join(f"{split.rows:,} {name}" for name, split in sampled.splits.items())
    excluded = sum(split.statistics["excluded"] for split in sampled.splits.values())
    outside = f", {excluded:,.0f} excluded" if excluded else ""
    return Result(documents=documents, folders=folders, summary=counts + outside)


def look(part: SamplePart, job: Job) -> tuple[DatasetManifest, Sampled]:
    """The impressions, and what `work` would make of them; publishes nothing."""
    folder, source = job.dataset("impressions")
    return source, preview(folder / "impressions", part.sample, part.window, source.window, source.labels)


def _sample(part: SamplePart, job: Job, impressions: Path, source: DatasetManifest, out: Path) -> Sampled:
    if part.sample.engine == "arrow":
        return sample(impressions, part.sample, part.window, source.window, source.labels, out)
    from tidewheel.logs.session import dataframe_session
    from tidewheel.sampling.dataframe import sample as sample_on_spark

    pods = spark_pods(os.environ, job.run_id, ChildMemory(job.memory, "executors"))
    if pods:
        pods.expect_shared(out)
    with ExitStack() as engines:
        with job.overhead():
            spark = engines.enter_context(dataframe_session(pods))
        return sample_on_spark(spark, impressions, part.sample, part.window, source.window, source.labels, out)
