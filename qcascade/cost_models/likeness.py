"""When two operators are alike: the same operation on inputs of the same layout and the same numbers.

What comes in: arguments of graph nodes and tensors. What goes out: values that can be compared and hashed. What is
refused: objects that cannot be told apart by their value (`TypeError`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

_PLAIN = (bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None))
_EXACT = frozenset(_PLAIN)


def frozen(value: Any, read: Callable[[Any], Any]) -> Any:
    """An argument as something hashable.

    Args:
        value: A node's argument: numbers, names, nodes and tensors in tuples, lists, dictionaries and slices.
        read: What stands for a node or a tensor.

    Raises:
        TypeError: The argument holds something else.

    Example:
        >>> frozen([1, slice(None, 2)], id) == frozen([1, slice(None, 2)], id)
        True
    """
    kind = type(value)
    if kind in _EXACT:  # most of what there is
        return (kind, value)
    if kind is Layout:
        return value
    if kind is fx.Node:
        return read(value)
    if isinstance(value, (tuple, list)):
        return (kind, *[frozen(v, read) for v in value])
    if isinstance(value, (fx.Node, Tensor)):
        return read(value)
    if isinstance(value, dict):
        return (dict, *[(k, frozen(v, read)) for k, v in value.items()])
    if isinstance(value, slice):
        return (slice, frozen(value.start, read), frozen(value.stop, read), frozen(value.step, read))
    if isinstance(value, _PLAIN):
        return (kind, value)
    raise TypeError(f"{kind.__name__} is not compared")


class Layout(NamedTuple):
    """What strided tensors without content differ in. Products of weights that take gradients are folded otherwise."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int  # of the first element in its storage
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool

    def empty(self) -> Tensor:
        """A tensor of this layout."""
        whole = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        return (whole if self.offset == 0 else _shifted(whole, self)).requires_grad_(self.requires_grad)


def layout(value: Tensor) -> Layout:
    """The layout of a tensor.

    Example:
        >>> layout(torch.ones(2, 3)) == layout(torch.zeros(2, 3)), layout(torch.ones(3, 2).T) == layout(torch.ones(2, 3))
        (True, False)
    """
    shape, stride, offset = tuple(value.shape), tuple(value.stride()), int(value.storage_offset())
    return Layout(shape, stride, offset, value.dtype, value.device, value.requires_grad)


def _shifted(value: Tensor, wanted: Layout) -> Tensor:
    """The same later in a storage that is as much larger."""
    room = wanted.offset + sum((n - 1) * s for n, s in zip(wanted.shape, wanted.stride, strict=True)) + 1
    return value.new_empty(max(room, 0)).as_strided(wanted.shape, wanted.stride, wanted.offset)
