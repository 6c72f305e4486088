"""Reading exported graphs: what a node is, where it comes from, and where each element of a tensor ends up."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from qcascade.capture.graph import CapturedModel

_aten = torch.ops.aten

IDENTITY = {
    _aten.clone, _aten.contiguous, _aten.to, _aten.type_as, _aten.dropout, _aten.alias, _aten.detach, _aten._to_copy, _aten.feature_dropout,
}  # fmt: skip
LAYOUT = {
    _aten.view, _aten.reshape, _aten.transpose, _aten.permute, _aten.unflatten, _aten.flatten, _aten.unsqueeze, _aten.squeeze,
    _aten.select, _aten.slice, _aten.split, _aten.split_with_sizes, _aten.chunk, _aten.expand, _aten.unbind, _aten.t,
    _aten.movedim, _aten.swapaxes, _aten.narrow, _aten._unsafe_view, _aten.repeat_interleave, operator.getitem,
}  # fmt: skip


def packet(node: Any) -> Any:
    """The operator of a call without its overload; None for other nodes."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return None
    return getattr(node.target, "overloadpacket", node.target)


def is_size(node: fx.Node) -> bool:
    """Whether a node is a number (a size, or arithmetic on sizes)."""
    return isinstance(node.meta.get("val"), (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool))


def sizes(node: fx.Node) -> tuple[int, ...]:
    """The shape that a node's value has in the example."""
    return tuple(_hint(s) for s in node.meta["val"].shape)


def _hint(size: Any) -> int:
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def not_real(weight: fx.Node) -> str | None:
    """Why a region with this weight stays, where it holds no real numbers."""
    dtype = weight.meta["val"].dtype
    return None if dtype.is_floating_point else f"its weights are {dtype}; kernels hold real floating-point numbers"


def module_path(node: fx.Node) -> str:
    """Dotted path of the innermost module that a node was traced in; "" for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if not str(path).startswith("_")]
    return re.sub(r"@\d+", "", paths[-1]) if paths else ""


def common_module(nodes: Iterable[fx.Node]) -> str:
    """The deepest module that all nodes were traced in."""
    paths = [module_path(n).split(".") for n in nodes]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


@dataclass(frozen=True, slots=True)
class Linear:
    """A product with a parameter: x @ Wᵀ + b, or x @ W + b where `transposed`."""

    node: fx.Node
    x: fx.Node
    weight: fx.Node  # get_attr
    bias: fx.Node | None
    transposed: bool

    @property
    def features(self) -> tuple[int, int]:
        """Input and output widths."""
        rows, columns = sizes(self.weight)
        return (rows, columns) if self.transposed else (columns, rows)


def as_linear(node: fx.Node) -> Linear | None:
    """The node as a linear projection, where it is one with plain parameters."""
    kind = packet(node)
    x: Any
    weight: Any
    bias: Any
    if kind is _aten.linear:
        x, weight, bias, transposed = node.args[0], node.args[1], (*node.args, None)[2], False
    elif kind is _aten.addmm and len(node.args) == 3 and not node.kwargs:
        (bias, x, weight), transposed = node.args, True
    elif kind in (_aten.mm, _aten.matmul):
        x, weight, bias, transposed = node.args[0], node.args[1], None, True
    else:
        return None
    if (
        packet(weight) in (_aten.t, _aten.transpose, _aten.permute, _aten.numpy_T)
        and len(weight.meta["val"].shape) == 2
    ):
        weight, transposed = weight.args[0], not transposed
    attributes = all(isinstance(n, fx.Node) and n.op == "get_attr" for n in (weight, *([] if bias is None else [bias])))
    if not attributes or len(weight.meta["val"].shape) != 2:
        return None
    return Linear(node, x, weight, bias, transposed)


def nearest_linears(node: fx.Node) -> list[Linear]:
    """The linear projections first met on every way back from a node."""
    found: list[Linear] = []
    seen, pending = {node}, [node]
    while pending:
        current = pending.pop()
        if (linear := as_linear(current)) is not None:
            found.append(linear)
            continue
        for source in current.all_input_nodes:
            if source not in seen and not is_size(source):
                seen.add(source)
                pending.append(source)
    return found


def back_to_rank(node: fx.Node, rank: int) -> fx.Node:
    """The node itself or the one it is a mere reshaping of, with the given number of dimensions and as many elements."""
    while len(node.meta["val"].shape) != rank and packet(node) in LAYOUT | IDENTITY:
        source = node.args[0]
        if (
            not isinstance(source, fx.Node)
            or packet(node) is operator.getitem
            or prod(sizes(source)) != prod(sizes(node))
        ):
            break  # a part of it, or repeated
        node = source
    return node


def between(source: fx.Node, target: fx.Node) -> set[fx.Node]:
    """Nodes on the ways from `source` (left out) to `target` (included); ways through sizes do not count.

    No node after `target` is looked at, so the work does not grow with the rest of the graph.
    """
    downstream, pending = set[fx.Node](), [source]
    while pending:
        for user in pending.pop().users:
            if user not in downstream and not target < user and not is_size(user):
                downstream.add(user)
                pending.append(user)
    found, pending = {target}, [target]
    while pending:
        for node in pending.pop().all_input_nodes:
            if node in downstream and node not in found:
                found.add(node)
                pending.append(node)
    return found


def live_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that the output or an in-place operation needs."""
    return _with_sources(
        n for n in graph.nodes if n.op == "output" or getattr(getattr(n.target, "_schema", None), "is_mutable", False)
    )


