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

import onnx_ir as ir

from qcascade.bundle.graph_writer import GraphWriter, described
from qcascade.bundle.linear_layers import LinearLayer, constants, linear_layer, only_use

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


def widen(graph: ir.Graph, weights: Collection[ir.Value]) -> None:
    """Rewrite a graph's linear layers of such widths in place.

    Args:
        graph: Simplified, its weights among its inputs.
        weights: Which of its inputs they are.
    """
    fixed = constants(graph, weights)
    layers = [layer for node in graph if (layer := linear_layer(node, fixed)) is not None and _sizes(layer.weight)]
    wide = {id(layer.nodes[0]) for layer in layers if spread(_sizes(layer.weight)[0])}
    if not wide:
        return
    write = GraphWriter(graph, "wide")
    columns: dict[int, tuple[ir.Value, float]] = {}  # of a layer's input: itself made wider, and by what constant
    for layer in layers:
        product, x, weight, bias = layer.nodes[0], layer.x, layer.weight, layer.bias
        own, carrier = id(product) in wide, _activation(layer, wide)
        if not own and carrier is None:
            continue
        write.before = product
        constant = 0.0
        if own:
            if id(x) not in columns:
                appended = write("Pad", x, write.integers(0, EXTRA), write.number(_APPENDED), write.integers(-1))
                columns[id(x)] = described(appended, x, EXTRA), _APPENDED
            x, constant = columns[id(x)]
        if carrier is not None:
            weight = write("Pad", weight, write.integers(0, EXTRA), None, write.integers(-1))
            if bias is None:
                width = _sizes(layer.weight)[1]
                bias = write("Expand", write.number(0.0), write.integers(width))
                bias.dtype, bias.shape = ir.DataType.FLOAT, ir.Shape([width])
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
        graph.remove(list(reversed(layer.nodes)), safe=True)  # they no longer count as uses


def _sizes(weight: ir.Value) -> tuple[int, ...]:
    """K and N of a matrix of floats, () of all else."""
    sizes = tuple(size for size in weight.shape or () if isinstance(size, int))
    return sizes if weight.dtype == ir.DataType.FLOAT and len(sizes) == len(weight.shape or ()) == 2 else ()


def _activation(layer: LinearLayer, wide: Collection[int]) -> ir.Value | None:
    """What follows a layer, where that leaves a constant as it is and goes into one of the wide layers, and nowhere else."""
    use = only_use(layer.result)
    if use is None or use[0].op_type not in ("Gelu", "Relu"):
        return None
    made = use[0].outputs[0]
    only = not made.is_graph_output() and all(use.idx == 0 and id(use.node) in wide for use in made.uses())
    return made if only and made.uses() else None
