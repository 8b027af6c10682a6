"""What is production and how it came to be: the ledger, and the model registry as a projection of it."""

from tidewheel.registry.assignment import assignment_after
from tidewheel.registry.background import BackgroundRegistry
from tidewheel.registry.ledger import Ledger
from tidewheel.registry.mlflow import MlflowRegistry
from tidewheel.registry.projections import Projection, reconcile
from tidewheel.registry.release import Release, end_experiment, quarantine, release, resume, rollback
from tidewheel.registry.versions import Registry

__all__ = [
    "BackgroundRegistry",
    "Ledger",
    "MlflowRegistry",
    "Projection",
    "Registry",
    "Release",
    "assignment_after",
    "end_experiment",
    "quarantine",
    "reconcile",
    "release",
    "resume",
    "rollback",
]
