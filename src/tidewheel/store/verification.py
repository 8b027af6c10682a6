"""How closely the bytes of a folder are looked at before they are believed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from tidewheel.contracts.dataset import FileEntry
from tidewheel.errors import ConfigError

SAMPLED, FULL = "sampled", "full"
SAMPLE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Verification:
    """Every file must be there with its size; the digests of those that `chosen` names must match.

    Sampled: whole files in an order drawn from the seed and the folder, the first whatever its size, more while they fit
    into `sample_bytes`. The same run looks at the same files again; other runs draw others, so in the end every file is
    read: where each run reads m of n files, damage to one outlives k runs with probability (1 - m/n)^k.

    Attributes:
        seed: the run's id.
        sample_bytes: how much is read per folder, at least one file.
    """

    is_full: bool = False
    seed: str = ""
    sample_bytes: int = SAMPLE_BYTES

    @classmethod
    def of(cls, name: str, seed: str = "") -> Self:
        """The verification that `--verify` names.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in (SAMPLED, FULL):
            raise ConfigError(f"--verify {name}: expected {SAMPLED} or {FULL}")
        return cls(is_full=name == FULL, seed=seed)

    def chosen(self, files: Sequence[FileEntry], folder: str) -> tuple[FileEntry, ...]:
        """The files of the folder with this digest whose own digests are checked."""
        if self.is_full:
            return tuple(files)
        drawn = random.Random(f"{self.seed}/{folder}").sample(files, len(files))
        total = 0
        chosen: list[FileEntry] = []
        for entry in drawn:
            total += entry.bytes
            if chosen and total > self.sample_bytes:
                break
            chosen.append(entry)
        return tuple(chosen)

    def fault(
        self, files: Sequence[FileEntry], folder: str, sizes: Mapping[str, int], sha256: Callable[[str], str]
    ) -> str | None:
        """What is wrong with a folder, or None.

        Args:
            files: what its manifest lists.
            folder: its digest.
            sizes: path -> bytes of every file that is there.
            sha256: path -> digest of a file that is there with its size.
        """
        for entry in files:
            if entry.path not in sizes:
                return f"{entry.path} is missing"
            if sizes[entry.path] != entry.bytes:
                return f"{entry.path} has {sizes[entry.path]} bytes, expected {entry.bytes}"
        for entry in self.chosen(files, folder):
            if sha256(entry.path) != entry.sha256:
                return f"{entry.path} does not match its digest"
        return None
