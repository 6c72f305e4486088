"""Modes of modules whose graph is called instead of them: the graph is in one mode throughout, which is said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from qcascade.kernels.base import QuantumKernel


@dataclass
class ModeWatch:
    """Whether it was said already."""

    warned: bool = False

    def warn(self, hybrid: nn.Module, trees: Callable[[], Iterable[nn.Module]], stacklevel: int) -> None:
        """Say of a module in another mode than the graph that stands for it that this changes nothing.

        Args:
            hybrid: What the module is named in.
            trees: Gives the modules whose graphs are called.
            stacklevel: Of the warning, from here.
        """
        if self.warned or torch.compiler.is_compiling():
            return
        odd = next((m for tree in trees() for m in _leaves(tree) if m.training != tree.training), None)
        if odd is None:
            return
        self.warned = True
        name = next((path for path, module in hybrid.named_modules() if module is odd), type(odd).__name__)
        ours, its = ("evaluation", "training") if odd.training else ("training", "evaluation")
        warnings.warn(
            f"{name} is in {its} mode, inside a hybrid in {ours} mode, and runs in {ours} mode: a hybrid's graph is in one mode "
            "throughout. Call .train() or .eval() on the whole; for modules that stay in evaluation mode while the model trains, "
            "such as frozen batch norms, give the model a train() that leaves them so before it is compiled.",
            stacklevel=stacklevel + 1,
        )


def _leaves(tree: nn.Module) -> Iterator[nn.Module]:
    """Modules without children, kernels left out, whose mode counts."""
    waiting = [*tree._modules.values()]
    while waiting:
        module = waiting.pop()
        if module is None or isinstance(module, QuantumKernel):
            continue
        if module._modules:
            waiting += module._modules.values()
        else:
            yield module
