"""Probe: run the model itself once or twice before any capture, to see what no graph may drop.

What comes in: a private model and example arguments. What goes out: the modules that a graph would change silently, each
with its reason, and notes. A forward that fails, or gives no tensor, is a `CaptureError` here, with the original error as
its cause.

Dropped silently by non-strict `torch.export` are the backward of a `torch.autograd.Function` (seen in the autograd graph of
the outputs; `torch.library` operators, which survive, and functions that export can be made to keep are not meant; torch's
own, such as reentrant checkpoints, are), hooks on gradients, random numbers that are not torch's own (`watch`), and attributes
of modules that are no buffers and change from call to call (seen by running twice).
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn.modules._functions import BackwardHookFunction
from torch.utils import _pytree as pytree

from qcascade.capture.autograd_functions import importable, noted_functions
from qcascade.capture.watch import called_modules, watched
from qcascade.errors import CaptureError, first_line

_LIBRARY = "GeneratedBackwardFor_"  # torch.library.custom_op's own Function
_ENGINE = "qcascade.engine."  # its Functions give way to its torch.library operators while torch exports
_PLAIN = (int, float, bool, str, type(None))


@dataclass(frozen=True, slots=True)
class Probe:
    """What running the model showed: paths of modules that no graph may hold, with the reason; and notes."""

    opaque: Mapping[str, str]
    notes: tuple[str, ...]


def probe(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Probe:
    """Run a copy of the model (its parameters shared) in both modes.

    Raises:
        CaptureError: The forward fails in evaluation mode, or its result holds no tensor.
    """
    opaque = _backward_hooks(model)
    notes: list[str] = []
    for training in (False, True):
        trial = shadow(model)
        set_mode(trial, training)
        try:
            with noted_functions() as noted:
                used, result = _run(trial, args, kwargs)
        except Exception as error:  # the user's own code may raise anything
            if training:
                continue  # capture in training mode meets it again, and says so
            raise CaptureError(
                f"{type(model).__name__} could not be captured: its own forward fails on the example inputs with "
                f"{first_line(error, named=True)} (tried: the forward itself, in evaluation mode). "
                "Give example_inputs that the model's own forward accepts, on a device that is here."
            ) from error
        leaves = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
        if not leaves and is_dataclass(result):
            raise CaptureError(
                f"{type(model).__name__} could not be captured: its forward returns the dataclass {type(result).__name__}, which torch "
                "does not look into (tried: the forward itself, in evaluation mode). "
                f"Call torch.export.register_dataclass({type(result).__name__}) before compiling."
            )
        if not leaves:
            raise CaptureError(
                f"{type(model).__name__} could not be captured: its forward returns {type(result).__name__} without any tensor "
                "(tried: the forward itself, in evaluation mode). Compile a module that returns tensors."
            )
        if not training:
            notes += _changed_inputs((args, kwargs), used)
        if custom_functions(leaves, kept=noted):
            opaque.update(_owners(trial, args, kwargs, noted))
        opaque.update(_restless(trial, args, kwargs))
    return Probe(opaque, tuple(notes))


def fresh(value: Any, *, grad: bool = False) -> Any:
    """Arguments with every tensor cloned; floating ones as results of a computation that takes gradients, where asked."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if grad and leaf.is_floating_point():
            return leaf.detach().requires_grad_().clone()
        return leaf.detach().clone()

    return pytree.tree_map(one, value)


def shadow(model: nn.Module, written: Collection[str] = ()) -> nn.Module:
    """A copy to run once and throw away: it shares parameters, but for those that its forward writes to, and nothing else."""
    return copy.deepcopy(model, {id(p): p for name, p in model.named_parameters() if name not in written})


def set_mode(model: nn.Module, training: bool) -> bool:
    """Set training or evaluation mode; False where the model has only the one it was exported in."""
    try:
        model.train(training)
    except NotImplementedError:
        return False
    return True


def custom_functions(
    outputs: Iterable[Tensor], before: Iterable[Tensor] = (), kept: Collection[type[Any]] = ()
) -> dict[int, str]:
    """`torch.autograd.Function`s in the history of tensors and not in that of others: names by identity.

    Those of `kept` that can be imported are left out: a graph can call them.
    """
    known = {id(node) for node in _history(before)}
    return {
        id(node): type(node).__name__.removesuffix("Backward")
        for node in _history(outputs)
        if id(node) not in known
        and isinstance(node, BackwardCFunction)
        and not type(node).__name__.startswith(_LIBRARY)
        and not (function := type(node)._forward_cls).__module__.startswith(_ENGINE)  # type: ignore[attr-defined]
        and not _kept(function, kept)
    }


def _kept(function: type[Any], kept: Collection[type[Any]]) -> bool:
    """Whether a graph calls the function and has its backward; of torch's own, only its higher-order operators."""
    if function is BackwardHookFunction:
        return True  # holds hooks of a module, which is named for them
    if function.__module__.startswith("torch.") and not function.__module__.startswith("torch._higher_order_ops."):
        return False
    return function in kept and importable(function)


