"""Every block of the network as ONNX nodes: what its `forward` computes, in the same order (layers.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor, nn

from tidewheel.ranker.layers import ContextGate, Experts, ExtractionLevel, GatedHeads, LowRankCross, TaskHeads
from tidewheel.ranker.model import Ranker
from tidewheel.ranker.sequence import SequenceEncoder


class GraphBuilder:
    """Collects nodes and constants; every method returns the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Tensor | np.ndarray) -> str:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def shape(self, *sizes: int) -> str:
        name = "shape_" + "_".join(str(size).replace("-", "m") for size in sizes)
        if all(constant.name != name for constant in self.constants):
            self.constant(name, np.array(sizes, dtype=np.int64))
        return name


def network_nodes(graph: GraphBuilder, ranker: Ranker) -> str:
    """Ranker.forward; returns the name of the logits (B, T)."""
    network = ranker.network
    ids = _columns_nodes(graph, "ids", 0, len(network.sizes)) if network.sequences else "ids"
    numbers = _columns_nodes(graph, "numbers", 0, network.num_numbers) if network.sequences else "numbers"
    rows = graph.node("Add", ids, graph.constant("offsets", ranker.embeddings.offsets))
    table = graph.constant("embeddings", ranker.embeddings.table)
    embedded = graph.node("Gather", table, rows, axis=0)
    width = len(network.sizes) * network.config.embedding_dim
    summaries = [_sequence_nodes(graph, sequence, f"sequence_{at}", table) for at, sequence in enumerate(ranker.sequences)]
    columns = graph.node("Concat", graph.node("Reshape", embedded, graph.shape(-1, width)), numbers, *summaries, axis=1)
    x0 = columns if ranker.context is None else _context_nodes(graph, ranker.context, columns)
    x = x0
    for at, cross in enumerate(ranker.crosses):
        assert isinstance(cross, LowRankCross)
        x = _cross_nodes(graph, cross, f"cross_{at}", x0, x)
    if ranker.cross_heads is None:
        deep = _deep_nodes(graph, ranker, x)
    else:
        crossed = graph.node("MatMul", x, graph.constant("cross_heads", ranker.cross_heads))
        deep = graph.node("Add", _deep_nodes(graph, ranker, x0), crossed)
    deep = graph.node("Add", deep, graph.node("MatMul", columns, graph.constant("wide", ranker.wide)))
    wide = graph.node("Gather", graph.constant("wide_table", ranker.wide_table), rows, axis=0)  # (B, F_c, T)
    return graph.node("Add", deep, graph.node("ReduceSum", wide, graph.shape(1), keepdims=0))


def _columns_nodes(graph: GraphBuilder, of: str, first: int, count: int) -> str:
    """`count` columns of a matrix."""
    return graph.node("Slice", of, graph.shape(first), graph.shape(first + count), graph.shape(1))


def _sequence_nodes(graph: GraphBuilder, sequence: nn.Module, name: str, table: str) -> str:
    """(B, D), from the graph's inputs and the table of embeddings."""
    assert isinstance(sequence, SequenceEncoder)
    place, attention = sequence.place, sequence.attention
    ids = _columns_nodes(graph, "ids", place.first_id, place.length)
    ages = graph.node("Unsqueeze", _columns_nodes(graph, "numbers", place.first_number, place.length), graph.shape(2))
    offset = graph.constant(f"{name}_offset", np.array(sequence.offset, dtype=np.int64))
    items = graph.node("Gather", table, graph.node("Add", ids, offset), axis=0)  # (B, L, D)
    of = graph.node("Add", _columns_nodes(graph, "ids", place.of, 1), offset)
    target = graph.node("Expand", graph.node("Gather", table, of, axis=0), graph.shape(1, place.length, 1))
    seen = graph.node("Concat", items, target, graph.node("Mul", items, target), ages, axis=2)
    hidden = graph.node("Relu", _affine_nodes(graph, f"{name}_hidden", seen, attention.weight, attention.bias))
    out = graph.node("MatMul", hidden, graph.constant(f"{name}_out", attention.out))
    weights = graph.node("Add", out, graph.constant(f"{name}_one", np.array(1, dtype=np.float32)))  # (B, L, 1)
    is_there = graph.node("Cast", graph.node("Greater", ids, graph.shape(0)), to=onnx.TensorProto.FLOAT)
    weights = graph.node("Mul", weights, graph.node("Unsqueeze", is_there, graph.shape(2)))
    return graph.node("ReduceSum", graph.node("Mul", weights, items), graph.shape(1), keepdims=0)


