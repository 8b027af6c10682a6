"""What it would cost to have the encoders in the graph: the same columns encoded by NumPy and by ONNX nodes, in turn.

    tidewheel simulate --recipe recipes/quickstart.yaml --turns 1 --home HOME
    python -m bench.encoders_as_graph --home HOME

Nodes of the standard operators for hashed, vocabulary and numeric features, without nulls of whole numbers: ONNX has none.
"cold": each call comes after a pause and a score, as it does in a server.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.serving_batches import production, random_batches
from tidewheel.contracts.schema import FeatureKind, FeatureSpec
from tidewheel.ranker import Scorer
from tidewheel.ranker.encoding import CLIP, Encoders

BATCHES, CALLS = 16, 500
PAUSE_SECONDS = 0.002
_TYPES = {FeatureKind.HASHED: TensorProto.INT64, FeatureKind.VOCABULARY: TensorProto.STRING}


class Nodes:
    """Nodes and constants of a graph; every method returns the name of a value."""

    def __init__(self, rows_of: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._axis = self.constant(np.array([1], dtype=np.int64))
        self._rows = self.node("Shape", rows_of)

    def constant(self, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def node(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], domain=domain, **attributes))
        return output

    def cast(self, value: str, kind: int) -> str:
        return self.node("Cast", value, to=kind)

    def column(self, name: str) -> str:
        """(B, 1) of an input of length B or 1."""
        return self.node("Unsqueeze", self.node("Expand", name, self._rows), self._axis)


def graph_of(encoders: Encoders, rows_of: str) -> bytes:
    """What `Encoders.encode` computes, as an ONNX graph; `rows_of` is an input of length B."""
    nodes = Nodes(rows_of)
    hashed = [feature for feature in encoders.categorical if feature.kind is FeatureKind.HASHED]
    parts = [_hashed(nodes, hashed)]
    named = [feature for feature in encoders.categorical if feature not in hashed]
    parts += [nodes.column(_looked_up(nodes, feature.name, encoders.vocabularies[feature.name])) for feature in named]
    order = [(*hashed, *named).index(feature) for feature in encoders.categorical]
    joined = nodes.node("Concat", *parts, axis=1)
    nodes.node("Gather", joined, nodes.constant(np.array(order, dtype=np.int64)), axis=1, output="ids")
    _numbers(nodes, encoders)
    inputs = [
        helper.make_tensor_value_info(feature.name, _TYPES.get(feature.kind, TensorProto.DOUBLE), [None])
        for feature in encoders.features
    ]
    outputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, [None, None]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, None]),
    ]
    graph = helper.make_graph(nodes.nodes, "encoders", inputs, outputs, nodes.constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    found: bytes = model.SerializeToString()
    return found


def _looked_up(nodes: Nodes, name: str, vocabulary: Sequence[str]) -> str:
    """(B,) 1 + the position of each text, 0 where it is unknown."""
    numbers = list(range(1, 1 + len(vocabulary)))
    domain = "ai.onnx.ml"
    return nodes.node(
        "LabelEncoder", name, domain=domain, keys_strings=list(vocabulary), values_int64s=numbers, default_int64=0
    )


def _hashed(nodes: Nodes, features: Sequence[FeatureSpec]) -> str:
    """(B, F): 1 + splitmix64 modulo the number of buckets; ONNX Runtime multiplies int64 alone, and shifts uint64."""
    keys = nodes.node("Concat", *[nodes.column(feature.name) for feature in features], axis=1)
    sizes = nodes.constant(np.array([[feature.num_buckets for feature in features]], dtype=np.uint64))

    def shifted(value: str, bits: int) -> str:
        by = nodes.constant(np.array(bits, dtype=np.uint64))
        return nodes.node("BitwiseXor", value, nodes.node("BitShift", value, by, direction="RIGHT"))

    def times(value: str, factor: int) -> str:
        by = nodes.constant(np.array(factor, dtype=np.uint64).view(np.int64))
        return nodes.cast(nodes.node("Mul", nodes.cast(value, TensorProto.INT64), by), TensorProto.UINT64)

    gamma = nodes.constant(np.array(0x9E3779B97F4A7C15, dtype=np.uint64).view(np.int64))
    mixed = nodes.cast(nodes.node("Add", keys, gamma), TensorProto.UINT64)
    mixed = times(shifted(mixed, 30), 0xBF58476D1CE4E5B9)
    mixed = times(shifted(mixed, 27), 0x94D049BB133111EB)
    bucket = nodes.node("Mod", shifted(mixed, 31), sizes)
    return nodes.node("Add", nodes.cast(bucket, TensorProto.INT64), nodes.constant(np.array(1, dtype=np.int64)))


def _numbers(nodes: Nodes, encoders: Encoders) -> None:
    """All numeric features as one matrix (B, F)."""
    numeric, moments = encoders.numeric, encoders.moments
    zero, one, most = (nodes.constant(np.array(value)) for value in (0.0, 1.0, np.finfo(np.float64).max))
    values = nodes.node("Concat", *[nodes.column(feature.name) for feature in numeric], axis=1)
    is_null = nodes.node("Not", nodes.node("LessOrEqual", nodes.node("Abs", values), most))
    values = nodes.node("Where", is_null, zero, values)
    logs = nodes.node("Log", nodes.node("Add", nodes.node("Max", values, zero), one))
    has_log = nodes.constant(np.array([[feature.transform == "log1p" for feature in numeric]]))
    values = nodes.node("Where", has_log, logs, values)
    means, deviations = (
        nodes.constant([[getattr(moments[feature.name], part) for feature in numeric]]) for part in ("mean", "deviation")
    )
    values = nodes.node("Div", nodes.node("Sub", values, means), deviations)
    values = nodes.node("Clip", values, nodes.constant(np.array(-CLIP)), nodes.constant(np.array(CLIP)))
    values = nodes.cast(nodes.node("Where", is_null, zero, values), TensorProto.FLOAT)
    flagged = [at for at, feature in enumerate(numeric) if moments[feature.name].has_nulls]
    parts = [values]
    if flagged:
        flags = nodes.node("Gather", is_null, nodes.constant(np.array(flagged, dtype=np.int64)), axis=1)
        parts.append(nodes.cast(flags, TensorProto.FLOAT))
    nodes.node("Concat", *parts, axis=1, output="numbers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name", default="quickstart", help="name of the recipe; without sequences")
    parser.add_argument("--candidates", type=int, default=500)
    options = parser.parse_args()
    bundle = production(options.home, options.name)
    scorer = Scorer(bundle)
    encoders = scorer.encoders
    batches = random_batches(bundle, options.candidates, BATCHES)
    rows_of = next(name for name, values in batches[0].items() if len(values) == options.candidates)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph_of(encoders, rows_of), settings, providers=["CPUExecutionProvider"])
    ways: dict[str, Callable[[Mapping[str, np.ndarray]], Any]] = {
        "NumPy": encoders.encode,
        "ONNX Runtime": lambda columns: session.run(["ids", "numbers"], columns),
    }
    for columns in batches:
        ids, numbers = ways["ONNX Runtime"](columns)
        want = encoders.encode(columns)
        assert np.array_equal(ids, want.ids)
        assert np.abs(numbers - want.numbers).max() <= 1e-6
    for state in ("warm", "cold"):
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for at in range(CALLS):
            for name, encode in ways.items():
                if state == "cold":
                    time.sleep(PAUSE_SECONDS)
                    scorer.score(batches[(at + 1) % BATCHES])
                started = time.perf_counter()
                encode(batches[at % BATCHES])
                taken[name].append(time.perf_counter() - started)
        said = ", ".join(f"{name} {1e6 * np.median(found):.0f} us" for name, found in taken.items())
        ratio = np.median(taken["ONNX Runtime"]) / np.median(taken["NumPy"])
        print(f"{state}: {options.candidates} candidates, medians of {CALLS}: {said}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