def _backward_hooks(model: nn.Module) -> dict[str, str]:
    """Modules with hooks on their gradients."""
    why = "it has backward hooks, which a graph would drop"
    return {path: why for path, m in model.named_modules() if m._backward_hooks or m._backward_pre_hooks}


def _history(tensors: Iterable[Tensor]) -> list[Any]:
    """Nodes of the autograd graph behind tensors."""
    pending = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen: dict[int, Any] = {id(n): n for n in pending}
    while pending:
        for source, _ in pending.pop().next_functions:
            if source is not None and id(source) not in seen:
                seen[id(source)] = source
                pending.append(source)
    return list(seen.values())


def _run(model: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments used and the result; with gradients for floating inputs where the model takes such."""
    try:
        used = fresh((args, kwargs), grad=True)
        return used, model(*used[0], **used[1])
    except Exception:  # code that reads values (.numpy(), say) takes no gradients; if that is not it, it fails again
        used = fresh((args, kwargs))
        return used, model(*used[0], **used[1])


def _changed_inputs(given: Any, used: Any) -> list[str]:
    """A note for every input that the forward wrote to."""
    notes = []
    for (path, before), after in zip(pytree.tree_flatten_with_path(given)[0], pytree.tree_leaves(used), strict=True):
        if isinstance(before, Tensor) and not torch.equal(before.to_dense(), after.detach().to_dense()):
            name = pytree.keystr(path[1:])
            notes.append(f"the model changes its input {name} in place; so does the hybrid")
    return notes


def _owners(model: nn.Module, args: Any, kwargs: Any, kept: Collection[type[Any]]) -> dict[str, str]:
    """The innermost modules that custom autograd functions run in."""
    owned: dict[str, dict[int, str]] = {}
    starts: list[list[Tensor]] = []
    keep: list[Any] = []  # nodes are known by identity: what they belong to must stay alive

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        starts.append([t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)])

    def leave(path: str, result: Any) -> None:
        outputs = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
        before = starts.pop()
        keep.extend((outputs, before, _history(outputs)))
        owned.setdefault(path, {}).update(custom_functions(outputs, before, kept))

    handles = []
    for path, module in called_modules(model):
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(
            module.register_forward_hook(lambda m, a, k, result, path=path: leave(path, result), with_kwargs=True)
        )
    _run(model, args, kwargs)
    for handle in handles:
        handle.remove()
    found = {}
    for path, functions in owned.items():
        inner = {i for p, f in owned.items() if p != path and _inside(p, path) for i in f}
        if own := sorted({name for i, name in functions.items() if i not in inner}):
            found[path] = f"it runs the torch.autograd.Function {', '.join(own)}, whose backward a graph would drop"
    return found or {"": "it runs a torch.autograd.Function, whose backward a graph would drop"}


def _restless(model: nn.Module, args: Any, kwargs: Any) -> dict[str, str]:
    """Modules that do in a second call, after a first one has filled caches, what a graph would not."""
    before = _attributes(model)
    found: dict[str, str] = {}
    try:
        with watched(model) as found:
            _run(model, args, kwargs)
    except Exception:  # code that ran before, but not while it is watched
        _run(model, args, kwargs)
    after = _attributes(model)
    for path, attributes in after.items():
        changed = sorted(k for k, v in attributes.items() if before[path].get(k, v) != v)
        if changed:
            found[path] = f"it changes its attribute {', '.join(changed)} at every call, which a graph would not"
    return found


def _attributes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Every module's attributes as something to compare: plain values, identities of tensors, and what holds them."""
    skipped = set(nn.Module().__dict__)
    found: dict[str, dict[str, Any]] = {}
    for path, module in model.named_modules():
        own = found[path] = {}
        for name, value in module.__dict__.items():
            if name in skipped:
                continue
            own[name] = _contents(value)
    return found


def _contents(value: Any, *, deep: bool = True) -> Any:
    """An attribute as something to compare; what containers and plain objects hold is looked at where `deep`."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        return Tensor, id(value)
    if isinstance(value, random.Random):
        return type(value), value.getstate()
    if isinstance(value, np.random.Generator):
        return type(value), str(value.bit_generator.state)
    if isinstance(value, (list, tuple, dict, set, deque)):
        if not deep:
            return type(value), len(value)
        items = [*value, *value.values()] if isinstance(value, dict) else list(value)
        return type(value), [_contents(item, deep=False) for item in items]
    if deep and not isinstance(value, (nn.Module, type)) and not callable(value):
        return type(value), {k: _contents(v, deep=False) for k, v in getattr(value, "__dict__", {}).items()}
    return type(value)


def _inside(path: str, outer: str) -> bool:
    return not outer or path.startswith(f"{outer}.")
