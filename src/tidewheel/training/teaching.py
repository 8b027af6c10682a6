"""A teacher at work: what it says of each row, as rows are encoded or as they are read. The numbers are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.ranker.bundle import OpenBundle
from tidewheel.ranker.encoding import Encoded, Encoders
from tidewheel.ranker.scorer import GraphScorer, Scorer, sigmoid


@dataclass(frozen=True)
class Teacher:
    """Soft labels of a model for `labels`.

    Attributes:
        features: the columns that it looks at, which may be others than those of the model that learns.
        is_inline: it scores each batch as it is read, which keeps its inputs beside the rows; else all rows once, as they
            are encoded, which keeps its scores.
    """

    name: str
    scorer: Scorer | GraphScorer
    features: tuple[FeatureSpec, ...]
    labels: tuple[str, ...]
    is_inline: bool = False

    @classmethod
    def of_bundle(cls, bundle: OpenBundle, labels: Sequence[str], is_inline: bool) -> Teacher:
        """Production's uncalibrated twin."""
        scorer = Scorer(bundle, threads=torch.get_num_threads())
        return cls(bundle.digest, scorer, bundle.manifest.features, tuple(labels), is_inline)

    @classmethod
    def of_ranker(cls, scorer: GraphScorer, manifest: ModelManifest, labels: Sequence[str]) -> Teacher:
        """The ranker of this run, which the student learns from."""
        return cls(manifest.weights, scorer, manifest.features, tuple(labels))

    @property
    def encoders(self) -> Encoders:
        return self.scorer.encoders

    def score(self, encoded: Encoded) -> np.ndarray:
        """(n, T) float32 probabilities of rows that `encoders` encoded; NaN for a label that it does not know."""
        logits = self.scorer.logits_encoded(encoded)
        soft = np.full((len(encoded), len(self.labels)), np.nan, dtype=np.float32)
        for at, label in enumerate(self.labels):
            if label in logits:
                soft[:, at] = sigmoid(logits[label])
        return soft
