"""Noisy circuits exactly, in the Pauli basis: what a density matrix simulator computes, in real numbers.

A state is its 4^n Pauli expectation values, a gate with its noise the real matrix that maps them (Pauli transfer matrix;
Greenbaum 2015, arXiv:1509.02921). A rotation's is A + B cos a + C sin a. One-qubit gates are gathered until a two-qubit
gate of their qubit takes them along, so that a circuit costs a 16 × 16 product on at most 4^(n−2) columns a two-qubit gate
(`pauli_program` lays it out, `pauli_state` runs it).

What comes in: a scheduled circuit with Aer's noise model (`executors.noise.prepare`). What goes out: the probabilities of
every reading, readout errors included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit.circuit import ParameterExpression, QuantumCircuit
from qiskit.quantum_info import PTM, Operator
from qiskit_aer.noise import NoiseModel

from qcascade.errors import ExecutionError
from qcascade.executors.pauli_program import TRACE, Matrix, Step, laid_out
from qcascade.executors.pauli_state import chances

_Known = dict[Any, Matrix]  # transfer matrices of gates and errors: making one takes milliseconds
_TO_CHANCE = np.array([[0.5, 0.0, 0.0, 0.5], [0.5, 0.0, 0.0, -0.5]])  # (I, X, Y, Z) to the chances of 0 and 1


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
        steps: list[Step] = []
        self.read: list[int] = [0] * circuit.num_clbits  # qubits, most significant first
        last: dict[int, Step] = {}  # the step before which nothing else happens to a qubit
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
            steps.append(step)
            last.update(dict.fromkeys(places, step))
        confused = noise._local_readout_errors
        ends = dict.fromkeys(range(circuit.num_qubits), TRACE) | dict.fromkeys(self.read, _TO_CHANCE)
        for q in self.read:
            if (q,) in confused:
                ends[q] = np.asarray(confused[q,].probabilities).T @ _TO_CHANCE
        self.program = laid_out(steps, ends)

    def probabilities(self, angles: Matrix, *, double: bool) -> Matrix:
        """Chances [N, 2^m] of every reading at angles [N, A]; a row's are the same whatever the other rows are."""
        found = chances(self.program, angles, double=double)
        places = [1 + self.program.read.index(qubit) for qubit in self.read]
        ordered = found.reshape(len(found), *(2,) * len(places)).transpose(0, *places)
        return ordered.reshape(found.shape).astype(np.float64)


def _step(gate: Any, places: Sequence[int], noise: NoiseModel, known: _Known) -> Step:
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
        return Step(qubits, [after @ known[plain]])
    (symbol,) = free[0].parameters
    shape = (gate.name, *(str(p).replace(symbol.name, "a") for p in gate.params))
    if (shape, ()) not in known:
        known[shape, ()] = np.stack([_bound(gate, symbol, value) for value in (0.0, math.pi / 2, math.pi)])
    at = after @ known[shape, ()]
    constant = (at[0] + at[2]) / 2
    return Step(qubits, [constant, (at[0] - at[2]) / 2, at[1] - constant], symbol.index)


def _bound(gate: Any, symbol: Any, value: float) -> Matrix:
    values = [
        float(p.bind({symbol: value})) if isinstance(p, ParameterExpression) and p.parameters else float(p)
        for p in gate.params
    ]
    matrix: Matrix = PTM(Operator(type(gate)(*values).to_matrix())).data.real
    return matrix
