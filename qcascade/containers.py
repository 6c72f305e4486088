"""What is left of a module whose forward is part of a hybrid's graph: its parameters, buffers and children, by their names.

Lists, sequences and dictionaries of modules can still be indexed and iterated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import nn

from qcascade.errors import ExecutionError
from qcascade.kernels.base import QuantumKernel


class Container(nn.Module):
    """Holds the parameters, buffers and children of a module whose forward is now part of a graph."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Not callable on its own: the hybrid's graph does its work."""
        raise ExecutionError("this part of a hybrid only holds parameters; call the hybrid itself.")


class ContainerList(Container, nn.ModuleList):
    """Of an `nn.ModuleList`."""


class ContainerDict(Container, nn.ModuleDict):
    """Of an `nn.ModuleDict`."""


class Items(nn.Module):
    """Indexed and iterated like an `nn.Sequential`; a kernel that stands for the whole is none of the items."""

    def __len__(self) -> int:
        return sum(1 for _ in self._named())

    def __iter__(self) -> Iterator[nn.Module]:
        return (module for _, module in self._named())

    def __getitem__(self, index: int | slice) -> Any:
        named = list(self._named())
        return ContainerSequence(OrderedDict(named[index])) if isinstance(index, slice) else named[index][1]

    def _named(self) -> Iterator[tuple[str, nn.Module]]:
        return ((n, m) for n, m in self._modules.items() if m is not None and not isinstance(m, QuantumKernel))


class ContainerSequence(Items, Container, nn.Sequential):
    """Of an `nn.Sequential`."""


CONTAINERS: dict[str, type[Container]] = {
    "": Container, "ModuleList": ContainerList, "ModuleDict": ContainerDict, "Sequential": ContainerSequence,
}  # fmt: skip


def container_name(module: nn.Module) -> str:
    """Which of `CONTAINERS` holds what this module holds.

    >>> container_name(nn.Sequential(nn.ReLU()))
    'Sequential'
    """
    if isinstance(module, Items):  # a hybrid, too
        return "Sequential"
    return next((name for name in CONTAINERS if name and isinstance(module, getattr(nn, name))), "")
