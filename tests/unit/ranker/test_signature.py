"""A graph that is not its bundle's, or that cannot run here, is refused with what was found and what was expected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tidewheel.contracts.bundle import BundleManifest, ModelEntry, TensorSpec
from tidewheel.errors import ContractError
from tidewheel.ranker import OpenBundle, Scorer
from tidewheel.ranker.bundle import BUNDLES, load_bundle, ranker_entry
from tidewheel.ranker.signature import Tensor, onnx_versions, runtime_fault, signature_fault
from tidewheel.serving import start_server
from tidewheel.store import Store

INPUTS = (Tensor("ids", "tensor(int64)", ("rows", 4)), Tensor("numbers", "tensor(float)", ("rows", 7)))
OUTPUTS = (Tensor("click", "tensor(float)", ("rows",)),)
ENTRY = ranker_entry(("click",))


def test_the_graph_of_a_bundle_has_its_signature(tiny_bundle: OpenBundle) -> None:
    assert signature_fault(INPUTS, OUTPUTS, (4, 7), ENTRY) is None
    Scorer(tiny_bundle).open()


@pytest.mark.parametrize(
    ("inputs", "outputs", "entry", "message"),
    [
        (INPUTS[:1], OUTPUTS, ENTRY, "inputs are ids; expected ids, numbers"),
        (INPUTS, (), ENTRY, "outputs are none; expected click"),
        (INPUTS, OUTPUTS, ranker_entry(("click", "like")), "outputs are click; expected click, like"),
        ((Tensor("ids", "tensor(int32)", ("rows", 4)), INPUTS[1]), OUTPUTS, ENTRY, r"input is ids tensor\(int32\) \[-1, 4\]"),
        (
            (Tensor("ids", "tensor(int64)", ("rows", 5)), INPUTS[1]),
            OUTPUTS,
            ENTRY,
            r"\[-1, 5\]; expected ids tensor\(int64\) \[-1, 4\]",
        ),
        ((Tensor("ids", "tensor(int64)", (1, 4)), INPUTS[1]), OUTPUTS, ENTRY, r"ids tensor\(int64\) \[1, 4\]"),
        (INPUTS, (Tensor("click", "tensor(float)", ("rows", 1)),), ENTRY, r"\[-1, 1\]; expected click tensor\(float\) \[-1\]"),
        (INPUTS, (Tensor("click", "tensor(double)", ("rows",)),), ENTRY, r"click tensor\(double\)"),
        (
            INPUTS,
            OUTPUTS,
            ENTRY.model_copy(update={"outputs": (TensorSpec(name="click", datatype="FP64", shape=(-1,)),)}),
            r"expected click tensor\(double\)",
        ),
    ],
)
def test_names_types_and_ranks_that_differ_are_named(
    inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], entry: ModelEntry, message: str
) -> None:
    fault = signature_fault(inputs, outputs, (4, 7), entry)
    assert fault is not None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(fault)


@pytest.mark.parametrize(
    ("made_with", "runtime", "want"),
    [
        ({}, "1.2", None),
        ({"onnx_opset": "18", "onnx_ir_version": "9", "onnxruntime_min": "1.15"}, "1.31.0", None),
        ({"onnxruntime_min": "1.15"}, "1.15rc1", None),
        ({"onnxruntime_min": "1.15"}, "1.9.9", "found ONNX Runtime 1.9.9, expected 1.15 or newer"),
        ({"onnx_opset": "17"}, "1.31", "onnx_opset is 18; its bundle's runtime says 17"),
        ({"onnx_ir_version": "8"}, "1.31", "onnx_ir_version is 9; its bundle's runtime says 8"),
    ],
)
def test_what_made_a_graph_must_fit_what_runs_it(made_with: dict[str, str], runtime: str, want: str | None) -> None:
    fault = runtime_fault(made_with, runtime, ir_version=9, opset=18)
    assert (fault is None) if want is None else (fault is not None and fault.startswith(want))


def test_versions_are_read_from_the_file_itself(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    path = tiny_bundle.folder / tiny_bundle.model().graph
    model = onnx.load(path)
    assert onnx_versions(path) == (model.ir_version, model.opset_import[0].version)
    for data in (b"\xff" * 20, b"not a graph", path.read_bytes()[:-7]):
        (tmp_path / "broken.onnx").write_bytes(data)
        with pytest.raises(ContractError, match=r"broken\.onnx: is not an ONNX graph"):
            onnx_versions(tmp_path / "broken.onnx")


def _rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "renamed"
    for node in model.graph.node:
        node.output[:] = ["renamed" if name == "click" else name for name in node.output]


def _from_the_future(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def _new_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9999


@pytest.mark.parametrize(
    ("change", "is_old", "message"),
    [
        (_rename_output, False, "graph has no output click"),
        (_from_the_future, False, "onnx_ir_version is 99; its bundle's runtime says 9"),
        (_from_the_future, True, "found IR version 99 and opset 18, expected a graph that ONNX Runtime"),
        (_new_opset, True, "opset 9999"),
    ],
)
def test_a_server_refuses_a_bundle_whose_graph_is_another_or_cannot_run(
    tiny_bundle: OpenBundle, tmp_path: Path, change: Callable[[onnx.ModelProto], None], is_old: bool, message: str
) -> None:
    """Every digest is right; exit code 3, one line. `is_old`: its manifest does not say what its graphs need."""
    store = Store.open(str(tmp_path / "store"))
    folder = store.staging("bundle")
    shutil.copytree(tiny_bundle.folder, folder, dirs_exist_ok=True)
    graph = folder / tiny_bundle.model().graph
    model = onnx.load(graph)
    change(model)
    graph.write_bytes(model.SerializeToString())
    manifest = tiny_bundle.manifest.model_copy(update={"runtime": {"onnx_opset": "18"}} if is_old else {})
    if change is _new_opset:
        manifest = manifest.model_copy(update={"runtime": {}})
    digest, _ = store.publish(BUNDLES, folder, BundleManifest.model_validate(manifest.model_dump(by_alias=True)))

    opened = load_bundle(store, digest)
    with pytest.raises(ContractError, match=message):
        Scorer(opened).open()
    with pytest.raises(ContractError, match=message):
        start_server(opened.folder)


def test_a_bundle_that_does_not_say_what_made_it_still_serves(tiny_bundle: OpenBundle, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    folder = store.staging("bundle")
    shutil.copytree(tiny_bundle.folder, folder, dirs_exist_ok=True)
    manifest = tiny_bundle.manifest.model_copy(update={"runtime": {"onnx_opset": "18", "onnx": "1.23.0"}})
    digest, _ = store.publish(BUNDLES, folder, manifest)
    Scorer(load_bundle(store, digest)).open()
