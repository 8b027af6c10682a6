"""The scorer as a LitServe API (bench/peer_serving.py serves it)."""

from __future__ import annotations

import numpy as np
from litserve import LitAPI

from bench.peer_serving import columns_of, scorer


class Ranker(LitAPI):
    def setup(self, device: str) -> None:
        self.scorer = scorer()

    def decode_request(self, request):  # an annotation would change what LitServe reads
        return columns_of(request)

    def predict(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.scorer.score(columns)

    def encode_response(self, scores: dict[str, np.ndarray]) -> dict[str, list[float]]:
        return {label: values.tolist() for label, values in scores.items()}
