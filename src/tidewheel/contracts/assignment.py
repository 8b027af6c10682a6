"""Who is served by which bundle: the projection of the ledger that servers follow."""

from __future__ import annotations

from itertools import accumulate
from typing import Literal, Self

from pydantic import Field, model_validator

from tidewheel.contracts.base import Contract

ASSIGNMENTS = "assignments"  # folder of the records in the store, one folder a recipe
_WORD = 2**64 - 1


class Share(Contract):
    """A bundle and the share of users that it serves."""

    bundle: str
    share: float = Field(gt=0, le=1)


class Assignment(Contract):
    """Bundles in the order of the places of their users, which fill [0, 1) without a gap.

    `number` is that of the ledger entry it follows from: the record with the greatest number holds. Another `salt` gives every
    user another place, so that no user is always among the first.
    """

    schema_: Literal["tidewheel/assignment/v1"] = Field(default="tidewheel/assignment/v1", alias="schema")
    recipe: str
    number: int = Field(ge=1)
    salt: int = Field(ge=0, le=_WORD)
    shares: tuple[Share, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _everybody_is_served(self) -> Self:
        bundles = [share.bundle for share in self.shares]
        if len(set(bundles)) < len(bundles):
            raise ValueError("shares: a bundle is named twice; expected one share each")
        if abs(sum(share.share for share in self.shares) - 1.0) > 1e-9:
            raise ValueError(f"shares: sum is {sum(share.share for share in self.shares):g}; expected 1")
        return self

    def bundle_of(self, user_id: int) -> str:
        """Digest of the bundle that serves a user: the same at every request and in every process."""
        place = place_of(user_id, self.salt)
        ends = accumulate(share.share for share in self.shares)
        return next((share.bundle for share, end in zip(self.shares, ends, strict=True) if place < end), self.shares[-1].bundle)


def name_of(recipe: str, number: int) -> str:
    """Name of the record in the store."""
    return f"{ASSIGNMENTS}/{recipe}/{number:06d}.json"


def place_of(user_id: int, salt: int) -> float:
    """Place of a user in [0, 1), uniform over users; `rollout.plan.positions` is its twin for arrays.

    Finalizer of SplittableRandom (Steele, Lea, Flood 2014), its upper 53 bits.
    """
    mixed = (user_id + salt * 0x9E3779B97F4A7C15) & _WORD
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
    return ((mixed ^ (mixed >> 31)) >> 11) / 2.0**53
