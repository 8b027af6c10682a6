"""The ranker as ONNX, built node by node from its weights.

A tracing exporter takes seconds a graph and needs half a compiler at import; this network has a dozen operators. Parity
with the torch module is a test, to 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tidewheel.ranker.calibration import Calibrator, Calibrators, Isotonic, Platt
from tidewheel.ranker.export_blocks import GraphBuilder, network_nodes
from tidewheel.ranker.histogram import Histogram, Line
from tidewheel.ranker.model import Ranker

OPSET = 18
IR_VERSION = 9  # the oldest that knows this opset: older runtimes can load it
RUNTIME = {
    "onnx_opset": str(OPSET),
    "onnx_ir_version": str(IR_VERSION),
    "onnx": onnx.__version__,
    "onnxruntime_min": "1.15",  # the first that knows both
}


def export_graph(ranker: Ranker, path: Path, calibrators: Calibrators | None = None) -> None:
    """Write the ranker as an ONNX graph.

    Inputs: `ids` (B, F_c + S) int64, `numbers` (B, F_n + S) float32, S items of sequences. Outputs: one float32 tensor (B,) a
    label under the label's name, calibrated probabilities with `calibrators` and logits without.
    """
    network = ranker.network
    graph = GraphBuilder()
    logits = network_nodes(graph, ranker)
    for at, label in enumerate(network.labels):
        index = graph.constant(f"index_{at}", np.array(at, dtype=np.int64))
        if calibrators is None:
            graph.node("Gather", logits, index, axis=1, output=label)
        else:
            _calibrator_nodes(graph, graph.node("Gather", logits, index, axis=1), calibrators.by_label[label], label)
    num_ids, num_numbers = network.input_widths
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", num_ids]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["rows", num_numbers]),
    ]
    outputs = [helper.make_tensor_value_info(label, TensorProto.FLOAT, ["rows"]) for label in network.labels]
    proto = helper.make_graph(graph.nodes, "ranker", inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tidewheel")
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _calibrator_nodes(graph: GraphBuilder, logit: str, calibrator: Calibrator, label: str) -> None:
    """Logit (B,) -> probability (B,) named after the label."""
    if isinstance(calibrator, Platt):
        scale = graph.constant(f"{label}_scale", np.array(calibrator.scale, dtype=np.float32))
        shift = graph.constant(f"{label}_shift", np.array(calibrator.shift, dtype=np.float32))
        graph.node("Sigmoid", graph.node("Add", graph.node("Mul", logit, scale), shift), output=label)
        return
    if isinstance(calibrator, Histogram):
        _histogram_nodes(graph, logit, calibrator, label)
        return
    assert isinstance(calibrator, Isotonic)
    # A line with kinks is p_0 + sum_k (change of slope at k) * relu(x - x_k). In doubles: steep pieces cancel.
    knots = np.array(calibrator.logits)
    values = np.array(calibrator.probabilities)
    slopes = np.concatenate([[0.0], np.diff(values) / np.diff(knots), [0.0]])
    clipped = graph.node("Cast", graph.node("Unsqueeze", logit, graph.shape(1)), to=TensorProto.DOUBLE)
    kinks = graph.node("Relu", graph.node("Sub", clipped, graph.constant(f"{label}_knots", knots)))  # (B, K)
    bent = graph.node("MatMul", kinks, graph.constant(f"{label}_bends", np.diff(slopes)))  # (B,)
    line = graph.node("Add", bent, graph.constant(f"{label}_start", values[0]))
    graph.node("Cast", line, output=label, to=TensorProto.FLOAT)


def _histogram_nodes(graph: GraphBuilder, logit: str, calibrator: Histogram, label: str) -> None:
    """Logit (B,) and the slice's column of `ids` -> probability (B,). In doubles, as in `Histogram.apply`."""

    def number(name: str, value: float) -> str:
        return graph.constant(f"{label}_{name}", np.array(value, dtype=np.float64))

    scaled = graph.node("Mul", graph.node("Cast", logit, to=TensorProto.DOUBLE), number("scale", calibrator.scale))
    log_odds = graph.node("Add", scaled, number("shift", calibrator.shift))
    log_odds = _line_nodes(graph, log_odds, (calibrator.overall,), f"{label}_overall", graph.constant(f"{label}_all", _FIRST))
    if calibrator.by_id:
        own = np.zeros(max(calibrator.by_id) + 2, dtype=np.int64)  # id -> its line; 0 is the identity
        own[sorted(calibrator.by_id)] = np.arange(1, 1 + len(calibrator.by_id))
        column = graph.constant(f"{label}_column", np.array(calibrator.column, dtype=np.int64))
        ids = graph.node("Gather", "ids", column, axis=1)
        ids = graph.node("Min", ids, graph.constant(f"{label}_last", np.array(len(own) - 1, dtype=np.int64)))
        line = graph.node("Gather", graph.constant(f"{label}_own", own), ids)
        lines = (Line(), *(line for _, line in sorted(calibrator.by_id.items())))  # in the order of ids, not that of a file
        log_odds = _line_nodes(graph, log_odds, lines, f"{label}_slice", line)
    graph.node("Sigmoid", graph.node("Cast", log_odds, to=TensorProto.FLOAT), output=label)


_FIRST = np.zeros(1, dtype=np.int64)


def _line_nodes(graph: GraphBuilder, values: str, lines: Sequence[Line], name: str, line: str) -> str:
    """values (B,) and the number of each row's line (B,) or (1,) -> x + offset + sum_k bends_k * relu(x - inputs_k), (B,)."""
    width = max(1, *(len(found.inputs) for found in lines))
    offsets, bends, knots = np.zeros(len(lines)), np.zeros((len(lines), width)), np.zeros((len(lines), width))
    for at, found in enumerate(lines):
        offsets[at], found_bends = found.bends()
        bends[at, : len(found_bends)], knots[at, : len(found_bends)] = found_bends, found.inputs
    of_row = {
        part: graph.node("Gather", graph.constant(f"{name}_{part}", table), line)
        for part, table in (("offsets", offsets), ("bends", bends), ("knots", knots))
    }
    kinks = graph.node("Relu", graph.node("Sub", graph.node("Unsqueeze", values, graph.shape(1)), of_row["knots"]))
    bent = graph.node("ReduceSum", graph.node("Mul", kinks, of_row["bends"]), graph.shape(1), keepdims=0)
    return graph.node("Add", graph.node("Add", values, of_row["offsets"]), bent)
