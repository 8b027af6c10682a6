"""Bundles: the atomic release unit. A bundle may hold several models; nothing here assumes one ranker."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tidewheel.contracts.base import Contract, digest_of
from tidewheel.contracts.dataset import FileEntry
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.window import Window

BUNDLES = "bundles"  # kind of the store


class TensorSpec(Contract):
    """Open Inference Protocol v2 tensor: -1 in `shape` is the number of candidates."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelEntry(Contract):
    """One model of a bundle: the same weights with calibrators (it serves) and without (it teaches).

    All paths are relative to the bundle's folder. `graph` maps encoded features to calibrated probabilities,
    `uncalibrated_graph` to logits; both are ONNX. `weights` is safetensors.
    """

    kind: Literal["ranker"]
    weights: str
    network: str  # JSON: the network's own config, to rebuild it in torch
    encoders: str  # JSON: vocabularies, moments of numeric features
    calibrators: str  # JSON: one a label
    graph: str
    uncalibrated_graph: str
    outputs: tuple[TensorSpec, ...]


class Lineage(Contract):
    """Where a bundle came from. `generation` is 0 for a model trained without a teacher, else the teacher's + 1."""

    run_id: str
    recipe: str
    recipe_digest: str
    window: Window
    datasets: dict[str, str]
    teacher: str | None
    generation: int = Field(ge=0)


class BundleManifest(Contract):
    """Lists every file with its digest; written last. Its own digest is the bundle's name."""

    schema_: Literal["tidewheel/bundle/v1"] = Field(default="tidewheel/bundle/v1", alias="schema")
    name: str
    models: dict[str, ModelEntry]
    features: tuple[FeatureSpec, ...]
    feature_digest: str
    labels: tuple[str, ...]
    profile: str  # JSON file: weighted histograms of the training rows, the baseline of drift checks
    lineage: Lineage
    runtime: dict[str, str]  # versions that made the graphs, e.g. {"onnx_opset": "18"}
    files: tuple[FileEntry, ...] = ()

    @property
    def digest(self) -> str:
        return digest_of(self)
