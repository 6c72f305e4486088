"""A graph as JSON, and back: the graphs that a hybrid runs, without a line of code.

What comes in: a graph as `capture.Runnable` holds it, flat and at ATen level, kernels called by path. What goes out: its
nodes in order, each with name, operator and arguments; the inner graphs that gradient mode and autocast are wrapped
around come along by name.

Reading is strict, since fx makes Python of a graph: names are plain identifiers, which fx may not have to change;
operators come from the allow-list (`operators`), attributes and kernels from what the caller says there is; keywords
are the operator's own; every node uses only nodes before it; sizes of new tensors written as numbers are bounded.
Anything else is one `BundleError`. Text of the file reaches the Python only as such names and as quoted strings.
"""

from __future__ import annotations

import inspect
import keyword
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints
from torch import fx, nn
from torch._ops import OpOverload
from torch.fx.graph import CodeGen

from qcascade.bundle.graph_part import Part
from qcascade.bundle.operators import SIMULATE, arity, is_wrapper, operator_name, operator_of
from qcascade.bundle.program_json import check_simulation, program_document
from qcascade.bundle.values_json import value_json, value_of
from qcascade.capture.runnable import WRAPPERS
from qcascade.errors import BundleError

MAX_NODES = 200_000
MAX_INNER = 4  # levels of inner graphs
MAX_ELEMENTS = 2**28  # of a new tensor whose size is written in numbers
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,255}"
PART = r"[A-Za-z0-9_][A-Za-z0-9_ :/+=-]{0,199}"  # of a path in the module tree; nothing that ends a Python string
_IDENTIFIER = re.compile(_NAME)
_PATH = re.compile(rf"{PART}(\.{PART}){{0,63}}")

Identifier = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]


class NodeDocument(Part):
    """One node; `target` is an argument's name, a path, an operator, or empty for the output."""

    name: Identifier
    op: Literal["placeholder", "get_attr", "call_function", "call_module", "output"]
    target: Annotated[str, StringConstraints(max_length=4000)] = ""
    args: list[JsonValue] = Field(default_factory=list)
    kwargs: dict[Identifier, JsonValue] = Field(default_factory=dict)


class GraphDocument(Part):
    """A graph and its inner graphs by name."""

    nodes: Annotated[tuple[NodeDocument, ...], Field(max_length=MAX_NODES)]
    inner: dict[Identifier, GraphDocument] = Field(default_factory=dict)


def graph_document(graph: fx.Graph, inner: Mapping[str, Any]) -> GraphDocument:
    """The document of a graph.

    Args:
        graph: Flat, its attributes tensors by path or inner graphs.
        inner: The inner graphs by attribute name.

    Raises:
        BundleError: It holds what a bundle has no form for.
    """
    nodes: list[NodeDocument] = []
    used: dict[str, GraphDocument] = {}
    for node in graph.nodes:
        target = ""
        if node.op == "call_function":
            target = operator_name(node.target)
        elif node.op in ("placeholder", "get_attr", "call_module"):
            target = str(node.target)
        elif node.op != "output":
            raise BundleError(
                f"the graph has a {node.op} node ({node.target}); models captured otherwise than by torch.export cannot be exported."
            )
        if node.op == "placeholder" and node.args:
            raise BundleError(f"argument {target!r} of the graph has a default, which a bundle has no form for.")
        _written_name(node.name)
        if node.op == "placeholder":
            _written_name(target)
        elif node.op in ("get_attr", "call_module") and not _PATH.fullmatch(target):
            raise BundleError(
                f"the model has a part called {target!r}; in a bundle names hold letters, digits and _ :/+=- only. Rename it."
            )
        if node.op == "get_attr" and target in inner:
            used[target] = _inner_document(inner[target])
        made = NodeDocument.model_construct(
            name=node.name,
            op=node.op,
            target=target,
            args=_arguments(node),
            kwargs={key: value_json(value) for key, value in node.kwargs.items()},
        )
        nodes.append(made)
    return GraphDocument.model_construct(nodes=tuple(nodes), inner=used)


def _arguments(node: fx.Node) -> list[Any]:
    if node.target is not SIMULATE:
        return [value_json(value) for value in node.args]
    program, *others = node.args
    return [{"program": program_document(str(program))}, *(value_json(value) for value in others)]


