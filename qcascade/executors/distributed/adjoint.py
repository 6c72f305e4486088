"""Exact simulation with gradients, divided into blocks of rows: values forward, the adjoint method backward.

What comes in: inputs of `engine.simulate`. What goes out: the same values, differentiable. Every block is simulated by itself: 16 rows
of one set of weights, or one row of 14 qubits or more, as the engine runs them anyway. Blocks do not depend on the workers, and
gradients for weights are added up here, block after block, so that nothing depends on how blocks are divided among workers.
A backward pass simulates its blocks again, since the worker that has their states may be gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from qcascade.circuits.template import Measurement
from qcascade.engine import Program, arranged
from qcascade.engine.compiled import WIDE_QUBITS
from qcascade.errors import ExecutionError
from qcascade.executors.distributed.worker import Array, Exact

_ROWS = 16
Ran: TypeAlias = Callable[[Program, Exact], Sequence["Array | None"]]  # runs blocks, divided among workers


def simulate(
    ran: Ran,
    program: Program,
    measurement: Measurement | None,
    *,
    data: Tensor | None,
    weights: Tensor | None,
    amplitudes: Tensor | None,
    squeeze: bool,
) -> Tensor:
    """Values [S, B, K], or [B, K] where S is 1 and is to be left out.

    Raises:
        ExecutionError: A shape does not fit the program.
    """
    first = next((t for t in (weights, data, amplitudes) if t is not None), None)
    device = torch.device("cpu") if first is None else first.device
    d, w, a = arranged(program, data, weights, amplitudes)
    sets, batch = d.shape[:2]
    most = 1 if program.qubits >= WIDE_QUBITS else _ROWS
    sizes = tuple(min(most, batch - start) for start in range(0, batch, most))
    flat = None if a is None else a.flatten(0, 1).to("cpu")
    own = w[:, None].expand(-1, len(sizes), -1).flatten(0, 1).to("cpu")  # its backward pass adds blocks up
    values: Tensor = _Adjoint.apply(ran, program, measurement, sizes * sets, d.flatten(0, 1).to("cpu"), own, flat)  # type: ignore[no-untyped-call]
    values = values.to(device).unflatten(0, (sets, batch))
    return values[0] if squeeze and sets == 1 else values


class _Adjoint(torch.autograd.Function):
    """Values [rows, K] of data [rows, D], weights [blocks, W] and amplitudes [rows, 2^q]."""

    @staticmethod
    def forward(
        ctx: Any,
        ran: Ran,
        program: Program,
        measurement: Measurement | None,
        sizes: tuple[int, ...],
        data: Tensor,
        weights: Tensor,
        amplitudes: Tensor | None,
    ) -> Tensor:
        ctx.ran, ctx.program, ctx.measurement, ctx.sizes = ran, program, measurement, sizes
        ctx.save_for_backward(data, weights, amplitudes)
        (values,) = ran(program, _work(ctx, (data, weights, amplitudes)))
        return torch.from_numpy(values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise ExecutionError(
                "a distributed executor has no second derivatives (create_graph=True); use('statevector') has."
            )
        for_data, for_weights, for_amplitudes = ctx.needs_input_grad[4:]
        work = _work(ctx, ctx.saved_tensors, cotangents[0], (for_data, for_weights, for_amplitudes))
        gradients = ctx.ran(ctx.program, work)
        return None, None, None, None, *(None if g is None else torch.from_numpy(g) for g in gradients)


def _work(
    ctx: Any,
    inputs: Sequence[Tensor | None],
    cotangents: Tensor | None = None,
    needed: tuple[bool, bool, bool] = (False, False, False),
) -> Exact:
    data, weights, amplitudes, ends = (None if t is None else _array(t) for t in (*inputs, cotangents))
    assert data is not None and weights is not None
    return Exact(b"", ctx.measurement, ctx.sizes, data, weights, amplitudes, ends, needed)


def _array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().resolve_conj().resolve_neg().contiguous().numpy()
    return found