def _with_sources(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Nodes and all that they are computed from."""
    found = set(nodes)
    pending = [*found]
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                pending.append(source)
    return found


class UnknownLayoutError(Exception):
    """A tensor is changed on its way, not only rearranged."""


def rearranged(source: fx.Node, target: fx.Node, value: Tensor) -> Tensor:
    """What `target` would hold if `source` held `value` and every node between only rearranged elements.

    Raises:
        UnknownLayoutError: Some node computes something else.
    """
    known: dict[fx.Node, Any] = {source: value}

    def evaluate(node: fx.Node) -> Any:
        if node not in known:
            if is_size(node):
                known[node] = _hint(node.meta["val"])
            elif packet(node) in IDENTITY:
                known[node] = evaluate(node.args[0]).contiguous()  # type: ignore[arg-type]
            elif packet(node) in LAYOUT and callable(node.target):
                arguments = fx.map_arg((node.args, node.kwargs), evaluate)
                known[node] = node.target(*arguments[0], **arguments[1])
            else:
                raise UnknownLayoutError(node.name)
        return known[node]

    result: Tensor = evaluate(target)
    return result


def tensor_paths(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer under every path it has."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def readers(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> dict[int, list[fx.Node]]:
    """The nodes that read each tensor of the model, by its identity, whatever it is called."""
    found: dict[int, list[fx.Node]] = {}
    for node in graph.find_nodes(op="get_attr"):
        if (tensor := tensors.get(str(node.target))) is not None:
            found.setdefault(id(tensor), []).append(node)
    return found


class Evaluator:
    """Values of nodes for the example inputs, computing only what they need.

    That includes what changes them, or what they share memory with, in place; this works on copies.
    """

    def __init__(self, module: fx.GraphModule, captured: CapturedModel) -> None:
        leaves = torch.utils._pytree.tree_leaves((captured.example_args, captured.example_kwargs))
        holders = [n for n in module.graph.nodes if n.op == "placeholder"]
        self._known: dict[fx.Node, Any] = dict(zip(holders, leaves, strict=True))
        self._interpreter = fx.Interpreter(module)
        self._writers = [n for n in module.graph.nodes if _memory(n, written=True)]
        self._roots: dict[fx.Node, frozenset[fx.Node]] = {}

    @torch.no_grad()
    def __call__(self, node: fx.Node, reader: fx.Node | None = None) -> Any:
        """The value of a node, as `reader` finds it where it is changed later on."""
        if self._writers:
            needed = _with_sources((node,))
            if changes := self._changes(needed, node if reader is None else reader):
                return self._in_order(node, needed, changes)
        pending = [node]
        while pending:
            current = pending[-1]
            missing = [n for n in current.all_input_nodes if n not in self._known]
            if current in self._known:
                pending.pop()
            elif missing:
                pending.extend(missing)
            else:
                self._interpreter.env = self._known
                self._known[current] = self._interpreter.run_node(current)
                pending.pop()
        return self._known[node]

    def _changes(self, needed: set[fx.Node], reader: fx.Node) -> set[fx.Node]:
        """Nodes up to `reader` that change what is needed in place; what they need themselves is added to `needed`."""
        writers = [n for n in self._writers if not reader < n]
        found: set[fx.Node] = set()
        while True:
            memory = frozenset[fx.Node]().union(*map(self._memory_of, needed))
            more = {n for n in writers if n not in found and not memory.isdisjoint(self._changed_by(n))}
            if not more:
                return found
            found |= more
            needed |= _with_sources(more)

    def _in_order(self, node: fx.Node, needed: set[fx.Node], changes: set[fx.Node]) -> Any:
        changed = frozenset[fx.Node]().union(*map(self._changed_by, changes))
        known: dict[fx.Node, Any] = {}
        for current in sorted(needed):
            self._interpreter.env = known
            known[current] = (
                self._known[current] if current.op == "placeholder" else self._interpreter.run_node(current)
            )
            if current in changed and current.op in ("placeholder", "get_attr"):
                known[current] = known[current].clone()
        return known[node]

    def _changed_by(self, writer: fx.Node) -> frozenset[fx.Node]:
        return frozenset[fx.Node]().union(*map(self._memory_of, _memory(writer, written=True)))

    def _memory_of(self, node: fx.Node) -> frozenset[fx.Node]:
        """The nodes that made the memory which a node's value may be in."""
        pending = [node]
        while pending:
            current = pending[-1]
            shared = _memory(current)
            missing = [n for n in shared if n not in self._roots]
            if missing:
                pending.extend(missing)
                continue
            self._roots[current] = frozenset((current,)).union(*(self._roots[n] for n in shared))
            pending.pop()
        return self._roots[node]


def _memory(node: fx.Node, *, written: bool = False) -> list[fx.Node]:
    """Inputs whose memory a node's value may be in; where `written`, those that the node changes in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # an inner graph (of a no_grad block) may give and change any input, getitem gives its own
        inner = {n: getattr(node.graph.owning_module, str(n.target), None) for n in node.all_input_nodes}
        graphs = {n: g for n, g in inner.items() if isinstance(g, fx.GraphModule)}
        if written and not any(_memory(n, written=True) for g in graphs.values() for n in g.graph.nodes):
            return []
        return [n for n in node.all_input_nodes if n not in graphs and not is_size(n)]
    named = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
    aliases = {a.name for a in schema.arguments if a.alias_info is not None and (a.alias_info.is_write or not written)}
    found: list[fx.Node] = []
    fx.map_arg([v for k, v in named.items() if k in aliases], found.append)
    return found + ([] if written or packet(node) not in IDENTITY else node.all_input_nodes[:1])
