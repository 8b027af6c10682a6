"""The network's description: what it costs, which of its columns are context, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from tidewheel.contracts.network import NetworkConfig
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.ranker.encoding import Encoders, Moments
from tidewheel.ranker.network import Network, multiply_adds


def network(num_numbers: int = 4, **config: object) -> Network:
    """Two categorical features of 3 columns and 4 numbers: X = 10 columns, of which 3 + 1 are context. Two labels."""
    sizes = {"embedding_dim": 3, "cross_rank": 4, "experts": 2, "hidden": (8, 6)} | config
    return Network(
        config=NetworkConfig.model_validate(sizes),
        sizes=(5, 7),
        num_numbers=num_numbers,
        labels=("click", "like"),
        context_ids=(1,),
        context_numbers=(0,),
    )


CROSS = 2 * (10 * 4 + 4 * 10)  # two layers
EXPERT = 10 * 8 + 8 * 6
HEADS_AND_WIDE = 2 * 6 + 10 * 2


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({}, CROSS + 2 * EXPERT + 10 * 2 * 2 + 2 * 2 * 6 + HEADS_AND_WIDE),
        ({"cross_layers": 0, "experts": 1, "hidden": ()}, 10 * 2 * 1 + 2 * 1 * 10 + 2 * 10 + 10 * 2),
        ({"cross_rank": 50}, 2 * 2 * 10 * 10 + 2 * EXPERT + 10 * 2 * 2 + 2 * 2 * 6 + HEADS_AND_WIDE),  # rank at most X
        ({"cross": "parallel"}, CROSS + 10 * 2 + 2 * EXPERT + 10 * 2 * 2 + 2 * 2 * 6 + HEADS_AND_WIDE),
        # The gate reads all 10 columns and scales 6.
        (
            {"context": "epnet", "context_width": 7},
            10 * 7 + 7 * 6 + CROSS + 2 * EXPERT + 10 * 2 * 2 + 2 * 2 * 6 + HEADS_AND_WIDE,
        ),
        # One level: 2 shared + 2 labels x 3 own = 8 experts, two gates.
        (
            {"mixture": "ple", "task_experts": 3, "levels": 1},
            CROSS + 8 * EXPERT + 2 * 10 * 8 + 2 * 8 * 6 + HEADS_AND_WIDE,
        ),
        # Two levels: 2 + 2 x 1 = 4 experts each; the first has three gates, the second reads 6 columns.
        (
            {"mixture": "ple"},
            CROSS + 4 * EXPERT + 3 * 4 * (10 + 6) + 4 * (6 * 8 + 8 * 6) + 2 * 4 * (6 + 6) + HEADS_AND_WIDE,
        ),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(config: dict[str, object], want: int) -> None:
    assert multiply_adds(network(**config)) == want


def test_the_cost_of_a_network_is_told_without_torch() -> None:
    code = "import sys, tidewheel.ranker.network; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_columns_of_context_features_are_found_indicators_included() -> None:
    features = [
        {"id": 1, "name": "item_id", "kind": "hashed", "entity": "item", "num_buckets": 9},
        {"id": 2, "name": "hour", "kind": "vocabulary", "entity": "context"},
        {"id": 3, "name": "price", "kind": "numeric", "entity": "item"},
        {"id": 4, "name": "speed", "kind": "numeric", "entity": "context"},
    ]
    moments = Moments(mean=0.0, deviation=1.0, has_nulls=True)
    encoders = Encoders(
        features=tuple(FeatureSpec.model_validate(feature) for feature in features),
        vocabularies={"hour": ("1", "2")},
        moments={"price": moments, "speed": moments},
    )
    found = Network.of(NetworkConfig(embedding_dim=2), encoders, ("click",))
    assert (found.context_ids, found.context_numbers) == ((1,), (1, 3))
    assert found.context_columns == (2, 3, 5, 7)  # 2 columns an id, then price, speed and their indicators


def test_a_network_of_before_these_choices_is_read_as_what_it_was() -> None:
    text = """{"config": {"cross_layers": 2, "cross_rank": 32, "dropout": 0.1, "embedding_dim": 8, "experts": 3,
        "hidden": [128, 64]}, "labels": ["click"], "num_numbers": 5, "schema": "tidewheel/network/v1", "sizes": [50, 20]}"""
    found = Network.parse(text, "network.json")
    assert found == Network(config=NetworkConfig(), sizes=(50, 20), num_numbers=5, labels=("click",))
    assert (found.config.cross, found.config.mixture, found.config.context) == ("stacked", "mmoe", "none")


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({"task_experts": 3}, "task_experts is 3 and mixture is mmoe; expected mixture ple, or no task_experts"),
        ({"levels": 1}, "levels is 1 and mixture is mmoe"),
        ({"context_width": 8}, "context_width is 8 and context is none; expected context epnet"),
        ({"cross": "parallel", "cross_layers": 0}, "cross is parallel and cross_layers is 0"),
        ({"hidden": ()}, "hidden is empty with mixture mmoe and experts 3"),
        ({"hidden": (), "experts": 1, "mixture": "ple"}, "hidden is empty with mixture ple"),
    ],
)
def test_sizes_of_blocks_that_are_not_chosen_are_refused(config: dict[str, object], want: str) -> None:
    with pytest.raises(ValidationError, match=want):
        NetworkConfig.model_validate(config)


def test_a_context_gate_without_context_is_refused() -> None:
    config = NetworkConfig(context="epnet")
    with pytest.raises(ValidationError, match="0 of 45 columns are of context features; expected some, not all"):
        Network(config=config, sizes=(5,) * 5, num_numbers=5, labels=("click",))


@pytest.mark.parametrize("columns", [(2,), (-1,), (1, 0), (0, 0)])
def test_context_columns_that_are_not_there_are_refused(columns: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match=r"context_ids is .* expected different columns below 2, in order"):
        Network(config=NetworkConfig(), sizes=(5, 7), num_numbers=0, labels=("click",), context_ids=columns)
