"""The last rung: the model's own forward keeps running, and every module that it calls is captured by itself.

The model runs once with hooks, which record every call of every module. From the top down, a module whose calls are all
alike and which `torch.export` captures with what it was called with becomes a *part*, with graphs of its own; where it
cannot, the way leads on to its children. So data-dependent control flow, caches and custom autograd functions stay in
the Python code around the parts. What code outside a part does with its parameters (a tied projection, say) is recorded
too. Kernels later replace regions of parts; a part in which nothing is replaced stays the module it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qcascade.capture.export import export_graph
from qcascade.capture.graph import CapturedModel, Unseen
from qcascade.capture.inputs import arranged, input_specs
from qcascade.capture.probe import fresh, set_mode, shadow
from qcascade.capture.watch import called_modules
from qcascade.errors import first_line
from qcascade.plan import CaptureRecord

_ATTENTION = (F.scaled_dot_product_attention, F.multi_head_attention_forward)
_CHOOSING = ("argmax", "max", "topk")
_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size)


@dataclass(slots=True)
class _Recording:
    """Calls by path of the module, and where each parameter is used."""

    calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = field(default_factory=dict)
    uses: dict[int, set[str]] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)
    results: dict[str, list[Tensor]] = field(default_factory=dict)  # of the last call
    unseen: dict[tuple[str, str], None] = field(default_factory=dict)  # (module, pattern) of attention and lookups
    final: set[int] = field(default_factory=set)  # storages of the model's results


class _Uses(TorchFunctionMode):
    """Notes which module is running whenever a parameter is worked with."""

    def __init__(self, tensors: Mapping[int, Tensor], recording: _Recording) -> None:
        super().__init__()
        self.tensors, self.recording = tensors, recording
        self.softmaxes: dict[int, tuple[tuple[str, str], Tensor]] = {}  # by storage; kept, so that it is not used again

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, here = getattr(func, "__name__", ""), (self.recording.stack[-1], "attention")
        if name == "softmax" and args[0].dim() > 2:
            result = func(*args, **kwargs)
            if here not in self.recording.unseen:
                self.softmaxes[_storage(result)] = here, result
            self.recording.unseen[here] = None
            return result
        if name in _CHOOSING and isinstance(args[0], Tensor) and _storage(args[0]) in self.softmaxes:
            self.recording.unseen.pop(self.softmaxes.pop(_storage(args[0]))[0], None)  # of experts, say
        if func in _ATTENTION:
            self.recording.unseen[here] = None
        elif func is F.embedding:
            self.recording.unseen[self.recording.stack[-1], "embedding"] = None
        if getattr(func, "__name__", "") != "__get__":  # reading .shape or .dtype is no use
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and id(leaf) in self.tensors:
                    self.recording.uses.setdefault(id(self.tensors[id(leaf)]), set()).add(self.recording.stack[-1])
        return func(*args, **kwargs)


def capture_modules(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    opaque: Mapping[str, str],
    written: frozenset[str] = frozenset(),
) -> tuple[tuple[CapturedModel, ...], tuple[Unseen, ...], list[str]]:
    """The parts of a model that runs, regions outside them, and a line for every module that could not be one.

    Args:
        model: The private copy; its mode is changed.
        args: Positional arguments to run it with.
        kwargs: Named arguments.
        opaque: Paths of modules that no graph may hold, and why.
        written: Names of parameters that its forward writes to.
    """
    set_mode(model, False)
    recording = _recorded(model, args, kwargs, written)
    parts: list[CapturedModel] = []
    refused: dict[str, str] = {}
    order = {path: number for number, path in enumerate(recording.calls)}
    seen: set[int] = set()

    def visit(outer: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            path = f"{outer}.{name}" if outer else name
            if id(child) in seen or not _has_weights(child):
                continue
            seen.add(id(child))
            if path not in recording.calls:
                visit(path, child)  # a container that is never called itself
                continue
            part, reason = _part(model, path, child, recording, opaque)
            if part is not None:
                parts.append(part)
                seen.update(id(m) for m in child.modules())
            else:
                refused[path] = reason
                visit(path, child)

    visit("", model)
    inside = tuple(part.path for part in parts)
    unseen = tuple(
        Unseen(path, pattern, refused.get(path) or opaque.get(path) or "it is computed between the model's modules")
        for path, pattern in recording.unseen
        if not any(path == part or path.startswith(f"{part}.") for part in inside)
    )
    lines = [
        f"{path} ({type(model.get_submodule(path)).__name__}) stays as it is: {why}" for path, why in refused.items()
    ]
    return tuple(sorted(parts, key=lambda part: order[part.path])), unseen, lines


def _recorded(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], written: frozenset[str]) -> _Recording:
    """What is called with what, and where parameters are used, in one run in evaluation mode."""
    recording = _Recording(stack=[""])
    originals = dict(model.named_parameters())
    model = shadow(model, written)
    tensors = {id(p): originals[name] for name, p in model.named_parameters()}

    def enter(path: str, args: Any, kwargs: Any) -> None:
        recording.calls.setdefault(path, []).append(fresh((args, kwargs)))
        recording.stack.append(path)

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        path = recording.stack.pop()
        recording.results[path] = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]

    with _hooked(model, enter, leave), torch.no_grad(), _Uses(tensors, recording):
        given = fresh((args, kwargs))
        result = model(*given[0], **given[1])
    recording.final.update(_storage(t) for t in pytree.tree_leaves(result) if isinstance(t, Tensor))
    return recording


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def _hooked(model: nn.Module, enter: Callable[..., None], leave: Callable[..., None]) -> Iterator[None]:
    handles = []
    for path, module in called_modules(model):
        if path:
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, kwargs, path=path: enter(path, args, kwargs), with_kwargs=True
                )
            )
            handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _part(
    model: nn.Module, path: str, module: nn.Module, recording: _Recording, opaque: Mapping[str, str]
) -> tuple[CapturedModel | None, str]:
    """A module's graphs, or why it has none."""
    for inner, why in opaque.items():
        if inner == path:
            return None, why
        if inner.startswith(f"{path}."):
            return None, f"{inner} is inside it, and {why}"
    signature = inspect.signature(module.forward)
    try:
        calls = [arranged(signature, *call) for call in recording.calls[path]]
    except TypeError as error:
        return None, f"its calls do not fit its signature ({error})"
    args, kwargs = calls[0]
    leaves, structure = pytree.tree_flatten((args, kwargs))
    odd = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, (Tensor, *_PLAIN))]
    if odd:
        return None, f"it is called with a {odd[0]}"
    for other in calls[1:]:
        given, form = pytree.tree_flatten(other)
        if form != structure or any(not _alike(a, b) for a, b in zip(leaves, given, strict=True)):
            return None, f"its {len(calls)} calls are not alike"
    graphs: list[fx.GraphModule | None] = []
    notes: list[str] = []
    for training in (False, True):
        set_mode(module, training)
        try:
            graphs.append(export_graph(module, *fresh((args, kwargs))))
        except Exception as error:  # the reason is shown, and the way leads on to its children
            if not training:
                return None, f"export: {first_line(error, named=True)}"
            return None, f"export in training mode: {first_line(error, named=True)}"
    evaluated, trained = graphs
    assert evaluated is not None
    specs, fixed = input_specs(module, evaluated, args, kwargs, trained)
    own = {id(p): name for name, p in module.named_parameters(remove_duplicate=False)}
    shared = {
        own[number]: next(iter(sorted(outside))) or type(model).__name__
        for number, places in recording.uses.items()
        if number in own and (outside := {p for p in places if p != path and not p.startswith(f"{path}.")})
    }
    record = CaptureRecord("modules", (*notes, *fixed))
    final = any(_storage(t) in recording.final for t in recording.results[path])
    return CapturedModel(module, evaluated, trained, record, specs, args, kwargs, path, final, shared), ""


def _alike(a: Any, b: Any) -> bool:
    """Whether two arguments can be captured as one."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.dim() == b.dim()
    return type(a) is type(b) and bool(a == b)


def _has_weights(module: nn.Module) -> bool:
    return any(p.dim() > 1 for p in module.parameters())
