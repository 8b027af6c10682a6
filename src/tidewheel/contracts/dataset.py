"""Datasets: immutable folders of Parquet, named by the digest of their content."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.sampling import SamplePlan
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.window import Window


class FileEntry(Contract):
    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class DatasetManifest(Contract):
    """What a dataset holds and where it came from; written last, so a folder without it is not a dataset.

    `statistics` are counts of how the rows came to be, e.g. `rows_read`, `duplicates`, `quarantined`.
    `sampling` is what chose the rows, where a sampler did: the rules as resolved for this window.
    """

    schema_: Literal["tidewheel/dataset/v1"] = Field(default="tidewheel/dataset/v1", alias="schema")
    kind: str
    window: Window
    rows: int = Field(ge=0)
    weight_sum: float
    features: tuple[FeatureSpec, ...]
    labels: tuple[str, ...]
    statistics: dict[str, float] = {}
    inputs: dict[str, str] = {}
    sampling: SamplePlan | None = None
    files: tuple[FileEntry, ...] = ()

    @property
    def digest(self) -> str:
        """Identity of the content: the same files give the same digest, wherever they lie."""
        return digest_of(self)
