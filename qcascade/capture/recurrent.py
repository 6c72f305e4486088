"""Recurrent layers of `torch.nn` as one operator each in an exported graph, at any length.

What comes in: nothing; `recurrent_operators` is a context around `torch.export`. Left alone, torch expands a recurrent layer
step by step, which fixes the sequence length, or into `while_loop` (torch.export._patches), which has no backward. ATen's own
operators (`aten::lstm.input`, `gru.input`, `rnn_tanh.input`, `rnn_relu.input`) know their backward and take any length, so
within the context they are kept whole: only the shapes of their results are computed. What is refused: packed sequences,
whose lengths are data (`NotImplementedError`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey

_PACKETS = (torch.ops.aten.lstm, torch.ops.aten.gru, torch.ops.aten.rnn_tanh, torch.ops.aten.rnn_relu)
RECURRENT = frozenset(packet.input for packet in _PACKETS)


@contextmanager
def recurrent_operators() -> Iterator[None]:
    """Within it, export keeps recurrent layers whole. Torch's own kernels in Python are put back at the end.

    Example:
        >>> from torch.export import Dim, export
        >>> shapes = ((Dim.AUTO, Dim.AUTO, None),)
        >>> with recurrent_operators():
        ...     program = export(torch.nn.GRU(4, 3), (torch.randn(5, 2, 4),), dynamic_shapes=shapes, strict=False)
        >>> program.module()(torch.randn(9, 1, 4))[0].shape
        torch.Size([9, 1, 3])
    """
    kernels = {getattr(packet, kind): kernel for packet in _PACKETS for kind, kernel in _KERNELS.items()}
    before = {operator: dict(operator.py_kernels) for operator in kernels}
    try:
        for operator, kernel in kernels.items():
            operator.py_kernels.pop(DispatchKey.Autograd, None)
            operator.py_kernels[DispatchKey.CompositeImplicitAutograd] = kernel
            operator._dispatch_cache.clear()
        yield
    finally:
        for operator, found in before.items():
            operator.py_kernels.clear()
            operator.py_kernels.update(found)
            operator._dispatch_cache.clear()


def _shapes(
    input: Tensor,
    hx: Tensor | list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Results of the right shapes: the sequence of outputs, then every state."""
    states = [hx] if isinstance(hx, Tensor) else hx
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return input.new_empty(*input.shape[:-1], width), *(state.new_empty(state.shape) for state in states)


def _packed(*args: Any) -> tuple[Tensor, ...]:
    raise NotImplementedError("a recurrent layer runs a packed sequence, whose lengths are data")


_KERNELS = {"input": _shapes, "data": _packed}
