from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tidewheel.contracts.placement import Executors, Placement, PodPlacement, StepPlacement
from tidewheel.contracts.recipe import Recipe

PAGE = (Path(__file__).parents[3] / "docs" / "operations" / "placement.md").read_text(encoding="utf-8")


def test_the_page_shows_a_placement_and_explains_every_key() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    steps, children = (Placement.model_validate(yaml.safe_load(block)["placement"]) for block in blocks)

    assert (steps.train.gpus, steps.train.memory, steps.ingest.tolerations[0].key) == (1, "32Gi", "spot")
    assert children.executors == Executors(count=4, cpu="4", memory="8Gi")
    explained = {
        key for line in PAGE.splitlines() if line.startswith("| `") for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert explained == set(StepPlacement.model_fields) | {"volume", "workers", "executors"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"memory": "16GB"}, "memory"),
        ({"cpu": "two"}, "cpu"),
        ({"priority": "high"}, "without a queue"),
        ({"tolerations": [{"key": "a", "value": "b"}]}, "operator Equal"),
        ({"gpu": 1}, "gpu"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"memory": "2Gi", "max_memory": "1000Mi"}, "max_memory 1000Mi is less"),
    ],
)
def test_a_placement_that_no_cluster_understands_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StepPlacement.model_validate(asked)


def test_pods_of_a_steps_own_need_a_folder_that_they_share_with_it() -> None:
    with pytest.raises(ValidationError, match="workers without a volume"):
        Placement(workers=PodPlacement())


def test_workers_are_placed_of_an_engine_that_has_some(quickstart: Recipe) -> None:
    told = quickstart.model_dump(mode="json", by_alias=True)
    told["placement"] |= {"workers": {"memory": "4Gi"}, "volume": "home"}
    with pytest.raises(ValidationError, match=r"placement.workers with train.engine in_process.*expected train.engine ray"):
        Recipe.model_validate(told)

    told["train"]["engine"] = "ray"
    assert Recipe.model_validate(told).placement.workers == PodPlacement(memory="4Gi")


def test_a_laptop_tries_once_without_other_pods_and_asks_for_the_same_otherwise() -> None:
    asked = Placement(train=StepPlacement(memory="64Gi", retries=7), workers=PodPlacement(), volume="home")
    once = asked.on_a_laptop()

    assert {placed.retries for placed in once.steps().values()} == {0}
    assert (once.workers, once.volume) == (None, "")
    assert once.train == asked.train.model_copy(update={"retries": 0})
