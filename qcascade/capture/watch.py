"""Watch a model run: what its code does that no graph holds.

What goes in: a model that is about to run. What comes out: the innermost modules whose code, or the code between their
children, hooks the gradients of tensors, draws from a `torch.Generator` of its own, or from the random numbers of Python or
NumPy; each with the reason. Hooks are lost in a graph, and every such draw is one outcome for ever.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_HOOKING = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook)


def called_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules by path whose calls hooks can see; TorchScript takes none."""
    return [(path, m) for path, m in model.named_modules() if not isinstance(m, torch.jit.ScriptModule)]


def random_states() -> tuple[Any, ...]:
    """The states of Python's random numbers and of NumPy's, as something to compare."""
    state: Any = np.random.get_state()
    name, keys, *rest = state
    return random.getstate(), (name, keys.tobytes(), *rest)


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, str]]:
    """Reasons by path of the module, complete when the context ends."""
    watch = _Watch()
    handles = []
    for path, module in called_modules(model):
        handles.append(module.register_forward_pre_hook(lambda m, a, path=path: watch.enter(path)))
        handles.append(module.register_forward_hook(lambda m, a, result: watch.leave()))
    try:
        with watch:
            yield watch.found
    finally:
        for handle in handles:
            handle.remove()


class _Watch(TorchFunctionMode):
    """Which module is running, and what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.running: list[str] = [""]
        self.states = random_states()

    def enter(self, path: str) -> None:
        self.look()
        self.running = [*self.running, path] if path else [""]  # a run that failed left some

    def leave(self) -> None:
        self.look()
        if len(self.running) > 1:
            self.running.pop()

    def look(self) -> None:
        """Who drew random numbers since the last look: whatever ran in between."""
        if (states := random_states()) != self.states:
            self.states = states
            self.note("it draws from the random numbers of Python or NumPy, which a graph would do once and for all")

    def note(self, reason: str) -> None:
        self.found[self.running[-1]] = reason

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _HOOKING:
            self.note("it hooks the gradient of a tensor, which a graph would drop")
        elif kwargs.get("generator") is not None:
            self.note("it draws from a torch.Generator of its own, which a graph would not keep")
        return func(*args, **kwargs)
