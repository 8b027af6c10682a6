"""What is production and how it came to be: the ledger, and the model registry as a projection of it."""

from tidewheel.registry.background import BackgroundRegistry
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.mlflow import MlflowRegistry
from tidewheel.registry.projections import Registry, reconcile
from tidewheel.registry.release import Release, quarantine, release, rollback

__all__ = [
    "BackgroundRegistry",
    "Ledger",
    "MlflowRegistry",
    "Registry",
    "Release",
    "quarantine",
    "reconcile",
    "release",
    "rollback",
]
