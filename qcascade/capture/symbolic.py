"""The second rung: `torch.fx.symbolic_trace`, then `torch.export` of what it traced.

Symbolic tracing runs the Python code once with stand-ins for tensors, so that code which export cannot follow is gone
from the traced module; exporting that gives the same kind of graph as the first rung, with shapes. Layers of `torch.nn`
are traced as they are and expanded by export. Arguments and results are flattened around the trace, so that nested ones
and those that are None work. What the trace would drop is refused: modes (no_grad, autocast), writes to parameters and buffers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from qcascade.capture.autograd_functions import recorded_functions
from qcascade.capture.export import export_graph

_WRITES = "symbolic tracing would drop what code writes to parameters or buffers"


class _Flat(nn.Module):
    """A model as a function of the tensors among its arguments, which gives a flat list."""

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules"):
            self.__dict__[table] = model.__dict__[table]
        self.training = model.training
        self.__dict__["model"] = model
        self.leaves, self.inputs = pytree.tree_flatten((args, kwargs))
        self.output: pytree.TreeSpec | None = None

    def run(self, tensors: list[Any]) -> list[Any]:
        """The model's result, flat."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.inputs)
        forward = self.__dict__["model"].forward
        flat, self.output = pytree.tree_flatten(forward(*args, **kwargs))
        return flat


def symbolic_graph(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
    """The graph of `model` in its current mode, as export gives it for the traced module."""
    own = {id(t): t for t in (*model.parameters(), *model.buffers())}
    flat = _Flat(copy.deepcopy(model, dict(own)), args, kwargs)  # code may leave stand-ins in its attributes
    tensors = [leaf for leaf in flat.leaves if isinstance(leaf, Tensor)]
    names = ", ".join(f"input_{i}" for i in range(len(tensors)))
    scope: dict[str, Any] = {}
    exec(f"def forward(self, {names}): return self.run([{names}])", scope)  # fx reads the number of arguments off code
    flat_class = type("_FlatOf", (_Flat,), {"forward": scope["forward"]})
    flat.__class__ = flat_class
    with recorded_functions(), _unwritten(flat, own):
        graph = _Tracer().trace(flat)
    for node in graph.nodes:
        if node.op == "get_attr" and not _owned(flat, str(node.target)):
            raise TypeError(f"the trace holds {node.target}, a tensor computed while tracing")
    traced = fx.GraphModule(flat, graph, type(model).__name__)
    traced.train(model.training)
    module = export_graph(traced, tuple(tensors), {})
    info = module.graph._codegen.pytree_info  # type: ignore[attr-defined]
    assert flat.output is not None
    module.graph._codegen.pytree_info = info._replace(out_spec=flat.output)  # type: ignore[attr-defined]
    _restore_constants(module, model, args, kwargs)
    return module


class _Tracer(fx.Tracer):
    """A tracer that refuses calls in modes that its graph would not know."""

    def __init__(self) -> None:
        super().__init__()
        self._modes = _modes()

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        """A node of the graph."""
        if kind.startswith("call") and _modes() != self._modes:
            raise NotImplementedError("symbolic tracing would drop the no_grad or autocast that code runs in")
        return super().create_node(kind, *args, **kwargs)


def _modes() -> tuple[Any, ...]:
    """What decides on gradients and precision beside the calls themselves."""
    casts = [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")]
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *casts


class _NoWrites(TorchDispatchMode):
    """What is computed while tracing, at once and not in the graph, may not write to these storages."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages = {t.untyped_storage()._cdata for t in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[number] if number < len(args) else kwargs.get(argument.name)
                for leaf in pytree.tree_leaves(written):
                    if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata in self.storages:
                        raise NotImplementedError(_WRITES)
        return func(*args, **kwargs)


@contextmanager
def _unwritten(flat: nn.Module, own: Mapping[int, Tensor]) -> Iterator[None]:
    """Refuse code that changes parameters or buffers while it is traced; they keep what they held.

    Args:
        flat: What is traced.
        own: Its parameters and buffers, which are the model's own.
    """
    held = [(t, t.data) for t in own.values() if type(t.data) is Tensor and t.layout == torch.strided]
    with _NoWrites(data for _, data in held):
        yield
    replaced = [(t, data) for t, data in held if t.data_ptr() != data.data_ptr()]
    for tensor, data in replaced:
        tensor.data = data
    if replaced or {id(t) for t in (*flat.parameters(), *flat.buffers())} != set(own):
        raise NotImplementedError(_WRITES)


def _owned(flat: nn.Module, path: str) -> bool:
    """Whether a path of the trace is the model's own."""
    try:
        value: Any = flat
        for part in path.split("."):
            value = getattr(value, part)
    except AttributeError:
        return False
    return isinstance(value, Tensor)


def _restore_constants(module: fx.GraphModule, model: nn.Module, args: Any, kwargs: Any) -> None:
    """Placeholders for arguments that are no tensors, as export's own graphs have them."""
    holders = iter([n for n in module.graph.nodes if n.op == "placeholder"])
    before = None
    for number, leaf in enumerate(pytree.tree_leaves((args, kwargs))):
        if isinstance(leaf, Tensor):
            before = next(holders)
            continue
        first = next(iter(module.graph.nodes))
        with module.graph.inserting_after(before) if before is not None else module.graph.inserting_before(first):
            before = module.graph.placeholder(f"constant_{number}")
            before.meta["val"] = leaf
    torch.fx.graph.Graph.lint(module.graph)
