"""Offers in the store: what a canary on a cluster is about, for whoever judges it."""

from __future__ import annotations

from tidewheel.contracts.offer import CanaryOffer, name_of
from tidewheel.errors import ConfigError
from tidewheel.store.store import Store


def publish(store: Store, offer: CanaryOffer) -> None:
    """Write the offer down. Idempotent: the first of equal offers stays."""
    store.create(offer.name, offer.to_json() + "\n")


def offered(store: Store, key: str) -> CanaryOffer:
    """The offer of a canary.

    Raises:
        ConfigError: there is none of that name.
        ContractError: it is damaged.
    """
    text = store.get(name_of(key))
    if text is None:
        raise ConfigError(f"canary {key}: the store has no such offer; expected the value of the annotation tidewheel/canary")
    return CanaryOffer.parse(text, name_of(key))
