"""Raw columns to scores with ONNX Runtime: the one way in which evaluation, serving and teachers score.

The only module that imports onnxruntime, and only when something is scored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tidewheel.contracts.bundle import ModelEntry
from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.schema import feature_columns
from tidewheel.errors import ContractError
from tidewheel.ranker.bundle import RANKER, OpenBundle
from tidewheel.ranker.columns import Columns
from tidewheel.ranker.encoding import Encoded, Encoders
from tidewheel.ranker.signature import Tensor, onnx_versions, runtime_fault, signature_fault

if TYPE_CHECKING:
    import onnxruntime

LONGEST_REASON = 300  # characters of what ONNX Runtime says
CHUNK_ROWS = 8192  # bounds the memory of activations when a whole split is scored
Scores = dict[str, np.ndarray]


class Graph:
    """One ONNX graph; its session is made when it first runs."""

    def __init__(self, path: Path, labels: tuple[str, ...], threads: int) -> None:
        self.path = path
        self.labels = labels
        self.threads = threads
        self._session: onnxruntime.InferenceSession | None = None

    def run(self, encoded: Encoded) -> Scores:
        """label -> (B,) float32."""
        session = self._opened()
        parts: list[list[Any]] = []
        for start in range(0, len(encoded), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            parts.append(session.run(list(self.labels), {"ids": encoded.ids[part], "numbers": encoded.numbers[part]}))
        if len(parts) == 1:
            return dict(zip(self.labels, parts[0], strict=True))
        empty = np.empty(0, dtype=np.float32)
        return {label: np.concatenate([part[at] for part in parts]) if parts else empty for at, label in enumerate(self.labels)}

    def _opened(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at import: else it keeps a device id in the home
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
            # Threads that spin while they wait would take the cores of the server beside this one.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # its kinds have no common base
                ir_version, opset = onnx_versions(self.path)
                reason = " ".join(str(error).split())[:LONGEST_REASON]
                raise ContractError(
                    f"{self.path}: found IR version {ir_version} and opset {opset}, expected a graph that ONNX Runtime "
                    f"{onnxruntime.__version__} can run; distill again, or update it ({reason})"
                ) from error
            outputs = {output.name for output in session.get_outputs()}
            if missing := sorted(set(self.labels) - outputs):
                raise ContractError(
                    f"{self.path}: the graph has no output {', '.join(missing)}; found {', '.join(sorted(outputs))}"
                )
            self._session = session
        return self._session

    def refuse_other(self, entry: ModelEntry, widths: tuple[int, int], made_with: Mapping[str, str]) -> None:
        """Make the session now, and hold the graph to what its bundle says of it.

        Raises:
            ContractError: it was made for another runtime, cannot run here, or takes or gives something else.
        """
        import onnxruntime

        if fault := runtime_fault(made_with, onnxruntime.__version__, *onnx_versions(self.path)):
            raise ContractError(f"{self.path}: {fault}")
        session = self._opened()
        inputs, outputs = (
            [Tensor(one.name, one.type, tuple(one.shape)) for one in side]
            for side in (session.get_inputs(), session.get_outputs())
        )
        if fault := signature_fault(inputs, outputs, widths, entry):
            raise ContractError(f"{self.path}: {fault}; distill again")


class Scorer:
    """Scores with one model of a bundle. Safe to share between threads; costs nothing until it first scores."""

    def __init__(self, bundle: OpenBundle, threads: int = 1, model: str = RANKER) -> None:
        entry = bundle.model(model)
        self.bundle = bundle
        self._model = model
        self.labels = bundle.manifest.labels
        self.encoders = bundle.encoders(model)
        self._columns = feature_columns(self.encoders.features)
        self._graph = Graph(bundle.folder / entry.graph, self.labels, threads)
        self._twin = Graph(bundle.folder / entry.uncalibrated_graph, self.labels, threads)

    def open(self) -> None:
        """Make the session of the served graph now instead of at the first score.

        Raises:
            ContractError: the graph does not run here, or its inputs and outputs are not the manifest's signature.
        """
        entry = self.bundle.model(self._model)
        self._graph.refuse_other(entry, self.encoders.widths, self.bundle.manifest.runtime)

    def num_rows(self, columns: Columns) -> int:
        """B, how many rows `score` would score."""
        return max(map(len, map(columns.__getitem__, self._columns)))

    def score(self, columns: Columns) -> Scores:
        """Calibrated probabilities, label -> (B,) float32 in [0, 1], of raw columns of length B or 1.

        Raises:
            ContractError: a feature's column is missing or has a type that its kind cannot take.
        """
        return self.score_encoded(self.encoders.encode(columns))

    def score_encoded(self, encoded: Encoded) -> Scores:
        """Calibrated probabilities, label -> (B,) float32, of rows that `encoders` encoded."""
        return self._graph.run(encoded)

    def logits(self, columns: Columns) -> Scores:
        """Uncalibrated logits, label -> (B,) float32, from the twin that teaches."""
        return self.logits_encoded(self.encoders.encode(columns))

    def logits_encoded(self, encoded: Encoded) -> Scores:
        """Uncalibrated logits, label -> (B,) float32, of rows that `encoders` encoded."""
        return self._twin.run(encoded)


class GraphScorer:
    """Scores with a trained ranker that is no bundle yet: the mean of its members' probabilities, mostly of one."""

    def __init__(self, folder: Path, manifest: ModelManifest, threads: int = 1) -> None:
        if manifest.graph is None:
            raise ContractError(f"{folder}: this ranker has no ONNX graph; train it again")
        self.labels = manifest.labels
        self.encoders = Encoders.read(folder / manifest.encoders)
        graphs = (manifest.graph, *manifest.members)
        self._members = tuple(Graph(folder / graph, self.labels, threads) for graph in graphs)

    def score(self, columns: Columns) -> Scores:
        """Probabilities, label -> (B,) float32 in [0, 1], of raw columns of length B or 1."""
        return self.score_encoded(self.encoders.encode(columns))

    def score_encoded(self, encoded: Encoded) -> Scores:
        """Probabilities, label -> (B,) float32, of rows that `encoders` encoded."""
        return {label: sigmoid(logits) for label, logits in self.logits_encoded(encoded).items()}

    def logits(self, columns: Columns) -> Scores:
        """Logits, label -> (B,) float32; of an ensemble the log odds of its probabilities."""
        return self.logits_encoded(self.encoders.encode(columns))

    def logits_encoded(self, encoded: Encoded) -> Scores:
        """Logits, label -> (B,) float32, of rows that `encoders` encoded."""
        found = [member.run(encoded) for member in self._members]
        if len(found) == 1:
            return found[0]
        return {label: log_odds_of_mean(np.stack([one[label] for one in found])) for label in self.labels}


def log_odds_of_mean(logits: np.ndarray) -> np.ndarray:
    """(K, B) logits -> (B,) float32 log odds of the mean of their probabilities, finite wherever the logits are."""
    logits = np.asarray(logits, dtype=np.float64)
    positive, negative = (np.logaddexp.reduce(-np.logaddexp(0.0, sign * logits), axis=0) for sign in (-1.0, 1.0))
    return np.asarray(positive - negative, dtype=np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), float32, without overflow."""
    half = np.asarray(logits, dtype=np.float32) * np.float32(0.5)
    return np.float32(0.5) * (np.tanh(half) + np.float32(1.0))