def _deep_nodes(graph: GraphBuilder, ranker: Ranker, x: str) -> str:
    """x (B, X) -> (B, T)."""
    h = graph.node("Unsqueeze", x, graph.shape(0))  # (1, B, X)
    if isinstance(ranker.experts, Experts):
        h = _experts_nodes(graph, ranker.experts, "expert", h)
    else:
        for at, level in enumerate(ranker.experts):
            assert isinstance(level, ExtractionLevel)
            h = _level_nodes(graph, level, f"level_{at}", h, is_first=at == 0)
    if isinstance(ranker.heads, GatedHeads):
        return _gated_heads_nodes(graph, ranker.heads, x, h)
    return _task_heads_nodes(graph, ranker.heads, h)


def _context_nodes(graph: GraphBuilder, gate: ContextGate, x: str) -> str:
    """x (B, X) -> (B, X), the context's columns first."""
    c = graph.node("Gather", x, graph.constant("context", gate.context), axis=1)
    o = graph.node("Gather", x, graph.constant("others", gate.others), axis=1)
    h = _affine_nodes(graph, "context_down", graph.node("Concat", c, o, axis=1), gate.down, gate.down_bias)
    scale = graph.node("Sigmoid", _affine_nodes(graph, "context_up", graph.node("Relu", h), gate.up, gate.up_bias))
    doubled = graph.node("Mul", scale, graph.constant("two", np.array(2, dtype=np.float32)))
    return graph.node("Concat", c, graph.node("Mul", doubled, o), axis=1)


def _cross_nodes(graph: GraphBuilder, cross: LowRankCross, name: str, x0: str, x: str) -> str:
    """x0, x (B, X) -> (B, X)."""
    down, up, bias = (graph.constant(f"{name}_{part}", getattr(cross, part)) for part in ("down", "up", "bias"))
    pairs = graph.node("Add", graph.node("MatMul", graph.node("MatMul", x, down), up), bias)
    return graph.node("Add", graph.node("Mul", x0, pairs), x)


def _experts_nodes(graph: GraphBuilder, experts: Experts, name: str, h: str) -> str:
    """h (1 or E, B, X) -> (B, E, H)."""
    for at, (weight, bias) in enumerate(zip(experts.weights, experts.biases, strict=True)):
        h = graph.node("Relu", _affine_nodes(graph, f"{name}_{at}", h, weight, bias))
    return graph.node("Transpose", h, perm=[1, 0, 2])


def _gated_heads_nodes(graph: GraphBuilder, heads: GatedHeads, x: str, h: str) -> str:
    """x (B, X), h (B, E, H) -> (B, T)."""
    gates = graph.node("MatMul", x, graph.constant("gates", heads.gates))
    mix = graph.node("Softmax", graph.node("Reshape", gates, graph.shape(-1, heads.labels, heads.experts)), axis=2)
    said = graph.node("MatMul", h, graph.constant("heads", heads.heads.t()))  # (B, E, T)
    mixed = graph.node("Mul", mix, graph.node("Transpose", said, perm=[0, 2, 1]))
    summed = graph.node("ReduceSum", mixed, graph.shape(2), keepdims=0)
    return graph.node("Add", summed, graph.constant("bias", heads.bias))


def _level_nodes(graph: GraphBuilder, level: ExtractionLevel, name: str, z: str, is_first: bool) -> str:
    """z (1 or T + 1, B, X) -> (S, B, H)."""
    own, seen = z, z
    if not is_first:
        own = graph.node("Gather", z, graph.constant(f"{name}_owners", level.owners), axis=0)  # (E, B, X)
        streams = graph.constant(f"{name}_streams", np.arange(level.streams, dtype=np.int64))
        seen = graph.node("Gather", z, streams, axis=0)  # (S, B, X)
    h = _experts_nodes(graph, level.experts, name, own)
    gates = _affine_nodes(graph, f"{name}_gates", seen, level.gates, level.mask)
    mix = graph.node("Transpose", graph.node("Softmax", gates, axis=2), perm=[1, 0, 2])  # (B, S, E)
    return graph.node("Transpose", graph.node("MatMul", mix, h), perm=[1, 0, 2])


def _task_heads_nodes(graph: GraphBuilder, heads: TaskHeads, z: str) -> str:
    """z (T, B, H) -> (B, T)."""
    scaled = graph.node("Mul", graph.node("Transpose", z, perm=[1, 0, 2]), graph.constant("heads", heads.heads))
    summed = graph.node("ReduceSum", scaled, graph.shape(2), keepdims=0)
    return graph.node("Add", summed, graph.constant("bias", heads.bias))


def _affine_nodes(graph: GraphBuilder, name: str, x: str, weight: Tensor, bias: Tensor) -> str:
    """x W + b."""
    weighted = graph.node("MatMul", x, graph.constant(f"{name}_weight", weight))
    return graph.node("Add", weighted, graph.constant(f"{name}_bias", bias))
