"""The world's live requests, for a canary: a closed loop in which users react to what is ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from tidewheel.contracts.recipe import WorldSource
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.errors import ContractError
from tidewheel.rollout.traffic import Outcome, Request
from tidewheel.world.demand import Demand
from tidewheel.world.faults import broken_features, is_active
from tidewheel.world.features import FeatureSnapshot, RequestFeatures
from tidewheel.world.policy import rank, utility
from tidewheel.world.population import LABELS, Population, Requests, examination

BLOCK_REQUESTS = 1000  # requests drawn at once; which requests there are does not depend on how many are taken at a time
REQUEST_INTERVAL = timedelta(seconds=1)  # live traffic is denser than the log's sample of it: a canary takes hours, not weeks


@dataclass(frozen=True)
class _Luck:
    """What decides the reactions of a block (B requests, C candidates): the same for whichever arm shows the item."""

    threshold: np.ndarray  # (B, C): clicked when the position's examination is above
    long_view: np.ndarray  # (B, C) bool, once clicked
    like: np.ndarray  # (B, C) bool, once clicked


class WorldTraffic:
    """Implements `tidewheel.rollout.traffic.Traffic`; deterministic in the source's seed and `at`.

    Users, demand and features are those of the day of `at`; requests come one second apart and never end.
    """

    def __init__(
        self,
        source: WorldSource,
        population: Population,
        demand: Demand,
        snapshot: FeatureSnapshot,
        features: tuple[FeatureSpec, ...],
        at: datetime,
        day: int,
    ) -> None:
        self._source = source
        self._population = population
        self._demand = demand
        self._snapshot = snapshot
        self._features = features
        self._at = at
        self._day = day
        self._looked = examination(np.arange(source.slate_size))
        self._taken = 0
        self._block: Sequence[Request] = ()
        self._luck: dict[int, _Luck] = {}

    @property
    def is_closed_loop(self) -> bool:
        return True

    @property
    def seconds(self) -> float:
        return self._taken * REQUEST_INTERVAL.total_seconds()

    def take(self, count: int) -> Sequence[Request]:
        """The next `count` requests."""
        taken: list[Request] = []
        while len(taken) < count:
            number, offset = divmod(self._taken, BLOCK_REQUESTS)
            if offset == 0:
                self._block = self._draw_block(number)
            part = self._block[offset : offset + count - len(taken)]
            taken += part
            self._taken += len(part)
        return taken

    def time_of(self, request: Request) -> datetime:
        """When the request arrived."""
        return self._at + _number(request) * REQUEST_INTERVAL

    def served_features(self, request: Request, is_candidate: bool) -> Mapping[str, np.ndarray]:
        """The request's own features, but the broken source's for the candidate while that fault is active."""
        if is_candidate and is_active(self._source.faults, "served_features", self.time_of(request)):
            return broken_features(request.features, self._features)
        return request.features

    def react(self, request: Request, scores: Mapping[str, np.ndarray]) -> Outcome:
        """Show the best candidates by `scores` and say what the user did.

        Raises:
            ContractError: the scores fit not the request's candidates, lack click, or the request is not this traffic's.
        """
        luck, row = self._luck_of(request)
        worth = utility(scores)
        if worth.shape != request.item_ids.shape:
            raise ContractError(
                f"request {request.request_id}: scores of shape {worth.shape}, expected {request.item_ids.shape}"
            )
        shown = rank(worth, len(self._looked))
        click = luck.threshold[row, shown] < self._looked
        labels = {
            "click": click.astype(np.int8),
            "long_view": (click & luck.long_view[row, shown]).astype(np.int8),
            "like": (click & luck.like[row, shown]).astype(np.int8),
        }
        return Outcome(shown=shown, labels=labels)

    def _draw_block(self, number: int) -> list[Request]:
        rng, luck_rng = np.random.default_rng([self._source.seed, 4, int(self._at.timestamp()), number]).spawn(2)
        requests = self._demand.draw(rng, self._day, BLOCK_REQUESTS)
        self._luck[number] = self._draw_luck(luck_rng, requests)
        user_ids = self._snapshot.user["user_id"][requests.users].tolist()
        item_ids = self._snapshot.item["item_id"][requests.candidates]
        users, surfaces, queries = requests.users.tolist(), requests.surfaces.tolist(), requests.queries.tolist()
        prefix, first = f"{self._at.date().isoformat()}-live", number * BLOCK_REQUESTS
        return [
            Request(
                request_id=f"{prefix}-{first + row}",
                user_id=user_ids[row],
                item_ids=item_ids[row],
                features=RequestFeatures(self._snapshot, users[row], surfaces[row], queries[row], requests.candidates[row]),
            )
            for row in range(BLOCK_REQUESTS)
        ]

    def _draw_luck(self, rng: np.random.Generator, requests: Requests) -> _Luck:
        chance = self._population.reaction_probabilities(self._day, requests)
        luck = rng.random((len(LABELS), *requests.candidates.shape))
        return _Luck(
            threshold=luck[0] / chance["click"],
            long_view=luck[1] < chance["long_view"],
            like=luck[2] < chance["like"],
        )

    def _luck_of(self, request: Request) -> tuple[_Luck, int]:
        number, row = divmod(_number(request), BLOCK_REQUESTS)
        if number not in self._luck:
            raise ContractError(
                f"request {request.request_id} was not taken from this traffic; expected one that `take` returned"
            )
        return self._luck[number], row


def _number(request: Request) -> int:
    """How many requests of the stream came before."""
    return int(request.request_id.rpartition("-")[2])
