"""The home folder: the store, the runs, the registry's database and the built-in world."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidewheel.store.store import Store

HOME_VARIABLE = "TIDEWHEEL_HOME"
STORE_VARIABLE = "TIDEWHEEL_STORE"
RUN_VARIABLE = "TIDEWHEEL_RUN_ID"
REGISTRY_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_HOME = ".tidewheel"


@dataclass(frozen=True)
class Home:
    """Where everything of one installation lies. Steps find it through the environment, people through `--home`."""

    root: Path
    store_url: str
    registry_url: str

    @classmethod
    def resolve(cls, root: Path | None = None, environment: Mapping[str, str] | None = None) -> Home:
        """`root` if given, else `$TIDEWHEEL_HOME`, else `.tidewheel` in the current folder."""
        environment = os.environ if environment is None else environment
        folder = Path(root or environment.get(HOME_VARIABLE) or DEFAULT_HOME).absolute()
        return cls(
            root=folder,
            store_url=environment.get(STORE_VARIABLE) or str(folder / "store"),
            registry_url=environment.get(REGISTRY_VARIABLE) or f"sqlite:///{folder / 'registry.db'}",
        )

    def environment(self, run_id: str) -> dict[str, str]:
        """What a step's process must see to find this home."""
        return {
            HOME_VARIABLE: str(self.root),
            STORE_VARIABLE: self.store_url,
            REGISTRY_VARIABLE: self.registry_url,
            RUN_VARIABLE: run_id,
        }

    def store(self) -> Store:
        """Open the store.

        Raises:
            ConfigError: it cannot be written.
        """
        return Store.open(self.store_url)

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> Path:
        return self.runs / run_id

    def world(self, recipe: str) -> Path:
        """The folder of the log of a recipe's built-in world."""
        return self.root / "world" / recipe
