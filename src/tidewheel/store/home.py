"""The home folder: the store, the runs, the registry's database and the built-in world."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidewheel.store.store import Store
from tidewheel.store.verification import SAMPLED, Verification

HOME_VARIABLE = "TIDEWHEEL_HOME"
STORE_VARIABLE = "TIDEWHEEL_STORE"
RUN_VARIABLE = "TIDEWHEEL_RUN_ID"
VERIFY_VARIABLE = "TIDEWHEEL_VERIFY"
REGISTRY_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_HOME = ".tidewheel"
SCRATCH_DAYS = 14


@dataclass(frozen=True)
class Home:
    """Where everything of one installation lies. Steps find it through the environment, people through `--home`.

    `verify` says how closely what the store holds is looked at before it is believed: `sampled` or `full`.
    """

    root: Path
    store_url: str
    registry_url: str
    verify: str = SAMPLED

    @classmethod
    def resolve(cls, root: Path | None = None, environment: Mapping[str, str] | None = None, verify: str = "") -> Home:
        """`root` if given, else `$TIDEWHEEL_HOME`, else `.tidewheel` in the current folder; `verify` likewise."""
        environment = os.environ if environment is None else environment
        folder = Path(root or environment.get(HOME_VARIABLE) or DEFAULT_HOME).absolute()
        return cls(
            root=folder,
            store_url=environment.get(STORE_VARIABLE) or str(folder / "store"),
            registry_url=environment.get(REGISTRY_VARIABLE) or f"sqlite:///{folder / 'registry.db'}",
            verify=verify or environment.get(VERIFY_VARIABLE) or SAMPLED,
        )

    def environment(self, run_id: str) -> dict[str, str]:
        """What a step's process must see to find this home."""
        return {
            HOME_VARIABLE: str(self.root),
            STORE_VARIABLE: self.store_url,
            VERIFY_VARIABLE: self.verify,
            REGISTRY_VARIABLE: self.registry_url,
            RUN_VARIABLE: run_id,
        }

    def store(self, run_id: str = "") -> Store:
        """Open the store; a run draws the files whose digests it checks from its id.

        Raises:
            ConfigError: it cannot be written, or `verify` is neither `sampled` nor `full`.
            RetryableError: it does not answer.
        """
        return Store.open(self.store_url, self.root / "cache", Verification.of(self.verify, run_id))

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> Path:
        return self.runs / run_id

    @property
    def scratch(self) -> Path:
        """Where steps keep what a next try of the same work finds again."""
        return self.root / "scratch"

    def sweep_scratch(self, now: float) -> int:
        """Remove what nobody came back for in SCRATCH_DAYS; returns how many folders. `now`: seconds since the epoch."""
        old = [path for path in self.scratch.glob("*") if now - path.stat().st_mtime > SCRATCH_DAYS * 86_400]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        return len(old)

    def world(self, recipe: str) -> Path:
        """The folder of the log of a recipe's built-in world."""
        return self.root / "world" / recipe