def graph_of(
    document: GraphDocument, tensors: Callable[[str], bool], kernels: Mapping[str, type[nn.Module]], depth: int = 0
) -> tuple[fx.Graph, dict[str, fx.GraphModule]]:
    """The graph of a document, and its inner graphs.

    Args:
        document: What was read.
        tensors: Whether the module tree has a parameter or buffer at a path.
        kernels: The classes of the kernels by path.
        depth: Of the graph in others.

    Raises:
        BundleError: It is no graph that a bundle may hold.
    """
    if depth > MAX_INNER:
        raise BundleError(f"graph.json: graphs are nested deeper than {MAX_INNER} levels.")
    inner = {}
    for name, content in document.inner.items():
        _read_name(name)
        graph, below = graph_of(content, lambda path: False, {}, depth + 1)
        inner[name] = fx.GraphModule(_holding(below), graph)
    made = _Reader(tensors, kernels, inner)
    for entry in document.nodes:
        made.add(entry)
    made.finish()
    return made.graph, inner


class _Reader:
    """Adds checked nodes to a new graph."""

    def __init__(
        self,
        tensors: Callable[[str], bool],
        kernels: Mapping[str, type[nn.Module]],
        inner: Mapping[str, fx.GraphModule],
    ) -> None:
        self.graph = fx.Graph()
        self.tensors, self.kernels, self.inner = tensors, kernels, inner
        self.nodes: dict[str, fx.Node] = {}
        self.arguments: set[str] = set()
        self.done = False

    def add(self, entry: NodeDocument) -> None:
        _read_name(entry.name)
        if self.done or entry.name in self.nodes:
            raise BundleError(f"graph.json: node {entry.name!r} stands twice, or after the output.")
        args = tuple(value_of(value, self._before) for value in entry.args)
        kwargs = {key: value_of(value, self._before) for key, value in entry.kwargs.items()}
        target: Any = entry.target
        if entry.op == "call_function":
            target = operator_of(entry.target)
            self._check_call(entry, target, args, kwargs)
        elif entry.op == "call_module":
            self._check_kernel(entry, args, kwargs)
        elif entry.op == "output":
            if len(args) != 1 or kwargs or entry.target:
                raise BundleError("graph.json: an output takes one value.")
            self.done, target = True, "output"
        elif args or kwargs:
            raise BundleError(f"graph.json: {entry.op} {entry.name!r} takes no arguments.")
        elif entry.op == "placeholder":
            _read_name(target)
            if target in self.arguments or target in _GLOBALS:
                raise BundleError(f"graph.json: an argument cannot be called {target!r}, or stands twice.")
            self.arguments.add(target)
        elif target not in self.inner and not (_PATH.fullmatch(target) and self.tensors(target)):
            raise BundleError(f"graph.json: there is no tensor {target[:80]!r}.")
        node = self.graph.create_node(entry.op, target, args, kwargs, name=entry.name)
        if node.name != entry.name:  # it would shadow a name of Python's or torch's
            raise BundleError(f"graph.json: a node cannot be called {entry.name!r}.")
        self.nodes[entry.name] = node

    def finish(self) -> None:
        if not self.done:
            raise BundleError("graph.json: a graph has no output.")

    def _before(self, name: str) -> fx.Node:
        if name not in self.nodes:
            raise BundleError(f"graph.json: {name[:80]!r} is used before it is computed.")
        return self.nodes[name]

    def _check_call(self, entry: NodeDocument, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        inner = [node for node in _nodes((args, kwargs)) if node.op == "get_attr" and node.target in self.inner]
        if is_wrapper(target):
            _check_wrapper(entry, WRAPPERS[target], args, kwargs, inner, self.inner)
            return
        if inner:
            raise BundleError(f"graph.json: {entry.name!r} takes an inner graph, which {entry.target} does not.")
        if target is SIMULATE:
            check_simulation(*(*args, None, None)[:2])
        if isinstance(target, OpOverload):
            _check_schema(entry, target, args, kwargs)
            _check_sizes(entry, target, args, kwargs)
        elif kwargs or len(args) != arity(target):
            raise BundleError(
                f"graph.json: {entry.target} takes {arity(target)} arguments, {entry.name!r} gives {len(args)}."
            )

    def _check_kernel(self, entry: NodeDocument, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if entry.target not in self.kernels:
            raise BundleError(f"graph.json: there is no kernel {entry.target[:80]!r}.")
        if kwargs or not all(value is None or isinstance(value, fx.Node) for value in args):
            raise BundleError(f"graph.json: kernel {entry.target!r} takes tensors or null.")
        try:
            inspect.signature(self.kernels[entry.target].forward).bind(None, *args)
        except TypeError as error:
            raise BundleError(f"graph.json: kernel {entry.target!r}: {error}.") from error


def _check_wrapper(
    entry: NodeDocument,
    leading: int,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    inner: list[fx.Node],
    graphs: Mapping[str, fx.GraphModule],
) -> None:
    """set_grad_enabled(enabled, graph, *operands), autocast(device, dtype, enabled, cached, graph, *operands)."""
    plain = args[:leading]
    rest = args[leading + 1 :]
    fits = (
        not kwargs
        and len(args) > leading
        and inner == [args[leading]]
        and not any(isinstance(value, fx.Node) for value in plain)
        and (isinstance(plain[0], bool) if leading == 1 else isinstance(plain[0], str) and len(plain[0]) < 8)
    )
    if not fits:
        raise BundleError(f"graph.json: {entry.name!r} does not call {entry.target} as it is captured.")
    taken = sum(node.op == "placeholder" for node in graphs[str(args[leading].target)].graph.nodes)
    if taken != len(rest):
        raise BundleError(f"graph.json: the inner graph of {entry.name!r} takes {taken} values, {len(rest)} are given.")


def _check_schema(entry: NodeDocument, target: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Every argument has a place in the operator's schema, and every one that it needs is there."""
    schema = target._schema.arguments
    positional = [argument.name for argument in schema if not argument.kwarg_only]
    named = [argument.name for argument in schema]
    given = {*positional[: len(args)], *kwargs}
    needed = {argument.name for argument in schema if not argument.has_default_value()}
    complete = len(given) == len(args) + len(kwargs) and needed <= given <= {*named}
    if len(args) > len(positional) or not complete or any(keyword.iskeyword(key) for key in kwargs):
        raise BundleError(f"graph.json: {entry.name!r} does not call {entry.target} as it takes its arguments.")
    if any(argument.type.kind() == "GeneratorType" for argument in schema if kwargs.get(argument.name) is not None):
        raise BundleError(f"graph.json: {entry.name!r} takes a generator.")


def _check_sizes(entry: NodeDocument, target: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """What makes a tensor of nothing may not be told a huge size in numbers."""
    if any("Tensor" in str(argument.type) for argument in target._schema.arguments):
        return
    sizes: list[Any] = []
    for value in (*args, *kwargs.values()):
        sizes += value if isinstance(value, (list, tuple)) else [value]
    numbers = [abs(size) for size in sizes if isinstance(size, (int, float)) and not isinstance(size, bool) and size]
    if math.prod(min(number, 2.0**63) for number in numbers if number > 1) > MAX_ELEMENTS:
        raise BundleError(f"graph.json: {entry.name!r} makes a tensor of more than {MAX_ELEMENTS} elements.")


def _nodes(arguments: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(arguments, found.append)
    return found


def _holding(modules: Mapping[str, fx.GraphModule]) -> nn.Module:
    holder = nn.Module()
    holder._modules.update(modules)
    return holder


def _inner_document(module: Any) -> GraphDocument:
    if not isinstance(module, fx.GraphModule) or type(module.graph._codegen) is not CodeGen:
        raise BundleError(
            f"the graph holds a constant of type {type(module).__name__}, which a bundle has no form for; this model cannot be exported."
        )
    below = {name: child for name, child in module.named_children() if isinstance(child, fx.GraphModule)}
    for node in module.graph.nodes:
        if node.op == "get_attr" and node.target not in below:
            raise BundleError(f"an inner graph holds the constant {node.target!r}, which a bundle has no form for.")
    return graph_document(module.graph, below)


def _written_name(name: str) -> None:
    if not _IDENTIFIER.fullmatch(name) or keyword.iskeyword(name) or name.startswith("__"):
        raise BundleError(
            f"the graph has a name {name!r}; in a bundle names are plain identifiers of ASCII letters that do not begin with '__'."
        )


def _read_name(name: str) -> None:
    if not _IDENTIFIER.fullmatch(name) or keyword.iskeyword(name) or name in _TAKEN or name.startswith("__"):
        raise BundleError(f"graph.json: a node cannot be called {name[:80]!r}.")


_TAKEN = frozenset(("self", "forward"))
_GLOBALS = frozenset(
    ("device", "fx_pytree", "inf", "nan", "NoneType", "pytree", "torch")
)  # of the Python that fx writes
