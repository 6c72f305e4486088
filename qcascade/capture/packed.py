"""A graph as plain values for pickles, and back: nodes by name, operators of torch by their names.

What comes in: a graph, or a module of one. What goes out: a list with one entry a node, that pickle takes wherever it takes the functions
that the graph calls. Metadata (fake tensors, stacks of modules, types) is left
behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator, OpOverload

Packed = list[tuple[str, str, Any, Any, Any]]  # op, name, target, args, kwargs


@dataclass(frozen=True, slots=True)
class _Named:
    """A node, or an operator of torch by its names below torch.ops."""

    name: str


@dataclass(frozen=True, slots=True)
class PackedModule:
    """A graph module as plain values."""

    graph: Packed
    parts: dict[str, Any]
    buffers: dict[str, Tensor]


def pack(graph: fx.Graph) -> Packed:
    """The nodes of a graph.

    Example:
        >>> graph = fx.symbolic_trace(torch.nn.ReLU()).graph
        >>> [node[1] for node in pack(graph)] == [node.name for node in graph.nodes]
        True
    """
    packed = []
    for node in graph.nodes:
        args, kwargs = fx.node.map_aggregate((node.args, node.kwargs), _packed_leaf)
        packed.append((node.op, node.name, _packed_target(node.target), args, kwargs))
    return packed


def unpack(packed: Packed) -> fx.Graph:
    """The graph of nodes.

    Example:
        >>> graph = fx.symbolic_trace(torch.nn.ReLU()).graph
        >>> [(node.name, str(node.args)) for node in unpack(pack(graph)).nodes]
        [('input_1', '()'), ('relu', '(input_1,)'), ('output', '(relu,)')]
    """
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for op, name, target, args, kwargs in packed:
        args, kwargs = fx.node.map_aggregate(
            (args, kwargs), lambda leaf: nodes[leaf.name] if isinstance(leaf, _Named) else leaf
        )
        if isinstance(target, _Named):
            found: Any = torch.ops
            for part in target.name.split("."):
                found = getattr(found, part)
            target = found
        nodes[name] = graph.create_node(op, target, args, kwargs, name=name)
    return graph


def pack_module(module: fx.GraphModule) -> PackedModule:
    """A graph module (the inner graph of a no_grad or autocast block) with its parts.

    Pickled by itself, a graph module is traced anew when it is loaded, and what depends on no input (random numbers, say)
    becomes a constant.
    """
    parts: dict[str, Any] = {
        name: pack_module(part) if isinstance(part, fx.GraphModule) else part for name, part in module.named_children()
    }
    parts.update(module.named_parameters(recurse=False))
    return PackedModule(pack(module.graph), parts, dict(module.named_buffers(recurse=False)))


def unpack_module(packed: PackedModule) -> fx.GraphModule:
    """The graph module of its parts."""
    holder = nn.Module()
    for name, part in packed.parts.items():
        setattr(holder, name, unpack_module(part) if isinstance(part, PackedModule) else part)
    for name, buffer in packed.buffers.items():
        holder.register_buffer(name, buffer)
    return fx.GraphModule(holder, unpack(packed.graph))


def _packed_leaf(leaf: Any) -> Any:
    return _Named(leaf.name) if isinstance(leaf, fx.Node) else leaf


def _packed_target(target: Any) -> Any:
    if isinstance(target, OpOverload):
        return _Named(str(target))
    if isinstance(target, HigherOrderOperator):
        return _Named(f"higher_order.{target.name()}")
    return target
