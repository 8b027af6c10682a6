"""Datasets: immutable folders of Parquet, named by the digest of their content."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.sampling import SamplePlan
from tidewheel.contracts.schema import FeatureSpec, feature_digest
from tidewheel.contracts.window import Window
from tidewheel.errors import ContractError

DATASETS = "datasets"  # kind of the store


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
    watermark: AwareDatetime | None = None  # until when the log was complete, as far as the window asks; null: not known
    inputs: dict[str, str] = {}
    sampling: SamplePlan | None = None
    files: tuple[FileEntry, ...] = ()

    @property
    def digest(self) -> str:
        """Identity of the content: the same files give the same digest, wherever they lie."""
        return digest_of(self)

    @property
    def feature_digest(self) -> str:
        """Digest of the features that a model may use of this dataset; its files may hold more columns."""
        return feature_digest(self.features)

    def expect_features(self, features: tuple[FeatureSpec, ...]) -> None:
        """Refuse a model other features than these rows were made with.

        Raises:
            ContractError: the digests of the two allowlists differ; the message names the features that do.
        """
        if self.feature_digest == feature_digest(features):
            return
        differing = sorted({feature.name for feature in {*self.features} ^ {*features}})
        raise ContractError(
            f"dataset {self.kind} {self.digest[:12]}: made with features {self.feature_digest[:12]}, expected "
            f"{feature_digest(features)[:12]} ({', '.join(differing)} differ); run again with this recipe from ingest on"
        )


class LogDay(Contract):
    """One day of a log, judged: what `ingest` keeps so that a later window does not read the day's files again.

    `bucket=<n>/*.parquet` hold the rows, by hash of the user; `counts` are of rows that were counted and not kept. `day` is
    null for rows without a time.
    """

    schema_: Literal["tidewheel/log-day/v1"] = Field(default="tidewheel/log-day/v1", alias="schema")
    day: date | None
    buckets: int = Field(ge=1)
    rows: int = Field(ge=0)
    counts: dict[str, int] = {}
    files: tuple[FileEntry, ...] = ()
