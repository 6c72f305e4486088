"""`torch.autograd.Function`s in an exported graph, their own backward kept.

Non-strict export traces through a function's forward and drops its backward silently. Within `recorded_functions` a call
of `Function.apply` is one node of the graph, which calls the function by its name when the graph runs; torch's own node for
this is used (torch._export.wrappers.allow_in_pre_dispatch_graph asks for a decorator on every class). What is refused
(`NotImplementedError`): classes that no import finds, tensors in lists, arguments that a graph has no form for, functions that
write to their arguments. Calls that go round `Function.apply` (a bound `apply` kept from before) are not seen; `probe` finds
them by `noted_functions`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import _get_dispatch_mode_pre_dispatch
from torch.autograd import Function
from torch.export.custom_ops import _call_custom_autograd_function_in_pre_dispatch as call_by_name
from torch.fx.experimental.proxy_tensor import track_tensor_tree
from torch.utils import _pytree as pytree

_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.SymInt, torch.SymFloat, torch.SymBool)


def importable(function: type[Any]) -> bool:
    """Whether a class is found under its name."""
    try:
        return getattr(importlib.import_module(function.__module__), function.__qualname__, None) is function
    except ImportError:
        return False


@contextmanager
def noted_functions() -> Iterator[set[type[Any]]]:
    """The classes whose `apply` is called within the context."""
    seen: set[type[Any]] = set()

    def note(original: Callable[..., Any], function: type[Any], args: Any, kwargs: Any) -> Any:
        seen.add(function)
        return original(*args, **kwargs)

    with _applying(note):
        yield seen


@contextmanager
def recorded_functions() -> Iterator[None]:
    """Within it, export and symbolic tracing keep custom functions whole, or refuse."""
    inside = False

    def record(original: Callable[..., Any], function: type[Any], args: Any, kwargs: Any) -> Any:
        nonlocal inside
        if any(isinstance(leaf, fx.Proxy) for leaf in pytree.tree_leaves((args, kwargs))):
            raise NotImplementedError(f"symbolic tracing would drop the backward of {function.__name__}")
        mode = _get_dispatch_mode_pre_dispatch(torch._C._TorchDispatchModeKey.PROXY)
        if mode is None or inside or function.__module__.startswith("torch."):
            return original(*args, **kwargs)
        odd = [type(a).__name__ for a in (*args, *kwargs.values()) if not isinstance(a, (Tensor, *_PLAIN))]
        if odd or not importable(function):
            raise NotImplementedError(
                f"{function.__name__} is called with a {odd[0]}" if odd else f"no import finds {function.__name__}"
            )
        inside = True
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        versions = [t._version for t in tensors]
        try:
            result = _below(original, args, kwargs)
        finally:
            inside = False
        if versions != [t._version for t in tensors]:
            raise NotImplementedError(f"{function.__name__} writes to its arguments")
        tracer = mode.tracer
        name = f"{function.__module__}.{function.__qualname__}"
        node = tracer.create_proxy(
            "call_function", call_by_name, *pytree.tree_map(tracer.unwrap_proxy, ((name, *args), kwargs))
        )
        return track_tensor_tree(result, node, constant=None, tracer=tracer)

    with _applying(record):
        yield


def _below(original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run without recording what is inside, as torch's own wrapper does."""
    include = torch._C._dispatch_tls_local_include_set().remove(torch._C.DispatchKey.PreDispatch)
    exclude = torch._C._dispatch_tls_local_exclude_set() | torch._C.DispatchKeySet(torch._C.DispatchKey.PreDispatch)
    with torch._C._ForceDispatchKeyGuard(include, exclude):
        return original(*args, **kwargs)


@contextmanager
def _applying(instead: Callable[[Callable[..., Any], type[Any], Any, Any], Any]) -> Iterator[None]:
    """`Function.apply` replaced."""
    before = Function.__dict__["apply"]

    def apply(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        return instead(before.__get__(None, cls), cls, args, kwargs)

    Function.apply = classmethod(apply)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Function.apply = before  # type: ignore[method-assign]
