"""The bundle's folder: how a ranker lies in it, and how it is opened without trusting a single byte.

manifest.json                 every file with its sha256; the manifest's own digest is the folder's name
profile.json                  baseline of drift checks
ranker/weights.safetensors    ranker/network.json    ranker/encoders.json    ranker/calibrators.json
ranker/graph.onnx             encoded features -> calibrated probabilities
ranker/uncalibrated.onnx      encoded features -> logits: the twin that teaches
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tidewheel.contracts.base import digest_of
from tidewheel.contracts.bundle import BUNDLES as BUNDLES
from tidewheel.contracts.bundle import BundleManifest, ModelEntry, TensorSpec
from tidewheel.contracts.evidence import ModelManifest
from tidewheel.contracts.schema import feature_digest
from tidewheel.errors import ContractError
from tidewheel.ranker.encoding import Encoders
from tidewheel.store import Store
from tidewheel.store.store import MANIFEST, sha256_of

MODELS = "models"  # kind of the store
RANKER = "ranker"  # the model of a bundle that ranks
WEIGHTS, NETWORK, ENCODERS = "weights.safetensors", "network.json", "encoders.json"
CALIBRATORS, GRAPH, UNCALIBRATED_GRAPH = "calibrators.json", "graph.onnx", "uncalibrated.onnx"
PROFILE = "profile.json"


@dataclass(frozen=True)
class OpenBundle:
    """A bundle whose every byte was checked when it was opened."""

    folder: Path
    manifest: BundleManifest
    digest: str

    def model(self, name: str = RANKER) -> ModelEntry:
        """One model of the bundle.

        Raises:
            ContractError: the bundle has no model of that name.
        """
        if name not in self.manifest.models:
            raise ContractError(
                f"bundle {self.digest[:12]}: has no model {name}; found {', '.join(sorted(self.manifest.models))}"
            )
        return self.manifest.models[name]

    def encoders(self, name: str = RANKER) -> Encoders:
        """The encoders of one model.

        Raises:
            ContractError: they take a feature that the bundle does not list.
        """
        path = self.folder / self.model(name).encoders
        encoders = Encoders.read(path)
        if unlisted := sorted({feature.name for feature in {*encoders.features} - {*self.manifest.features}}):
            raise ContractError(f"{path}: takes {', '.join(unlisted)} otherwise than the bundle's features say; distill again")
        return encoders

    @property
    def profile(self) -> Path:
        return self.folder / self.manifest.profile


def ranker_entry(labels: tuple[str, ...]) -> ModelEntry:
    """The entry of a ranker that lies in the folder `ranker` under this module's file names."""
    return ModelEntry(
        kind="ranker",
        weights=f"{RANKER}/{WEIGHTS}",
        network=f"{RANKER}/{NETWORK}",
        encoders=f"{RANKER}/{ENCODERS}",
        calibrators=f"{RANKER}/{CALIBRATORS}",
        graph=f"{RANKER}/{GRAPH}",
        uncalibrated_graph=f"{RANKER}/{UNCALIBRATED_GRAPH}",
        outputs=tuple(TensorSpec(name=label, datatype="FP32", shape=(-1,)) for label in labels),
    )


def publish(store: Store, folder: Path, manifest: BundleManifest) -> tuple[str, BundleManifest]:
    """Publish a staged folder as one bundle; returns its digest and the manifest with its files. Needs torch and onnx.

    Raises:
        ContractError: a file that the manifest names is not in the folder, one may not be in a bundle, or a model's graphs
            are not both those of its weights.
    """
    from tidewheel.ranker.twins import twin_fault  # whoever only opens bundles has no torch

    present = frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if fault := _layout_fault(manifest, present):
        raise ContractError(f"{folder}: {fault}")
    for entry in manifest.models.values():
        if fault := twin_fault(folder, entry):
            raise ContractError(f"{folder}: {fault}")
    return store.publish(BUNDLES, folder, manifest)


def open_bundle(folder: Path, expected_digest: str | None = None) -> OpenBundle:
    """Open a bundle after checking all of it: the manifest against its digest, every file against the manifest.

    Args:
        folder: where the bundle lies; in a store its name is the digest.
        expected_digest: the digest to check against where the folder has another name, e.g. inside an image.

    Raises:
        ContractError: a byte differs, a file is missing or not listed, or the manifest is not the one expected.
            The message names the file.
    """
    digest = expected_digest or folder.name
    manifest = BundleManifest.read(folder / MANIFEST)
    if (found := digest_of(manifest)) != digest:
        raise ContractError(f"{folder / MANIFEST}: its digest is {found[:12]}…, expected {digest[:12]}…; restore the bundle")
    if fault := _layout_fault(manifest, frozenset(entry.path for entry in manifest.files)):
        raise ContractError(f"{folder / MANIFEST}: {fault}")
    listed = {entry.path for entry in manifest.files} | {MANIFEST}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    if extra := sorted(present - listed):
        raise ContractError(f"{folder / extra[0]}: is not listed in {MANIFEST}; remove it or restore the bundle")
    for entry in manifest.files:
        path = folder / entry.path
        if path.is_symlink() or not path.is_file():
            raise ContractError(f"{path}: is missing or not a plain file; restore the bundle")
        if sha256_of(path) != entry.sha256:
            raise ContractError(f"{path}: does not match its digest in {MANIFEST}; restore the bundle")
    return OpenBundle(folder=folder, manifest=manifest, digest=digest)


def load_bundle(store: Store, digest: str) -> OpenBundle:
    """Open a bundle of the store, checking every byte.

    Raises:
        ContractError: it is missing or damaged.
    """
    return open_bundle(store.fetch(BUNDLES, digest, full=True))


def load_model(store: Store, digest: str) -> tuple[Path, ModelManifest]:
    """A trained ranker of the store: its folder and manifest, every file's digest checked.

    Raises:
        ContractError: it is missing or damaged.
    """
    return store.load(MODELS, digest, ModelManifest, full=True)


def _layout_fault(manifest: BundleManifest, files: frozenset[str]) -> str | None:
    """Why these files and features cannot be this bundle, or None."""
    if (found := feature_digest(manifest.features)) != manifest.feature_digest:
        return f"its features have the digest {found[:12]}…, expected {manifest.feature_digest[:12]}…; distill again"
    if deprecated := [feature.name for feature in manifest.features if feature.deprecated]:
        return f"feature {deprecated[0]} is deprecated; a model may not take it"
    named = [manifest.profile]
    for entry in manifest.models.values():
        named += [entry.weights, entry.network, entry.encoders, entry.calibrators, entry.graph, entry.uncalibrated_graph]
        if not entry.weights.endswith(".safetensors"):
            return f"{entry.weights} is not safetensors; nothing else may hold weights"
        if entry.graph == entry.uncalibrated_graph:
            return f"{entry.graph} is named as both twins; expected a calibrated and an uncalibrated graph"
    if missing := sorted(set(named) - files):
        return f"{missing[0]} is named but not among the bundle's files"
    for path in sorted(files):
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            return f"{path} leads out of the bundle"
        if parts.suffix not in {".json", ".onnx", ".safetensors"}:
            return f"{path} is no file of a bundle; expected .json, .onnx or .safetensors"
    return None
