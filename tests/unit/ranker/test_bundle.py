"""Bundles: what opens, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tidewheel.contracts.schema import FeatureSpec, feature_digest
from tidewheel.errors import ContractError
from tidewheel.ranker import OpenBundle, load_bundle, open_bundle, publish
from tidewheel.ranker.calibration import Calibrators, Platt
from tidewheel.ranker.export import export_graph
from tidewheel.ranker.model import load_ranker
from tidewheel.store import Store


@pytest.fixture
def copy(tiny_bundle: OpenBundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / tiny_bundle.digest))


def files_of(bundle: OpenBundle) -> list[str]:
    return [entry.path for entry in bundle.manifest.files]


def test_a_bundle_lists_all_of_its_files(tiny_bundle: OpenBundle):
    present = {p.relative_to(tiny_bundle.folder).as_posix() for p in tiny_bundle.folder.rglob("*") if p.is_file()}
    assert present == {*files_of(tiny_bundle), "manifest.json"}
    assert tiny_bundle.digest == tiny_bundle.folder.name == tiny_bundle.manifest.digest


def test_one_flipped_byte_in_any_file_is_refused_and_the_file_is_named(tiny_bundle: OpenBundle, copy: Path):
    for name in files_of(tiny_bundle):
        path = copy / name
        original = path.read_bytes()
        middle = len(original) // 2
        path.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
        with pytest.raises(ContractError, match=path.name.replace(".", r"\.")):
            open_bundle(copy)
        path.write_bytes(original)
    assert open_bundle(copy).digest == tiny_bundle.digest


def test_a_changed_manifest_is_refused(copy: Path):
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"run_id": "tiny"', '"run_id": "tidy"'))
    with pytest.raises(ContractError, match=r"manifest\.json: its digest is"):
        open_bundle(copy)


def test_a_truncated_manifest_is_refused(copy: Path):
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ContractError, match=r"manifest\.json"):
        open_bundle(copy)


def test_a_missing_file_is_named(copy: Path):
    (copy / "ranker" / "graph.onnx").unlink()
    with pytest.raises(ContractError, match=r"graph\.onnx: is missing"):
        open_bundle(copy)


def test_a_file_that_is_not_listed_is_refused(copy: Path):
    (copy / "ranker" / "model.pkl").write_bytes(b"pickle")
    with pytest.raises(ContractError, match=r"model\.pkl: is not listed"):
        open_bundle(copy)


def test_a_link_in_place_of_a_file_is_refused(copy: Path, tmp_path: Path):
    graph = copy / "ranker" / "graph.onnx"
    graph.rename(tmp_path / "elsewhere.onnx")
    graph.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ContractError, match=r"graph\.onnx"):
        open_bundle(copy)


def test_a_bundle_under_another_name_opens_only_by_its_digest(tiny_bundle: OpenBundle, copy: Path):
    moved = copy.rename(copy.with_name("bundle"))
    with pytest.raises(ContractError, match="expected bundle"):
        open_bundle(moved)
    assert open_bundle(moved, expected_digest=tiny_bundle.digest).manifest == tiny_bundle.manifest


def test_a_folder_with_a_pickle_is_not_published(tiny_bundle: OpenBundle, tmp_path: Path):
    store = Store.open(str(tmp_path / "store"))
    staging = store.staging("bundle")
    shutil.copytree(tiny_bundle.folder, staging, dirs_exist_ok=True)
    (staging / "manifest.json").unlink()
    (staging / "extra.pkl").write_bytes(b"pickle")
    with pytest.raises(ContractError, match=r"extra\.pkl is no file of a bundle"):
        publish(store, staging, tiny_bundle.manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"features": m.features[:-1]}, "its features have the digest .*, expected .*; distill again"),
        (lambda m: {"feature_digest": "7" * 64}, "its features have the digest .*, expected 777777777777"),
        (lambda m: {"features": (deprecated(m.features[0]), *m.features)}, "feature user_id is deprecated"),
    ],
)
def test_a_bundle_that_disagrees_with_its_own_features_neither_publishes_nor_opens(
    tiny_bundle: OpenBundle, copy: Path, tmp_path: Path, change, message: str
):
    manifest = tiny_bundle.manifest.model_copy(update=change(tiny_bundle.manifest))
    manifest.write(copy / "manifest.json")
    with pytest.raises(ContractError, match=message):
        open_bundle(copy, expected_digest=manifest.digest)
    with pytest.raises(ContractError, match=message):
        publish(Store.open(str(tmp_path / "store")), copy, manifest)


def deprecated(feature: FeatureSpec) -> FeatureSpec:
    return feature.model_copy(update={"id": 99, "deprecated": True})


def test_encoders_that_take_other_features_than_the_bundle_lists_are_refused(tiny_bundle: OpenBundle):
    features = tiny_bundle.manifest.features[1:]
    manifest = tiny_bundle.manifest.model_copy(update={"features": features, "feature_digest": feature_digest(features)})
    with pytest.raises(ContractError, match=r"encoders\.json: takes user_id otherwise"):
        OpenBundle(tiny_bundle.folder, manifest, manifest.digest).encoders()


@pytest.mark.parametrize("part", ["graph", "uncalibrated_graph", "calibrators", "weights"])
def test_a_bundle_without_both_twins_neither_publishes_nor_opens(
    tiny_bundle: OpenBundle, copy: Path, tmp_path: Path, part: str
):
    path = getattr(tiny_bundle.model(), part)
    (copy / path).unlink()
    with pytest.raises(ContractError, match=f"{path}: is missing"):
        open_bundle(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(ContractError, match=f"{path} is named but not among the bundle's files"):
        publish(Store.open(str(tmp_path / "store")), copy, tiny_bundle.manifest)


def test_a_manifest_that_lists_no_twin_is_refused_although_nothing_is_missing(tiny_bundle: OpenBundle, copy: Path):
    twin = tiny_bundle.model().uncalibrated_graph
    (copy / twin).unlink()
    files = tuple(entry for entry in tiny_bundle.manifest.files if entry.path != twin)
    manifest = tiny_bundle.manifest.model_copy(update={"files": files})
    manifest.write(copy / "manifest.json")
    with pytest.raises(ContractError, match=f"{twin} is named but not among the bundle's files"):
        open_bundle(copy, expected_digest=manifest.digest)


def test_one_graph_for_both_twins_is_refused(tiny_bundle: OpenBundle, copy: Path):
    entry = tiny_bundle.model()
    models = {"ranker": entry.model_copy(update={"uncalibrated_graph": entry.graph})}
    manifest = tiny_bundle.manifest.model_copy(update={"models": models})
    manifest.write(copy / "manifest.json")
    with pytest.raises(ContractError, match=r"graph\.onnx is named as both twins"):
        open_bundle(copy, expected_digest=manifest.digest)


@pytest.mark.parametrize("twin", ["graph", "uncalibrated_graph"])
def test_twins_of_different_weights_are_not_published(tiny_bundle: OpenBundle, copy: Path, tmp_path: Path, twin: str):
    entry = tiny_bundle.model()
    other = load_ranker(copy / entry.weights, copy / entry.network)
    other.heads.bias.data[0] += 1e-4
    calibrators = Calibrators.read(copy / entry.calibrators) if twin == "graph" else None
    export_graph(other, copy / getattr(entry, twin), calibrators)
    (copy / "manifest.json").unlink()
    with pytest.raises(ContractError, match=rf"{getattr(entry, twin)} is not the graph of ranker/weights\.safetensors"):
        publish(Store.open(str(tmp_path / "store")), copy, tiny_bundle.manifest)


def test_calibrators_that_are_not_those_of_the_graph_are_not_published(tiny_bundle: OpenBundle, copy: Path, tmp_path: Path):
    path = copy / tiny_bundle.model().calibrators
    calibrators = Calibrators.read(path).by_label
    (copy / "manifest.json").unlink()
    Calibrators(by_label=calibrators | {"like": Platt(shift=0.5)}).write(path)
    with pytest.raises(ContractError, match=r"graph\.onnx is not the graph of .* with ranker/calibrators\.json"):
        publish(Store.open(str(tmp_path / "store")), copy, tiny_bundle.manifest)
    Calibrators(by_label={"click": calibrators["click"]}).write(path)
    with pytest.raises(ContractError, match=r"calibrators\.json has no calibrator for like"):
        publish(Store.open(str(tmp_path / "store")), copy, tiny_bundle.manifest)


def test_publishing_the_same_bundle_in_another_store_gives_the_same_digest(tiny_bundle: OpenBundle, tmp_path: Path):
    store = Store.open(str(tmp_path / "store"))
    staging = store.staging("bundle")
    shutil.copytree(tiny_bundle.folder, staging, dirs_exist_ok=True)
    (staging / "manifest.json").unlink()
    digest, _ = publish(store, staging, tiny_bundle.manifest)
    assert digest == tiny_bundle.digest
    assert load_bundle(store, digest).manifest == tiny_bundle.manifest


def test_a_bundle_without_the_model_asked_for_says_which_it_has(tiny_bundle: OpenBundle):
    with pytest.raises(ContractError, match="has no model retrieval; found ranker"):
        tiny_bundle.model("retrieval")
