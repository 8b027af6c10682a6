"""Checkpoints of training: one file, replaced atomically, from which training goes on bit by bit as if never stopped."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tidewheel.errors import ContractError
from tidewheel.training.optimizer import Optimizer

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint of one piece of work in `folder`, written every `every_steps` steps.

    `work` is a digest of everything that training depends on: a checkpoint of other work is never resumed.
    """

    folder: Path
    every_steps: int
    work: str

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def save(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Write parameters, moments, random state and the number of steps; a reader sees the old or the new file."""
        from safetensors.torch import save_file

        tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        tensors |= {f"optimizer.{name}": value.detach().cpu().contiguous() for name, value in optimizer.state().items()}
        tensors["random"] = torch.get_rng_state()
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".partial-{os.getpid()}-{FILE}")
        save_file(tensors, str(partial), metadata={"steps": str(optimizer.steps), "work": self.work})
        partial.replace(self.path)

    def resume(self, model: nn.Module, optimizer: Optimizer) -> int:
        """Load the checkpoint into model and optimizer; returns the steps done, 0 where there is none of this work.

        Raises:
            ContractError: the checkpoint is damaged.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0
        try:
            with safe_open(str(self.path), framework="pt") as file:
                metadata = file.metadata()
                if metadata.get("work") != self.work:
                    return 0
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            model.load_state_dict(_under("model.", tensors))
            optimizer.restore(_under("optimizer.", tensors), int(metadata["steps"]))
            torch.set_rng_state(tensors["random"])
        except (SafetensorError, RuntimeError, KeyError, OSError) as error:
            raise ContractError(f"{self.path}: is damaged ({str(error).splitlines()[0]}); delete it to start again") from error
        return optimizer.steps

    def clear(self) -> None:
        """Remove the checkpoint: its work is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
