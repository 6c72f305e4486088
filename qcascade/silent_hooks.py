"""Hooks on modules whose graph is called instead of them: nothing runs them, which is said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from qcascade.kernels.base import QuantumKernel


@dataclass
class HookWatch:
    """What is known of the hooks of some module trees.

    Args:
        known: Numbers, by torch, of those that were there from the start, whose work is in the graphs.
    """

    known: set[int]
    _next: int = -1  # torch's number of the next hook of the process, when these were looked for

    def warn(self, trees: Callable[[], Iterable[nn.Module]], stacklevel: int) -> None:
        """Say of hooks registered since the last call that they do not run; costs nothing where there is none.

        Args:
            trees: Gives the modules whose graphs are called; hooks of their own run, those of modules inside do not.
            stacklevel: Of the warning, from here.
        """
        if torch.compiler.is_compiling() or self._next == RemovableHandle.next_id:
            return
        found = set(silent_hooks(trees()))
        if not found <= self.known:
            warnings.warn(
                "hooks of a module inside a hybrid do not run: its graph is called, and not the module. Register them on the "
                "hybrid, on one of its kernels, or on the model before it is compiled.",
                stacklevel=stacklevel + 1,
            )
        self.known, self._next = self.known | found, RemovableHandle.next_id


def silent_hooks(trees: Iterable[nn.Module]) -> Iterator[int]:
    """Numbers of the hooks of modules inside these that are no kernels, which nothing calls."""
    waiting = [child for tree in trees for child in tree._modules.values()]
    while waiting:
        module = waiting.pop()
        if module is None or isinstance(module, QuantumKernel):
            continue
        waiting += module._modules.values()
        for hooks in (
            module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks,
        ):  # fmt: skip
            yield from hooks
