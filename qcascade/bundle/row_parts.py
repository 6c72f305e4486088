"""Large linear layers over thousands of rows, in parts of the rows.

What comes in: a graph whose weights are values without content. What goes out: the same function, in which a large linear layer, or
several with activations between them, are the body of a Scan over equal parts of their rows: the largest number of parts, up to
`MOST`, that divides the rows and leaves at least `ROWS` in each; one part where none does. What the rows are is known when the graph
runs.

onnxruntime's matrix product goes through all rows for every 128 columns of the weights: with some thousands of rows these fit
neither the second cache nor the table of pages, and a product takes up to 1.6 times as long as in parts of 256 or 512. In parts, what lies
between layers stays small too. The weights are in one place, so that onnxruntime arranges them once. Measured by
tests/benchmarks/bundle.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from qcascade.bundle.graph_writer import GraphWriter, described
from qcascade.bundle.linear_layers import LinearLayer, constants, linear_layer, only_use
from qcascade.bundle.turns import MAX_TURNS

ROWS = 256  # of a part, at least
MOST = MAX_TURNS  # parts, which is what the loader allows
WORTH = 2**18  # weights of a layer; smaller layers stay as they are
NODES = 250_000  # of all bodies at all turns: half of what the loader takes; the largest layers go first
_ACTIVATIONS = frozenset({"Gelu", "Relu", "Tanh", "Sigmoid", "Elu", "LeakyRelu", "HardSwish", "Softplus", "Mish"})


@dataclass(frozen=True, slots=True)
class _Chain:
    """Layers one after the other: nodes in order, of which the first takes x [.., K] and the last makes y [.., N]."""

    nodes: tuple[ir.Node, ...]
    y: ir.Value
    weights: int


def in_parts(graph: ir.Graph, weights: Collection[ir.Value]) -> None:
    """Rewrite a graph's large layers in place.

    Args:
        graph: Simplified, its weights among its inputs.
        weights: Which of its inputs they are.
    """
    write = GraphWriter(graph, "part")
    counts: dict[tuple[str, ...], tuple[ir.Value, ir.Value]] = {}
    for chain in _chosen(_chains(graph, constants(graph, weights))):
        write.before = chain.nodes[-1]
        given = chain.nodes[0].inputs[0]  # a chain before it may have been rewritten
        assert given is not None
        sizes = tuple(str(size) for size in (given.shape or ())[:-1])
        key = sizes if "None" not in sizes else (str(given.name),)
        if key not in counts:
            counts[key] = _count(write, given)
        leading, parts = counts[key]
        wide = write("Shape", given, start=-1)
        x = write("Reshape", given, write("Concat", parts, write.integers(-1), wide, axis=0))
        done = write("Scan", x, body=_body(chain, given, write), num_scan_inputs=1)
        shape = write("Concat", leading, write("Shape", done, start=-1), axis=0)
        found = described(write("Reshape", done, shape), chain.y, 0)
        chain.y.replace_all_uses_with(found, replace_graph_outputs=True)
        graph.remove(list(reversed(chain.nodes)), safe=True)


def _count(write: GraphWriter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Leading sizes of x, and [parts]; the last two nodes prove to the loader that it is one number within bounds."""
    leading = write("Shape", x, start=0, end=-1)
    rows = write("ReduceProd", leading, keepdims=1)
    numbers, one = write.integers(*range(1, MOST + 1)), write.integer(1)
    divides = write("Equal", write("Mod", rows, numbers), write.integer(0))
    enough = write("LessOrEqual", write.integers(*range(ROWS, ROWS * MOST + 1, ROWS)), rows)
    best = write("ReduceMax", write("Where", write("And", divides, enough), numbers, one), keepdims=1)
    return leading, write("Reshape", write("Clip", best, one, write.integer(MOST)), write.integers(1))


