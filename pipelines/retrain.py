"""One turn of the wheel as a Kubeflow pipeline: the same graph runs on a laptop and on a cluster."""

from collections.abc import Mapping

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.deploy.component import deploy
from components.distill.component import distill
from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.sample.component import sample
from components.train.component import train
from components.validate_data.component import validate_data
from pipelines.conclude import conclude
from pipelines.placement import place
from tidewheel.contracts.placement import Placement
from tidewheel.contracts.recipe import pipeline_name


def retrain_pipeline(recipe: str, parts: Mapping[str, str], placement: Placement) -> BaseComponent:
    """The flow for one recipe; `parts` maps each step to its part of the recipe as JSON, fixed at compile time."""

    @dsl.pipeline(name=pipeline_name(recipe), description="ingest, sample, validate_data, train, distill, evaluate, deploy")
    def retrain(window_end: str, reason: str = "scheduled", dry_run: bool = False) -> None:
        run = {"run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "window_end": window_end}

        end = conclude(config=parts["conclude"], dry_run=dry_run, **run)
        with dsl.ExitHandler(end):
            log = ingest(config=parts["ingest"], **run)
            rows = sample(config=parts["sample"], impressions=log.outputs["impressions"], **run)
            splits = {"train": rows.outputs["train"], "calibration": rows.outputs["calibration"]}
            held_out = {"evaluation": rows.outputs["evaluation"], "randomized": rows.outputs["randomized"]}
            data = validate_data(config=parts["validate_data"], **splits, **held_out, **run)
            baseline = data.outputs["baseline"]
            model = train(config=parts["train"], train=splits["train"], baseline=baseline, **run)
            ranker = model.outputs["ranker"]
            student = distill(config=parts["distill"], ranker=ranker, profile=data.outputs["profile"], **splits, **run)
            bundle = student.outputs["bundle"]
            judged = evaluate(config=parts["evaluate"], bundle=bundle, ranker=ranker, baseline=baseline, **held_out, **run)
            with dsl.If(judged.outputs["Output"] == True, name="accepted"):  # noqa: E712 (a channel, not a bool)
                released = deploy(
                    config=parts["deploy"],
                    reason=reason,
                    dry_run=dry_run,
                    bundle=bundle,
                    evaluation=held_out["evaluation"],
                    baseline=baseline,
                    **run,
                )
            tasks = {
                "ingest": log,
                "sample": rows,
                "validate_data": data,
                "train": model,
                "distill": student,
                "evaluate": judged,
                "deploy": released,
                "conclude": end,
            }
            for step, task in tasks.items():
                task.set_caching_options(False)  # KFP believes a cache entry whose bytes are gone; steps check the bytes
                place(task, step, recipe, placement)

    return retrain
