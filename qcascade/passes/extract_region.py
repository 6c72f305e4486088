"""Cut a region out of a graph: a module of its own, called with the inputs its kernel would take.

Used to cost a region and to distil a kernel towards it. Weights are detached, and copied where it is kept for distilling, so that it
stays what it was. Sizes that the region reads elsewhere in the graph are read from its own inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from qcascade.cost_models.likeness import frozen, layout
from qcascade.errors import PlanError
from qcascade.passes.base import Match
from qcascade.passes.graph_walk import is_size, sizes


def extract_region(module: fx.GraphModule, match: Match, *, as_kernel: bool = False) -> fx.GraphModule:
    """The region as a function of `match.inputs` (those that are None are left out).

    Args:
        module: The whole graph.
        match: The region.
        as_kernel: Take and give tensors in the layout of the region's kernels (batch first, masks true where a key
            counts) instead of its own; weights are copies then.

    Raises:
        PlanError: The region reads a value that is neither an input, a weight nor a size of an input.
    """
    graph, root = fx.Graph(), nn.Module()
    mapping: dict[fx.Node, fx.Node] = {}
    transpose, negate = torch.ops.aten.transpose.int, torch.ops.aten.logical_not.default
    for node in match.inputs:
        if node is not None:
            mapping[node] = graph.placeholder(node.name)
            mapping[node].meta = dict(node.meta)
    for place, node in enumerate(match.inputs if as_kernel else ()):
        if node is not None and place == 0 and match.sequence_first:
            mapping[node] = graph.call_function(transpose, (mapping[node], 0, 1))
        if node is not None and place == 1 and match.mask_excludes:
            mapping[node] = graph.call_function(negate, (mapping[node],))
    inside = set(match.nodes)

    def carried(node: fx.Node) -> fx.Node:
        if node in mapping:
            return mapping[node]
        if node.op == "get_attr":
            mapping[node] = graph.get_attr(_adopted(module, root, node, copied=as_kernel))
        elif node in inside or (is_size(node) and _own_size(node, match) is None):
            mapping[node] = graph.node_copy(node, carried)
        elif (size := _own_size(node, match)) is not None:
            mapping[node] = graph.call_function(torch.ops.aten.sym_size.int, (mapping[size[0]], size[1]))
        else:
            raise PlanError(f"region {match.name} reads {node.name}, which is not one of its inputs.")
        mapping[node].meta = dict(node.meta)
        return mapping[node]

    for node in match.nodes:
        carried(node)
    result = carried(match.output)
    if as_kernel and match.sequence_first:
        result = graph.call_function(transpose, (result, 0, 1))
    graph.output(result)
    return fx.GraphModule(root, graph)


def likeness(module: fx.GraphModule, match: Match) -> Any:
    """What the costs of an extracted region depend on: regions whose likeness is equal cost the same.

    None where the region holds something that cannot be compared, or could not be cut out.
    """
    inside = set(match.nodes)
    known: dict[fx.Node, Any] = {}
    lines: list[Any] = []
    for place, node in enumerate(match.inputs):
        if node is not None:
            known[node] = ("input", place, sizes(node), node.meta["val"].dtype)

    def read(node: Any) -> Any:
        if node not in known:
            if node.op == "get_attr":
                value = _attribute(module, node)
                known[node] = layout(value) if isinstance(value, Tensor) else frozen(value, read)
            elif node not in inside and (size := _own_size(node, match)) is not None:
                known[node] = ("size", match.inputs.index(size[0]), size[1])
            elif node in inside or is_size(node):
                lines.append((node.op, node.target, frozen(node.args, read), frozen(node.kwargs, read)))
                known[node] = ("line", len(lines))
            else:
                raise TypeError(f"{node.name} is outside the region")
        return known[node]

    try:
        for node in match.nodes:
            read(node)
        return tuple(known[n] for n in match.inputs if n is not None), tuple(lines), read(match.output)
    except TypeError:
        return None


def _own_size(node: fx.Node, match: Match) -> tuple[fx.Node, int] | None:
    """The input and dimension that has the node's value, where it is a symbolic size."""
    value = node.meta.get("val")
    if not isinstance(value, torch.SymInt):
        return None
    for candidate in match.inputs:
        for axis, size in enumerate(() if candidate is None else candidate.meta["val"].shape):
            if isinstance(size, torch.SymInt) and size.node.expr == value.node.expr:
                return candidate, axis  # type: ignore[return-value]
    return None


def _attribute(module: fx.GraphModule, node: fx.Node) -> Any:
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _adopted(module: fx.GraphModule, root: nn.Module, node: fx.Node, *, copied: bool) -> str:
    """Put a tensor of the whole graph, or a copy, into the region, under a flat name."""
    value = _attribute(module, node)
    name = "_" + str(node.target).replace(".", "_")
    if isinstance(value, Tensor):
        root.register_buffer(name, value.detach().clone() if copied else value.detach())
    else:
        setattr(root, name, value)
    return name
