"""Linear layers of widths at which rows lie a multiple of 4 KB apart, given a few columns more.

What comes in: a graph whose weights are values without content. What goes out: the same function, in which the inputs [.., K] of
such layers have `EXTRA` columns of a constant more and their weights as many rows: the first is the bias, which then costs
nothing, the others are zero. A runtime computes the longer weights once, while it loads. Where a GELU or ReLU is all that lies
between two layers, the first makes the second's columns itself; else they are appended.

onnxruntime's matrix product reads its left side in place, twelve rows at a time: rows a multiple of 4 KB apart lie in the same
lines of the processor's first cache, and the product takes up to 1.3 times as long (torch's copies them first). Measured by
tests/benchmarks/bundle.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from qcascade.bundle.graph_writer import GraphWriter, described

EXTRA = 16  # columns
_PAGE = 1024  # floats
_APPENDED, _CARRIED = 1.0, 8.0  # the columns' constant; GELU and ReLU leave 8 as it is, and dividing by it is exact


def spread(width: int) -> int:
    """Columns that rows of floats should get more.

    Example:
        >>> spread(1024), spread(384)
        (16, 0)
    """
    return EXTRA if width and width % _PAGE == 0 else 0


@dataclass(frozen=True, slots=True)
class _Layer:
    """Of x @ weight [+ bias]; weight [K, N] is a weight of the graph or the transpose of one."""

    node: ir.Node
    weight: ir.Value
    widths: tuple[int, int]  # K, N
    bias: ir.Value | None
    result: ir.Value


def widen(graph: ir.Graph, weights: Collection[ir.Value]) -> None:
    """Rewrite a graph's linear layers of such widths in place.

    Args:
        graph: Simplified, its weights among its inputs.
        weights: Which of its inputs they are.
    """
    known = {id(value) for value in weights}
    layers = [layer for node in graph if (layer := _layer(node, known)) is not None]
    wide = {id(layer.node): layer for layer in layers if spread(layer.widths[0])}
    if not wide:
        return
    write = GraphWriter(graph, "wide")
    columns: dict[int, tuple[ir.Value, float]] = {}  # of a layer's input: itself made wider, and by what constant
    for layer in layers:
        own, carrier = id(layer.node) in wide, _activation(layer, wide)
        if not own and carrier is None:
            continue
        write.before = layer.node
        x, weight, bias = layer.node.inputs[0], layer.weight, layer.bias
        assert x is not None
        constant = 0.0
        if own:
            if id(x) not in columns:
                appended = write("Pad", x, write.integers(0, EXTRA), write.number(_APPENDED), write.integers(-1))
                columns[id(x)] = described(appended, x, EXTRA), _APPENDED
            x, constant = columns[id(x)]
        if carrier is not None:
            weight = write("Pad", weight, write.integers(0, EXTRA), None, write.integers(-1))
            if bias is None:
                bias = write("Expand", write.number(0.0), write.integers(layer.widths[1]))
                bias.dtype, bias.shape = ir.DataType.FLOAT, ir.Shape([layer.widths[1]])
            bias = described(write("Pad", bias, write.integers(0, EXTRA), write.number(_CARRIED)), bias, EXTRA)
            columns[id(carrier)] = carrier, _CARRIED
        rows = EXTRA if own else 0
        if own and bias is not None:
            row = bias if constant == 1 else write("Div", bias, write.number(constant))
            weight = write("Concat", weight, write("Unsqueeze", row, write.integers(0)), axis=0)
            rows, bias = rows - 1, None
        if rows:
            weight = write("Pad", weight, write.integers(0, rows), None, write.integers(0))
        more = 0 if carrier is None else EXTRA
        found = described(write("MatMul", x, weight), layer.result, more)
        found = found if bias is None else described(write("Add", found, bias), layer.result, more)
        if carrier is not None:
            described(carrier, carrier, EXTRA)
        layer.result.replace_all_uses_with(found, replace_graph_outputs=True)
        done = {id(node): node for node in (layer.result.producer(), layer.node) if node is not None}
        graph.remove(list(done.values()), safe=True)  # they no longer count as uses


def _layer(node: ir.Node, known: Collection[int]) -> _Layer | None:
    if node.domain or node.op_type != "MatMul" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    weight = stored = node.inputs[1]
    turned = weight.producer()
    if turned is not None and turned.op_type == "Transpose" and turned.inputs[0] is not None:
        order = turned.attributes.get("perm")
        if order is not None and list(order.as_ints()) != [1, 0]:
            return None
        stored = turned.inputs[0]
    if id(stored) not in known or id(node.inputs[0]) in known or stored.dtype != ir.DataType.FLOAT:
        return None
    sizes = [size for size in stored.shape or () if isinstance(size, int)]
    if len(sizes) != 2 or stored.shape is None or len(stored.shape) != 2:
        return None
    inner, outer = sizes if stored is weight else reversed(sizes)
    result, bias = node.outputs[0], None
    uses = list(result.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not result.is_graph_output():
        other = next((value for value in uses[0].node.inputs if value is not result), None)
        if other is not None and id(other) in known and other.shape is not None and tuple(other.shape) == (outer,):
            result, bias = uses[0].node.outputs[0], other
    return _Layer(node, weight, (inner, outer), bias, result)


def _activation(layer: _Layer, wide: Collection[int]) -> ir.Value | None:
    """What follows a layer, where that leaves a constant as it is and goes into one of the wide layers, and nowhere else."""
    uses = list(layer.result.uses())
    if len(uses) != 1 or layer.result.is_graph_output() or uses[0].node.op_type not in ("Gelu", "Relu"):
        return None
    made = uses[0].node.outputs[0]
    only = not made.is_graph_output() and all(use.idx == 0 and id(use.node) in wide for use in made.uses())
    return made if only and made.uses() else None
