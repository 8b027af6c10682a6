"""Checkpoints of training in the store, from which it goes on bit by bit as if never stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import torch
from pydantic import AwareDatetime, Field
from torch import Tensor

from tidewheel.contracts.base import Contract
from tidewheel.contracts.dataset import FileEntry
from tidewheel.errors import ContractError
from tidewheel.store import Store
from tidewheel.training.optimizer import Optimizer

KIND = "checkpoints"  # of the store
FILE = "checkpoint.safetensors"
KEPT_DAYS = 14  # by then nobody comes back for a training that was given up


class CheckpointManifest(Contract):
    """`work` is a digest of everything that training depends on: a checkpoint of other work is never resumed."""

    schema_: Literal["tidewheel/checkpoint/v1"] = Field(default="tidewheel/checkpoint/v1", alias="schema")
    work: str
    steps: int = Field(ge=1)
    saved: AwareDatetime
    files: tuple[FileEntry, ...] = ()


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Checkpoints:
    """The newest checkpoint of one piece of work, written beside training every `every_steps` steps.

    A folder of the store is there whole or not at all, and the one before goes only after it is: whenever training is
    killed, the last checkpoint that was finished is found.
    """

    store: Store
    work: str
    every_steps: int
    now: Callable[[], datetime] = _now
    notes: list[str] = field(default_factory=list)  # what a person should know, e.g. that one was damaged
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"))
    _writing: Future[None] | None = None

    def save(self, parameters: Mapping[str, Tensor], optimizer: Optimizer) -> None:
        """Take a copy of parameters and moments and write it in a thread; waits for the one before.

        Raises:
            ConfigError, RetryableError: the one before could not be written.
        """
        self.settle()
        tensors = {f"model.{name}": value.detach().cpu().clone() for name, value in parameters.items()}
        tensors |= {f"optimizer.{name}": value.cpu().clone() for name, value in optimizer.state().items()}
        self._writing = self._writer.submit(self._write, tensors, optimizer.steps)

    def settle(self) -> None:
        """Wait until nothing is being written.

        Raises:
            ConfigError, RetryableError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def resume(self, parameters: Mapping[str, Tensor], optimizer: Optimizer) -> int:
        """Load the newest checkpoint of this work; returns the steps done, 0 where there is none.

        One that is damaged is removed and noted: training goes on from the one before or starts again.

        Raises:
            ContractError: it is whole, but of another network.
        """
        from safetensors.torch import load_file

        while found := self._found():
            digest, manifest = found[0]
            try:
                folder = self.store.fetch(KIND, digest, full=True)
                tensors = load_file(str(folder / FILE))
            except FileNotFoundError:  # a newer one took its place while it was read
                continue
            except ContractError as error:
                if self.store.manifest(KIND, digest) is not None:  # else a newer one took its place
                    self.notes.append(f"checkpoint of step {manifest.steps} is damaged and was removed: {error}")
                    self.store.remove(KIND, digest)
                continue
            _restore(parameters, _under("model.", tensors), folder)
            optimizer.restore(_under("optimizer.", tensors), manifest.steps)
            return manifest.steps
        return 0

    def newest_step(self) -> int:
        """The step of the newest checkpoint, 0 where there is none."""
        found = self._found()
        return found[0][1].steps if found else 0

    def clear(self) -> None:
        """Remove the checkpoints of this work, which is done, and those that nobody came back for."""
        self.settle()
        self._writer.shutdown()
        for digest in self.store.folders(KIND):
            manifest = self._manifest(digest)
            if manifest and (manifest.work == self.work or self.now() - manifest.saved > timedelta(days=KEPT_DAYS)):
                self.store.remove(KIND, digest)

    def _write(self, tensors: dict[str, Tensor], steps: int) -> None:
        from safetensors.torch import save_file

        staging = self.store.staging(KIND)
        save_file(tensors, str(staging / FILE))
        written, _ = self.store.publish(KIND, staging, CheckpointManifest(work=self.work, steps=steps, saved=self.now()))
        for digest, _ in self._found():
            if digest != written:
                self.store.remove(KIND, digest)

    def _found(self) -> list[tuple[str, CheckpointManifest]]:
        """Digest and manifest of this work's checkpoints, newest first.

        Listed again while the folders change: a worker that has not noticed its end yet may still replace them.
        """
        digests: list[str] = []
        found: list[tuple[str, CheckpointManifest | None]] = []
        while (listed := self.store.folders(KIND)) != digests:
            digests, found = listed, [(digest, self._manifest(digest)) for digest in listed]
        mine = [(digest, manifest) for digest, manifest in found if manifest is not None and manifest.work == self.work]
        return sorted(mine, key=lambda entry: -entry[1].steps)

    def _manifest(self, digest: str) -> CheckpointManifest | None:
        """None where the folder is being removed, or never was one."""
        text = self.store.manifest(KIND, digest)
        try:
            return None if text is None else CheckpointManifest.parse(text, digest)
        except ContractError:
            return None


@torch.no_grad()
def _restore(parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor], folder: Path) -> None:
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    if shapes != (found := {name: tuple(value.shape) for name, value in saved.items()}):
        wrong = sorted(set(shapes.items()) ^ set(found.items()))[0]
        raise ContractError(f"{folder}: is of another network ({wrong[0]} differs); remove it to start again")
    for name, value in parameters.items():
        value.copy_(saved[name])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
