"""The bundles that one server holds: opened, checked and warmed; and which of them a request is for."""

from __future__ import annotations

import string
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tidewheel.contracts.assignment import Assignment
from tidewheel.contracts.bundle import BundleManifest
from tidewheel.contracts.schema import FeatureKind, FeatureSpec, feature_columns
from tidewheel.errors import ContractError
from tidewheel.ranker.bundle import RANKER, OpenBundle
from tidewheel.ranker.scorer import Scorer
from tidewheel.serving.gate import HttpError
from tidewheel.serving.hybrid_log import LogLimits
from tidewheel.serving.log_process import LogProcess

SHORTEST_PREFIX = 8  # hex digits
DIGEST_LENGTH = 64


@dataclass(frozen=True)
class Opening:
    """How a server opens a bundle. `log`: the folder of the hybrid log, or None; `model_name`: another name of its ranker."""

    threads: int = 1
    model_name: str = ""
    log: Path | None = None
    log_limits: LogLimits = field(default_factory=LogLimits)


class Version:
    """One bundle that can answer: its graphs run here, have its signature, and have scored once."""

    def __init__(self, bundle: OpenBundle, opening: Opening) -> None:
        """
        Raises:
            ContractError: a graph does not run here, is not what the manifest says, or its scores are not finite.
            ConfigError: the log cannot be written.
        """
        manifest = bundle.manifest
        self.digest = bundle.digest
        self.manifest: BundleManifest = manifest
        self.features = feature_columns(manifest.features)
        self.sequences = {name: f.length for f in manifest.features if f.is_sequence for name in f.columns}
        self.models = {name: Scorer(bundle, opening.threads, name) for name in manifest.models}
        for scorer in self.models.values():
            scorer.open()
        self._warm_up()
        if opening.model_name:
            self.models[opening.model_name] = self.scorer(RANKER)
        self._open = ExitStack()
        self.log: LogProcess | None = None
        if opening.log is not None:
            log = LogProcess(opening.log, bundle.digest, manifest.features, manifest.labels, opening.log_limits)
            self.log = self._open.enter_context(log)

    def _warm_up(self) -> None:
        """Score one row of unknown values, so that the first user does not wait for it."""
        columns = {name: _unknown(feature) for feature in self.manifest.features for name in feature.columns}
        for name, scorer in self.models.items():
            for label, scores in scorer.score(columns).items():
                if not np.isfinite(scores).all():
                    raise ContractError(f"bundle {self.digest[:12]}: {name} scores {label} as {scores[0]}; distill again")

    @cached_property
    def head(self) -> bytes:
        """The headers that name this version in an answer."""
        return f"tidewheel-bundle: {self.digest}\r\ntidewheel-features: {self.manifest.feature_digest}\r\n".encode()

    def scorer(self, name: str) -> Scorer:
        """
        Raises:
            HttpError: 404, the bundle has no such model.
        """
        if name not in self.models:
            raise HttpError(404, f"model {name} is unknown; this bundle has {', '.join(self.models)}")
        return self.models[name]

    def close(self) -> None:
        """Write what its log still holds. Idempotent; nobody may be scoring with it."""
        self._open.close()


@dataclass(frozen=True)
class Table:
    """Who serves whom. Never changed: another assignment is another table."""

    versions: Mapping[str, Version]  # by digest, the greatest share first
    assignment: Assignment | None = None

    @classmethod
    def of(cls, versions: Mapping[str, Version], assignment: Assignment) -> Table:
        """The versions of an assignment, each of which must be there."""
        order = sorted(assignment.shares, key=lambda share: -share.share)
        return cls({share.bundle: versions[share.bundle] for share in order}, assignment)

    @cached_property
    def main(self) -> Version:
        """The version with the greatest share."""
        return next(iter(self.versions.values()))

    @property
    def shares(self) -> dict[str, float]:
        """Digest -> share of users."""
        if self.assignment is None:
            return {self.main.digest: 1.0}
        return {share.bundle: share.share for share in self.assignment.shares}

    def named(self, digest: str) -> Version:
        """The version of a digest, or of a beginning of it that only one has.

        Raises:
            HttpError: 404, none or several are resident; 400, it cannot be a digest.
        """
        if (found := self.versions.get(digest)) is not None:
            return found
        if not SHORTEST_PREFIX <= len(digest) <= DIGEST_LENGTH or not set(digest) <= set(string.hexdigits):
            raise HttpError(
                400, f"bundle {digest!r}: expected its digest, or {SHORTEST_PREFIX} or more digits of its beginning"
            )
        begins = [version for name, version in self.versions.items() if name.startswith(digest.lower())]
        if len(begins) != 1:
            resident = ", ".join(name[:12] for name in self.versions)
            what = "is not resident" if not begins else "is the beginning of several"
            raise HttpError(404, f"bundle {digest} {what}; resident are {resident}")
        return begins[0]

    def of_user(self, user_id: int | None) -> Version:
        """The version that the assignment gives a user; the one with the greatest share where no user is named."""
        if user_id is None or self.assignment is None or len(self.versions) == 1:
            return self.main
        return self.versions[self.assignment.bundle_of(user_id)]


def _unknown(feature: FeatureSpec) -> np.ndarray:
    if feature.kind is FeatureKind.NUMERIC:
        return np.array([np.nan])
    if feature.is_sequence:
        return np.empty((1, 0), dtype=np.int64)
    return np.array([0]) if feature.kind is FeatureKind.HASHED else np.array([None], dtype=object)
