"""Linear layers of an ONNX graph: x @ weight [+ bias], the weight and the bias computed from the graph's weights alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx_ir as ir

_SUMS = frozenset({"Add", "Sum"})


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """The product's node and, where nothing else takes its result, that of the bias after it; result = x @ weight [+ bias]."""

    nodes: tuple[ir.Node, ...]
    bias: ir.Value | None
    result: ir.Value

    @property
    def x(self) -> ir.Value:
        """What the product takes now: layers before it may have been rewritten."""
        return _given(self.nodes[0].inputs[0])

    @property
    def weight(self) -> ir.Value:
        """[K, N]."""
        return _given(self.nodes[0].inputs[1])


def constants(graph: ir.Graph, weights: Iterable[ir.Value]) -> set[int]:
    """Ids of values that no input but the weights changes."""
    fixed = {id(value) for value in (*weights, *graph.initializers.values())}
    for node in graph:
        if all(value is None or id(value) in fixed for value in node.inputs):
            fixed.update(id(value) for value in node.outputs)
    return fixed


def linear_layer(node: ir.Node, fixed: Collection[int]) -> LinearLayer | None:
    """The layer whose product a node is.

    Args:
        node: Of a graph.
        fixed: Its `constants`.
    """
    if node.domain or node.op_type != "MatMul":
        return None
    x, weight = node.inputs
    if x is None or weight is None or id(x) in fixed or id(weight) not in fixed:
        return None
    made = node.outputs[0]
    following = only_use(made)
    bias = None if following is None else _added(following[0], made, fixed)
    if following is None or bias is None:
        return LinearLayer((node,), None, made)
    return LinearLayer((node, following[0]), bias, following[0].outputs[0])


def only_use(value: ir.Value) -> tuple[ir.Node, int] | None:
    """The one node that takes a value, and as which input."""
    uses = list(value.uses())
    return (uses[0].node, uses[0].idx) if len(uses) == 1 and not value.is_graph_output() else None


def _added(node: ir.Node, product: ir.Value, fixed: Collection[int]) -> ir.Value | None:
    """The vector that a node adds to a product, where it does nothing else."""
    if node.domain or node.op_type not in _SUMS or len(node.inputs) != 2:
        return None
    other = next((value for value in node.inputs if value is not product), None)
    width = None if product.shape is None else product.shape[-1]
    if other is None or id(other) not in fixed or other.shape is None or tuple(other.shape) != (width,):
        return None
    return other


def _given(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