def _body(chain: _Chain, x: ir.Value, write: GraphWriter) -> ir.Graph:
    """The chain's nodes on a part [rows, K] of x."""

    def plain(value: ir.Value, name: str) -> ir.Value:
        width = None if value.shape is None else value.shape[-1]
        shape = ir.Shape([None, width if isinstance(width, int) else None])
        return ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.FLOAT))

    part = plain(x, write.name())
    inside: dict[int | None, ir.Value] = {id(x): part}
    nodes = []
    for node in chain.nodes:
        made = plain(node.outputs[0], str(node.outputs[0].name))
        taken = [None if value is None else inside.get(id(value), value) for value in node.inputs]
        # onnxruntime fuses an Add, not a Sum, with the product [rows, K] before it
        kind = "Add" if node.op_type == "Sum" else node.op_type
        nodes.append(ir.node(kind, taken, dict(node.attributes), outputs=[made], name=node.name))
        inside[id(node.outputs[0])] = made
    return ir.Graph([part], [inside[id(chain.y)]], nodes=nodes, name=f"{part.name}_body")


def _chains(graph: ir.Graph, fixed: Collection[int]) -> list[_Chain]:
    """All of a graph, none of which shares a layer with another, in the order in which they end."""
    found: list[_Chain] = []
    taken: set[int] = set()
    place = {id(node): number for number, node in enumerate(graph)}
    for node in graph:
        chain = None if id(node) in taken else _chain(node, fixed)
        if chain is not None:
            found.append(chain)
            taken.update(id(one) for one in chain.nodes)
    return sorted(found, key=lambda chain: place[id(chain.nodes[-1])])


def _chosen(chains: Sequence[_Chain]) -> list[_Chain]:
    """In order, those with the most weights for whose nodes there is room."""
    chosen, room = set[int](), NODES
    for chain in sorted(chains, key=lambda chain: -chain.weights):
        if len(chain.nodes) * MAX_TURNS <= room:
            chosen.add(id(chain))
            room -= len(chain.nodes) * MAX_TURNS
    return [chain for chain in chains if id(chain) in chosen]


def _chain(node: ir.Node, fixed: Collection[int]) -> _Chain | None:
    """The chain whose first product this node is."""
    layer = linear_layer(node, fixed)
    if layer is None or not _divided(layer.x) or (weights := _weights(layer)) < WORTH:
        return None
    nodes, longer = layer.nodes, layer.x.producer()
    if longer is not None and longer.op_type == "Pad" and only_use(layer.x) is not None and _appends(longer, fixed):
        nodes = (longer, *nodes)
    while (between := only_use(layer.result)) is not None and _is_activation(between[0]):
        after = only_use(between[0].outputs[0])
        following = None if after is None else linear_layer(after[0], fixed)
        if following is None or (more := _weights(following)) < WORTH:
            break
        layer, nodes, weights = following, (*nodes, between[0], *following.nodes), weights + more
    return _Chain(nodes, layer.result, weights)


def _divided(x: ir.Value) -> bool:
    """Whether there may be rows for two parts."""
    sizes = (x.shape or ())[:-1]
    known = [size for size in sizes if isinstance(size, int)]
    return x.dtype == ir.DataType.FLOAT and bool(sizes) and (len(known) < len(sizes) or math.prod(known) >= 2 * ROWS)


def _is_activation(node: ir.Node) -> bool:
    return not node.domain and node.op_type in _ACTIVATIONS


def _appends(pad: ir.Node, fixed: Collection[int]) -> bool:
    """Whether a Pad makes rows longer and nothing else, by constants."""
    axes = pad.inputs[3] if len(pad.inputs) == 4 else None
    found = None if axes is None or axes.const_value is None else axes.const_value.numpy().tolist()
    return found == [-1] and all(value is None or id(value) in fixed for value in pad.inputs[1:])


def _weights(layer: LinearLayer) -> int:
    """How many the product has, 0 where that is not known."""
    widths = [value.shape[-1] for value in (layer.x, layer.nodes[0].outputs[0]) if value.shape]
    known = [width for width in widths if isinstance(width, int)]
    return math.prod(known) if len(known) == 2 else 0
