"""What a ranker is built from, and what one candidate costs. Imports no torch: whoever plans capacity needs none."""

from __future__ import annotations

import itertools
from typing import Literal, Self

from pydantic import Field, model_validator

from tidewheel.contracts.base import Contract
from tidewheel.contracts.network import NetworkConfig
from tidewheel.contracts.schema import Entity
from tidewheel.ranker.encoding import Encoders, SequenceColumns


class Network(Contract):
    """All that is needed to rebuild the network around its weights.

    Its input has X = F_c * D + F_n + Q * D columns: D for each of the F_c categorical features, then the F_n numbers, then D
    for each of the Q sequences.
    """

    schema_: Literal["tidewheel/network/v1"] = Field(default="tidewheel/network/v1", alias="schema")
    config: NetworkConfig
    sizes: tuple[int, ...]  # (F_c) ids of each categorical feature
    num_numbers: int = Field(ge=0)  # F_n
    labels: tuple[str, ...] = Field(min_length=1)
    context_ids: tuple[int, ...] = ()  # which of the F_c are of context features
    context_numbers: tuple[int, ...] = ()  # which of the F_n are, null indicators included
    sequences: tuple[SequenceColumns, ...] = ()  # (Q) behind the F_c columns of ids, and behind the F_n numbers

    @classmethod
    def of(cls, config: NetworkConfig, encoders: Encoders, labels: tuple[str, ...]) -> Network:
        context = {feature.name for feature in encoders.features if feature.entity is Entity.CONTEXT}
        numbers = [*(feature.name for feature in encoders.numeric), *encoders.indicators]
        return cls(
            config=config,
            sizes=encoders.sizes,
            num_numbers=encoders.num_numbers,
            labels=labels,
            context_ids=tuple(at for at, feature in enumerate(encoders.categorical) if feature.name in context),
            context_numbers=tuple(at for at, name in enumerate(numbers) if name in context),
            sequences=encoders.sequences,
        )

    @property
    def width(self) -> int:
        """X."""
        return (len(self.sizes) + len(self.sequences)) * self.config.embedding_dim + self.num_numbers

    @property
    def input_widths(self) -> tuple[int, int]:
        """How many columns `ids` and `numbers` have, items of sequences included."""
        items = sum(sequence.length for sequence in self.sequences)
        return len(self.sizes) + items, self.num_numbers + items

    @property
    def context_columns(self) -> tuple[int, ...]:
        """Which of the X columns are of context features, in order."""
        dim = self.config.embedding_dim
        embedded = (at * dim + column for at in self.context_ids for column in range(dim))
        return (*embedded, *(len(self.sizes) * dim + at for at in self.context_numbers))

    @model_validator(mode="after")
    def _columns_are_there(self) -> Self:
        for name, columns, count in (
            ("context_ids", self.context_ids, len(self.sizes)),
            ("context_numbers", self.context_numbers, self.num_numbers),
        ):
            if list(columns) != sorted({at for at in columns if 0 <= at < count}):
                raise ValueError(f"{name} is {list(columns)}; expected different columns below {count}, in order")
        ids, numbers = len(self.sizes), self.num_numbers
        for sequence in self.sequences:
            if (sequence.first_id, sequence.first_number) != (ids, numbers) or sequence.of >= len(self.sizes):
                raise ValueError(
                    f"sequence {sequence.name} is of column {sequence.of} and begins at id {sequence.first_id} and number "
                    f"{sequence.first_number}; expected a column below {len(self.sizes)}, id {ids} and number {numbers}"
                )
            ids, numbers = ids + sequence.length, numbers + sequence.length
        if self.config.context == "epnet" and not 0 < len(self.context_columns) < self.width:
            raise ValueError(
                f"config.context is epnet and {len(self.context_columns)} of {self.width} columns are of context features; "
                "expected some, not all: declare features with entity context, or use context none"
            )
        return self


def multiply_adds(network: Network) -> int:
    """Multiply-adds of all matrix products for one candidate; a lookup, a bias and an elementwise product count nothing.

    With X columns, C of them of context features, R the cross layers' rank, T labels, experts of layers X, H_1 .. H_n:

        sequences   L ((3 D + 1) S + S + D) each, L its length, S its hidden units
        context     (C + O) W + W O, O = X - C, W the gate's hidden units
        cross       2 X R a layer; parallel: X T for the heads that read the last one
        mmoe        E experts of X H_1 + H_1 H_2 + ..; gates X T E; mixing T E H_n
        ple         a level as mmoe with E = experts + T * task_experts and a gate for each label, and, but on the last level,
                    one for what is shared; X is H_n from the second level on
        heads       T H_n, and T X of the linear path

    That is what the network computes, masked gates of `ple` included.
    """
    config, width, labels = network.config, network.width, len(network.labels)
    rank = min(config.cross_rank, width)
    total = config.cross_layers * 2 * width * rank
    for sequence in network.sequences:
        total += sequence.length * ((3 * config.embedding_dim + 2) * config.sequence_hidden + config.embedding_dim)
    if config.cross == "parallel":
        total += width * labels
    if config.context == "epnet":
        total += config.context_width * (width + width - len(network.context_columns))
    last = (width, *config.hidden)[-1]
    if config.mixture == "mmoe":
        total += _mixture(width, config.hidden, config.experts, labels)
    else:
        experts = config.experts + labels * config.task_experts
        for level in range(config.levels):
            gates = labels if level == config.levels - 1 else labels + 1
            total += _mixture(width if level == 0 else last, config.hidden, experts, gates)
    return total + labels * (last + width)


def _mixture(width: int, hidden: tuple[int, ...], experts: int, gates: int) -> int:
    """Experts on `width` columns, gates that read as many, and the sums that they weigh."""
    widths = (width, *hidden)
    layers = sum(a * b for a, b in itertools.pairwise(widths))
    return experts * layers + gates * experts * (width + widths[-1])
