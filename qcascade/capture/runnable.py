"""A graph as a function of a module tree: what comes in is a captured graph.

What goes out runs it on any tree of the same names.

The graph's parameters are looked up by name at every call, so moving, casting or replacing them in the tree just works.
Devices that capture wrote into the graph are replaced by one argument; metadata assertions (shape, dtype, device of the
example) are left out. Pickling keeps the generated source, and the graph without its metadata.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import fx
from torch._ops import HigherOrderOperator
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from qcascade.capture.packed import Packed, pack, unpack

DEVICE = "_device"
Dimensions: TypeAlias = tuple[tuple[int | str, ...] | None, ...]
WRAPPERS: Mapping[
    HigherOrderOperator, int
] = {  # blocks of no_grad and autocast, and which argument is their inner graph
    torch.ops.higher_order.wrap_with_set_grad_enabled: 1,
    torch.ops.higher_order.wrap_with_autocast: 4,
}
_ASSERTIONS = {torch.ops.aten._assert_tensor_metadata.default}


class Runnable:
    """A compiled graph.

    Args:
        graph: Its placeholders take the flattened arguments; it is copied.
        output: Structure of what it returns; None keeps the graph's own.

    Attributes:
        dimensions: The captured shape of every argument before the device, None where it is no tensor or not known; free
            sizes are "d0", "d1", … in order of appearance, the same name where capture found that they are the same.
    """

    dimensions: Dimensions

    def __init__(self, graph: fx.Graph, output: pytree.TreeSpec | None) -> None:
        self._made_of(_without_devices(graph), output)

    @classmethod
    def of(cls, graph: fx.Graph, output: pytree.TreeSpec | None, dimensions: Dimensions) -> Runnable:
        """A graph whose last argument is the device already: another runnable's `graph`. It is kept, not copied."""
        made = cls.__new__(cls)
        made._made_of(graph, output)
        made.dimensions = dimensions
        return made

    def _made_of(self, graph: fx.Graph, output: pytree.TreeSpec | None) -> None:
        self.output = output
        self._graph: fx.Graph | Packed = graph
        self.dimensions = _dimensions(graph)
        code = graph.python_code("self")
        self.source = code.src
        self._globals: dict[str, Any] = dict(code.globals)
        self._function = _compiled(self.source, self._globals)

    @property
    def graph(self) -> fx.Graph:
        """The graph, its last argument the device; of one that was pickled without metadata."""
        if isinstance(self._graph, list):
            self._graph = unpack(self._graph)
        return self._graph

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the graph takes, the device last."""
        return tuple(str(node.target) for node in self.graph.nodes if node.op == "placeholder")

    def __call__(self, root: Any, leaves: list[Any], device: torch.device) -> Any:
        """Run on the module tree `root`, with the flattened arguments."""
        flat = self._function(root, *leaves, device)
        return flat if self.output is None else pytree.tree_unflatten(flat, self.output)

    def __deepcopy__(self, memo: dict[int, Any]) -> Runnable:
        return self  # never changes

    def __getstate__(self) -> dict[str, Any]:
        packed = {
            name: ("module", value.__name__) if isinstance(value, types.ModuleType) else ("object", value)
            for name, value in self._globals.items()
        }
        graph = self._graph if isinstance(self._graph, list) else pack(self._graph)
        return {
            "output": self.output,
            "source": self.source,
            "globals": packed,
            "graph": graph,
            "dimensions": self.dimensions,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.output, self.source, self._graph = state["output"], state["source"], state["graph"]
        self.dimensions = state["dimensions"]
        self._globals = {
            name: __import__(value, fromlist=["_"]) if kind == "module" else value
            for name, (kind, value) in state["globals"].items()
        }
        self._function = _compiled(self.source, self._globals)


def output_structure(graph: fx.Graph) -> pytree.TreeSpec:
    """How an exported graph's flat results make up the model's output."""
    structure: pytree.TreeSpec = graph._codegen.pytree_info.out_spec  # type: ignore[attr-defined]
    return structure


def _dimensions(graph: fx.Graph) -> Dimensions:
    names: dict[str, str] = {}
    found: list[tuple[int | str, ...] | None] = []
    for node in graph.nodes:
        if node.op == "placeholder" and node.target != DEVICE:
            value = node.meta.get("val")
            known = isinstance(value, torch.Tensor)
            found.append(tuple(_dimension(size, names) for size in value.shape) if known else None)
    return tuple(found)


def _dimension(size: int | torch.SymInt, names: dict[str, str]) -> int | str:
    known = size if isinstance(size, int) else size.node.maybe_as_int()  # a symbol may have turned out to be a number
    if known is not None:
        return int(known)
    return names.setdefault(str(size), f"d{len(names)}")


def _compiled(source: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    namespace = dict(names)
    exec(compile(source, "<qcascade graph>", "exec"), namespace)  # fx's own way to turn a graph into a function
    function: Callable[..., Any] = namespace["forward"]
    return function


def written_dtypes(graph: fx.Graph) -> list[tuple[str, torch.dtype]]:
    """The floating-point dtypes that capture wrote into a graph, each with its operator."""
    return [
        (str(node.target), leaf)
        for node in graph.nodes
        if node.op == "call_function"
        for leaf in pytree.tree_leaves((node.args, node.kwargs))
        if isinstance(leaf, torch.dtype) and leaf.is_floating_point
    ]


def inner_runnable(module: fx.GraphModule) -> fx.GraphModule:
    """The inner graph of a no_grad or autocast block as a `Runnable` calls it: with the device as its last argument."""
    made = fx.GraphModule(module, _without_devices(module.graph))
    for name in wrapped(module.graph):
        setattr(made, name, inner_runnable(getattr(module, name)))
    return made


def wrapped(graph: fx.Graph) -> list[str]:
    """Names of the inner graphs that are called in blocks of no_grad or autocast."""
    called = [node.args[WRAPPERS[node.target]] for node in graph.nodes if node.target in WRAPPERS]
    return [str(inner.target) for inner in called if isinstance(inner, fx.Node)]


def _without_devices(graph: fx.Graph) -> fx.Graph:
    """A plain copy whose baked devices are one last argument, which inner graphs are given too."""
    copied = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    result = copied.graph_copy(graph, mapping)
    copied.output(result)
    copied.set_codegen(CodeGen())
    holders = [n for n in copied.nodes if n.op == "placeholder"]
    with copied.inserting_after(holders[-1]) if holders else copied.inserting_before(next(iter(copied.nodes))):
        device = copied.placeholder(DEVICE)
    for node in list(copied.nodes):
        if node.target in _ASSERTIONS:
            copied.erase_node(node)
            continue
        if node.op == "call_function" and _names_device((node.args, node.kwargs)):
            node.args, node.kwargs = pytree.tree_map(
                lambda leaf: device if isinstance(leaf, torch.device) else leaf, (node.args, node.kwargs)
            )
        if node.target in WRAPPERS:
            node.args = (*node.args, device)
    return copied


def _names_device(arguments: Any) -> bool:
    return any(isinstance(leaf, torch.device) for leaf in pytree.tree_leaves(arguments))
