"""Feed-forward layers over thousands of rows, in parts of the rows.

What comes in: a graph whose weights are values without content. What goes out: the same function, in which two linear layers with
an activation between them are the body of a Scan over equal parts of their rows: the largest number of parts, up to `MOST`, that
divides the rows and leaves at least `ROWS` in each; one part where none does. What the rows are is known when the graph runs.

onnxruntime's matrix product goes through all rows for every 128 columns of the weights: with some thousands of rows these fit
neither the second cache nor the table of pages, and a product takes up to 1.6 times as long as in parts of 512. In parts, what lies
between the layers stays small too. The weights are in one place, so that onnxruntime arranges them once. Measured by
tests/benchmarks/bundle.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from qcascade.bundle.graph_writer import GraphWriter, described
from qcascade.bundle.linear_layers import LinearLayer, constants, linear_layer, only_use
from qcascade.bundle.turns import MAX_TURNS

ROWS = 512  # of a part, at least
MOST = MAX_TURNS  # parts, which is what the loader allows
WORTH = 2**18  # weights of a layer; smaller layers stay as they are
_ACTIVATIONS = frozenset({"Gelu", "Relu", "Tanh", "Sigmoid", "Elu", "LeakyRelu", "HardSwish", "Softplus", "Mish"})


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two layers: nodes in order, x [.., K] that the first takes, y [.., N] that the last makes."""

    nodes: tuple[ir.Node, ...]
    x: ir.Value
    y: ir.Value


def in_parts(graph: ir.Graph, weights: Collection[ir.Value]) -> None:
    """Rewrite a graph's pairs of layers in place.

    Args:
        graph: Simplified, its weights among its inputs.
        weights: Which of its inputs they are.
    """
    fixed = constants(graph, weights)
    pairs = [pair for node in graph if (pair := _pair(node, fixed)) is not None]
    write = GraphWriter(graph, "part")
    counts: dict[tuple[str, ...], tuple[ir.Value, ir.Value]] = {}
    for pair in pairs:
        write.before = pair.nodes[-1]
        sizes = tuple(str(size) for size in (pair.x.shape or ())[:-1])
        key = sizes if "None" not in sizes else (str(pair.x.name),)
        if key not in counts:
            counts[key] = _count(write, pair.x)
        leading, parts = counts[key]
        wide = write("Shape", pair.x, start=-1)
        x = write("Reshape", pair.x, write("Concat", parts, write.integers(-1), wide, axis=0))
        done = write("Scan", x, body=_body(pair, write), num_scan_inputs=1)
        shape = write("Concat", leading, write("Shape", done, start=-1), axis=0)
        found = described(write("Reshape", done, shape), pair.y, 0)
        pair.y.replace_all_uses_with(found, replace_graph_outputs=True)
        graph.remove(list(reversed(pair.nodes)), safe=True)


def _count(write: GraphWriter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Leading sizes of x, and [parts]; the last two nodes prove to the loader that it is one number within bounds."""
    leading = write("Shape", x, start=0, end=-1)
    rows = write("ReduceProd", leading, keepdims=1)
    numbers, one = write.integers(*range(1, MOST + 1)), write.integer(1)
    divides = write("Equal", write("Mod", rows, numbers), write.integer(0))
    enough = write("LessOrEqual", write.integers(*range(ROWS, ROWS * MOST + 1, ROWS)), rows)
    best = write("ReduceMax", write("Where", write("And", divides, enough), numbers, one), keepdims=1)
    return leading, write("Reshape", write("Clip", best, one, write.integer(MOST)), write.integers(1))


def _body(pair: _Pair, write: GraphWriter) -> ir.Graph:
    """The pair's nodes on a part [rows, K]."""

    def plain(value: ir.Value, name: str) -> ir.Value:
        width = None if value.shape is None else value.shape[-1]
        shape = ir.Shape([None, width if isinstance(width, int) else None])
        return ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.FLOAT))

    part = plain(pair.x, write.name())
    inside: dict[int | None, ir.Value] = {id(pair.x): part}
    nodes = []
    for node in pair.nodes:
        made = plain(node.outputs[0], str(node.outputs[0].name))
        taken = [None if value is None else inside.get(id(value), value) for value in node.inputs]
        # onnxruntime fuses an Add, not a Sum, with the product [rows, K] before it
        kind = "Add" if node.op_type == "Sum" else node.op_type
        nodes.append(ir.node(kind, taken, dict(node.attributes), outputs=[made], name=node.name))
        inside[id(node.outputs[0])] = made
    return ir.Graph([part], [inside[id(pair.y)]], nodes=nodes, name=f"{part.name}_body")


def _pair(node: ir.Node, fixed: Collection[int]) -> _Pair | None:
    """The pair whose first product this node is."""
    first = linear_layer(node, fixed)
    between = None if first is None else only_use(first.result)
    if first is None or between is None or between[0].domain or between[0].op_type not in _ACTIVATIONS:
        return None
    after = only_use(between[0].outputs[0])
    second = None if after is None else linear_layer(after[0], fixed)
    if second is None or not (_large(first) and _large(second)):
        return None
    x, nodes = first.x, (*first.nodes, between[0], *second.nodes)
    if x.dtype != ir.DataType.FLOAT or len(x.shape or ()) < 2:
        return None
    longer = x.producer()
    if longer is not None and longer.op_type == "Pad" and only_use(x) is not None and _appends(longer, fixed):
        assert longer.inputs[0] is not None
        x, nodes = longer.inputs[0], (longer, *nodes)
    return _Pair(nodes, x, second.result)


def _appends(pad: ir.Node, fixed: Collection[int]) -> bool:
    """Whether a Pad makes rows longer and nothing else, by constants."""
    axes = pad.inputs[3] if len(pad.inputs) == 4 else None
    found = None if axes is None or axes.const_value is None else axes.const_value.numpy().tolist()
    return found == [-1] and all(value is None or id(value) in fixed for value in pad.inputs[1:])


def _large(layer: LinearLayer) -> bool:
    """Whether the product is known to have so many weights."""
    widths = [value.shape[-1] for value in (layer.x, layer.nodes[0].outputs[0]) if value.shape]
    known = [width for width in widths if isinstance(width, int)]
    return len(known) == 2 and math.prod(known) >= WORTH
