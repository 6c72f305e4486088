"""Noisy circuits exactly, in the Pauli basis: what a density matrix simulator computes, in real numbers and batched.

A state is its 4^n Pauli expectation values, a gate with its noise the real matrix that maps them (Pauli transfer matrix;
Greenbaum 2015, arXiv:1509.02921). A rotation's is A + B cos a + C sin a. One-qubit gates are gathered until a two-qubit
gate of their qubit takes them along, so that a batch of bindings costs one batched 16 × 4^(n−2) product a two-qubit gate.

What comes in: a scheduled circuit with Aer's noise model (`executors.noise.prepare`). What goes out: the probabilities of
every reading, readout errors included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from qiskit.circuit import ParameterExpression, QuantumCircuit
from qiskit.quantum_info import PTM, Operator
from qiskit_aer.noise import NoiseModel
from torch import Tensor

from qcascade.errors import ExecutionError

Matrix = NDArray[np.float64]
_Known = dict[Any, Matrix]  # transfer matrices of gates and errors: making one takes milliseconds
_ENTRIES = 2**22  # of a batch of states, so that it stays near the processor
_TO_CHANCE = np.array([[0.5, 0.0, 0.0, 0.5], [0.5, 0.0, 0.0, -0.5]])  # (I, X, Y, Z) to the chances of 0 and 1
_TRACE = np.array([[1.0, 0.0, 0.0, 0.0]])


@dataclass(slots=True)
class _Step:
    """A transfer matrix on one qubit or two (second, first); with `angle`, `parts` are A, B and C, else it alone."""

    qubits: tuple[int, ...]
    parts: list[Matrix]
    angle: int | None = None
    tensors: dict[torch.dtype, list[Tensor]] = field(default_factory=dict)

    def matrix(self, cosines: Tensor, sines: Tensor) -> Tensor:
        """[m, m], or [N, m, m] where it varies."""
        if cosines.dtype not in self.tensors:
            self.tensors[cosines.dtype] = [torch.from_numpy(part).to(cosines.dtype) for part in self.parts]
        parts = self.tensors[cosines.dtype]
        if self.angle is None:
            return parts[0]
        cos, sin = cosines[:, self.angle, None, None], sines[:, self.angle, None, None]
        return parts[0] + cos * parts[1] + sin * parts[2]


class TransferCircuit:
    """A noisy circuit in the Pauli basis.

    Args:
        circuit: Gates on at most two qubits with at most one free Parameter, of slope ±1; measurements last. Entry k of
            the angles is the Parameter with index k of its vector. Classical bit 0 is the least significant.
        noise: Of local errors and readout errors, by the names or labels of instructions.
        known: Shared by circuits of one noise model, so that each matrix is made once.

    Raises:
        ExecutionError: The noise model has errors on all qubits alike, which are not known here.
    """

    def __init__(self, circuit: QuantumCircuit, noise: NoiseModel, known: _Known | None = None) -> None:
        known = {} if known is None else known
        if noise._default_quantum_errors or noise._default_readout_error:
            raise ExecutionError("the noise model has errors on all qubits alike; give an error for every qubit.")
        self.qubits: int = circuit.num_qubits
        self.steps: list[_Step] = []
        self.read: list[int] = [0] * circuit.num_clbits  # qubits, most significant first
        last: dict[int, _Step] = {}  # the step before which nothing else happens to a qubit
        for instruction in circuit.data:
            places = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
            if instruction.operation.name == "measure":
                self.read[-1 - circuit.find_bit(instruction.clbits[0]).index] = places[0]
                continue
            step = _step(instruction.operation, places, noise, known)
            before = last.get(places[0])
            if len(places) == 1 and before is not None and len(before.qubits) == 1:
                if step.angle is None:
                    before.parts = [step.parts[0] @ part for part in before.parts]
                    continue
                if before.angle is None:
                    before.parts, before.angle = [part @ before.parts[0] for part in step.parts], step.angle
                    continue
            self.steps.append(step)
            last.update(dict.fromkeys(places, step))
        confused = noise._local_readout_errors
        self._ends = dict.fromkeys(range(self.qubits), _TRACE) | dict.fromkeys(self.read, _TO_CHANCE)
        for q in self.read:
            if (q,) in confused:
                self._ends[q] = np.asarray(confused[q,].probabilities).T @ _TO_CHANCE

    def probabilities(self, angles: Matrix, *, double: bool) -> Matrix:
        """Chances [N, 2^m] of every reading at angles [N, A]."""
        given = torch.from_numpy(np.ascontiguousarray(angles)).to(torch.float64 if double else torch.float32)
        parts = given.split(rows_together(self.qubits))
        room = torch.empty(2, max(map(len, parts)) * 4**self.qubits, dtype=given.dtype)
        found = torch.empty(len(given), 2 ** len(self.read), dtype=torch.float64)
        with torch.no_grad():
            for part, rows in zip(parts, found.split(rows_together(self.qubits)), strict=True):
                rows[:] = self._chunk(part, room)
        chances: Matrix = found.numpy()
        return chances

    def _chunk(self, angles: Tensor, room: Tensor) -> Tensor:
        """Chances of some rows; states lie in `room` [2, entries].

        Memory taken anew for each gate is given back to the system after it where malloc is told to trim, as Dask tells its workers;
        its page faults then take longer than the gates.
        """
        cosines, sines = angles.cos(), angles.sin()
        ground = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=angles.dtype)
        state = reduce(torch.kron, [ground] * self.qubits).expand(len(angles), -1)
        order = list(range(self.qubits))
        waiting: dict[int, Tensor] = {}
        eye = torch.eye(4, dtype=angles.dtype)
        for step in self.steps:
            matrix = step.matrix(cosines, sines)
            if len(step.qubits) == 1:
                (qubit,) = step.qubits
                waiting[qubit] = matrix @ waiting[qubit] if qubit in waiting else matrix
                continue
            second, first = (waiting.pop(q, eye) for q in step.qubits)
            matrix = matrix @ _kron(second, first)
            places = [order.index(q) for q in step.qubits]
            rest = [k for k in range(self.qubits) if k not in places]
            axes = state.view(-1, *(4,) * self.qubits).permute(0, *(1 + k for k in (*places, *rest)))
            ordered, state = (one[: axes.numel()].view(len(angles), 16, -1) for one in room)
            ordered.view(axes.shape).copy_(axes)
            torch.bmm(matrix.expand(len(angles), 16, 16), ordered, out=state)
            order = [*step.qubits, *(order[k] for k in rest)]
        for qubit in order:
            end = torch.from_numpy(self._ends[qubit]).to(angles.dtype)
            end = end @ waiting[qubit] if qubit in waiting else end
            state = state.reshape(len(angles), 4, -1)
            shape = (len(angles), end.shape[-2], state.shape[-1])
            ended, turned = (one[: math.prod(shape)].view(-1) for one in room)
            torch.bmm(end.expand(*shape[:2], 4), state, out=ended.view(shape))
            state = turned.view(len(angles), shape[2], shape[1]).copy_(ended.view(shape).mT)
        kept = [q for q in order if q in self.read]
        axes = state.view(-1, *(2,) * len(kept)).permute(0, *(1 + kept.index(q) for q in self.read))
        return axes.reshape(len(angles), -1)


def rows_together(qubits: int) -> int:
    """Rows that are simulated at a time."""
    return max(1, _ENTRIES >> 2 * qubits)


def _kron(second: Tensor, first: Tensor) -> Tensor:
    """[…, 16, 16] of two [4, 4] or [N, 4, 4]."""
    both = second[..., :, None, :, None] * first[..., None, :, None, :]
    return both.reshape(*both.shape[:-4], 16, 16)


def _step(gate: Any, places: Sequence[int], noise: NoiseModel, known: _Known) -> _Step:
    """A gate with its error; Qiskit's first qubit is the least significant, so qubits are turned round."""
    free = [
        parameter for parameter in gate.params if isinstance(parameter, ParameterExpression) and parameter.parameters
    ]
    label = gate.label if gate.label in noise._local_quantum_errors else gate.name
    error = (label, tuple(places))
    if error not in known:
        made = noise._local_quantum_errors.get(label, {}).get(error[1])
        known[error] = np.eye(4 ** len(places)) if made is None else PTM(made).data.real
    after, qubits = known[error], tuple(reversed(places))
    if not free:
        plain = (gate.name, tuple(float(parameter) for parameter in gate.params))
        if plain not in known:
            known[plain] = PTM(Operator(gate.to_matrix())).data.real
        return _Step(qubits, [after @ known[plain]])
    (symbol,) = free[0].parameters
    shape = (gate.name, *(str(p).replace(symbol.name, "a") for p in gate.params))
    if (shape, ()) not in known:
        known[shape, ()] = np.stack([_bound(gate, symbol, value) for value in (0.0, math.pi / 2, math.pi)])
    at = after @ known[shape, ()]
    constant = (at[0] + at[2]) / 2
    return _Step(qubits, [constant, (at[0] - at[2]) / 2, at[1] - constant], symbol.index)


def _bound(gate: Any, symbol: Any, value: float) -> Matrix:
    values = [
        float(p.bind({symbol: value})) if isinstance(p, ParameterExpression) and p.parameters else float(p)
        for p in gate.params
    ]
    matrix: Matrix = PTM(Operator(type(gate)(*values).to_matrix())).data.real
    return matrix
