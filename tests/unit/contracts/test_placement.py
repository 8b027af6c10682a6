from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tidewheel.contracts.placement import Placement, StepPlacement

PAGE = (Path(__file__).parents[3] / "docs" / "operations" / "placement.md").read_text(encoding="utf-8")


def test_the_page_shows_a_placement_and_explains_every_key() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    shown = Placement.model_validate(yaml.safe_load(block)["placement"])

    assert (shown.train.gpus, shown.train.memory, shown.ingest.tolerations[0].key) == (1, "32Gi", "spot")
    explained = {
        key for line in PAGE.splitlines() if line.startswith("| `") for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert explained == set(StepPlacement.model_fields)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"memory": "16GB"}, "memory"),
        ({"cpu": "two"}, "cpu"),
        ({"priority": "high"}, "without a queue"),
        ({"tolerations": [{"key": "a", "value": "b"}]}, "operator Equal"),
        ({"gpu": 1}, "gpu"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
    ],
)
def test_a_placement_that_no_cluster_understands_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StepPlacement.model_validate(asked)


def test_a_laptop_tries_once_and_asks_for_the_same_otherwise() -> None:
    asked = Placement(train=StepPlacement(memory="64Gi", retries=7))
    once = asked.without_retries()

    assert {getattr(once, step).retries for step in Placement.model_fields} == {0}
    assert once.train == asked.train.model_copy(update={"retries": 0})
