"""Numbered records in the store: `<folder>/000001.json` and on, each created exactly once and never changed."""

from __future__ import annotations

import re
from typing import Protocol, Self, TypeVar

from tidewheel.errors import ContractError
from tidewheel.store.store import Store

_NAME = re.compile(r"^\d{6}\.json$")


class Numbered(Protocol):
    """A contract that knows its own number, from 1."""

    @property
    def number(self) -> int: ...

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self: ...


N = TypeVar("N", bound=Numbered)


def name_of(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"


def read_all(store: Store, folder: str, contract: type[N], what: str) -> tuple[N, ...]:
    """All records of a folder from the first on; `what` they are, for messages.

    Raises:
        ContractError: a number is missing, or a record is damaged or not the one that its name says. Nothing is decided
            on half of them.
    """
    records: list[N] = []
    for name in store.names(folder):
        expected = name_of(folder, len(records) + 1)
        if not _NAME.match(name.removeprefix(f"{folder}/")):
            raise ContractError(f"{what}: {name} is no entry; expected {expected}. Move it out of the {what}'s folder")
        if name != expected:
            raise ContractError(f"{what}: {expected} is missing, found {name}; restore it from a backup of the store")
        record = contract.parse(store.get(name) or "", name)
        if record.number != len(records) + 1:
            raise ContractError(f"{what}: {name} holds entry {record.number}; restore it from a backup of the store")
        records.append(record)
    return tuple(records)
