"""Compiled circuits as they are submitted: folded, turned into a measurement setting, bound to numbers.

A `NativeCircuit` is a list of gates whose parameters are numbers or ± an angle, read off the symbolic pytket circuit
once. Binding is then arithmetic: for pytket a circuit is built for every row of angles, for Qiskit one parametrised
circuit takes them all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import sympy
from numpy.typing import NDArray
from pytket.circuit import Bit, Circuit, OpType, Qubit

from qcascade.circuits.angles import AngleCircuit, angle_name
from qcascade.errors import ExecutionError

if TYPE_CHECKING:
    from qiskit.circuit import QuantumCircuit

_QISKIT = {
    OpType.X: "x", OpType.Y: "y", OpType.Z: "z", OpType.H: "h", OpType.S: "s", OpType.Sdg: "sdg", OpType.T: "t",
    OpType.Tdg: "tdg", OpType.SX: "sx", OpType.SXdg: "sxdg", OpType.Rx: "rx", OpType.Ry: "ry", OpType.Rz: "rz",
    OpType.PhasedX: "r", OpType.CX: "cx", OpType.CZ: "cz", OpType.ECR: "ecr", OpType.SWAP: "swap", OpType.ZZPhase: "rzz",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate; its parameters in half-turns. With `angle`, the first one is `sign`·a_angle/π on top of its number."""

    kind: OpType
    qubits: tuple[int, ...]  # places in the circuit's qubits
    parameters: tuple[float, ...] = ()
    angle: int | None = None
    sign: float = 1.0


@dataclass(frozen=True, eq=False)
class NativeCircuit:
    """Gates on `qubits`; in the end those at the places `reads` are read, the first into the most significant bit."""

    qubits: tuple[Qubit, ...]
    gates: tuple[Gate, ...]
    reads: tuple[int, ...]
    angles: int

    @cached_property
    def digest(self) -> bytes:
        """Of the content: equal circuits have equal digests, in every process."""
        gates = [(g.kind.name, g.qubits, g.parameters, g.angle, g.sign) for g in self.gates]
        content = repr((list(map(str, self.qubits)), gates, tuple(map(int, self.reads)), self.angles))
        return hashlib.blake2b(content.encode(), digest_size=16).digest()

    def gates_on(self, qubits: int) -> int:
        """Gates on so many qubits, changes of frame left out."""
        from qcascade.routing.names import DIAGONAL, NAMES  # qiskit, slow to load

        return sum(len(gate.qubits) == qubits and NAMES.get(gate.kind) not in DIAGONAL for gate in self.gates)

    def bound(self, angles: NDArray[np.float64]) -> Circuit:
        """A pytket circuit with numbers, measured into the bits c[0], c[1], …."""
        circuit = Circuit(0, len(self.reads))
        for qubit in self.qubits:
            circuit.add_qubit(qubit)
        half_turns = (angles / math.pi).tolist()
        for gate in self.gates:
            parameters = list(gate.parameters)
            if gate.angle is not None:
                parameters[0] += gate.sign * half_turns[gate.angle]
            circuit.add_gate(gate.kind, parameters, [self.qubits[q] for q in gate.qubits])
        for bit, read in enumerate(self.reads):
            circuit.Measure(self.qubits[read], Bit(bit))
        return circuit

    def symbolic(self) -> Circuit:
        """A pytket circuit on q[0], q[1], … with the symbols of `angle_name`, not measured."""
        circuit = Circuit(len(self.qubits))
        for gate in self.gates:
            parameters: list[sympy.Expr | float] = list(gate.parameters)
            if gate.angle is not None:
                parameters[0] = gate.parameters[0] + gate.sign * sympy.Symbol(angle_name(gate.angle)) / sympy.pi
            circuit.add_gate(gate.kind, parameters, list(gate.qubits))
        return circuit

    def parametrised(self, places: Sequence[int], width: int) -> QuantumCircuit:
        """A Qiskit circuit of `width` qubits, this one's at `places`; its parameters are the angles in order."""
        from qiskit.circuit import ParameterVector, QuantumCircuit  # slow to import

        circuit = QuantumCircuit(width, len(self.reads))
        symbols = ParameterVector("a", self.angles)
        for gate in self.gates:
            kind = OpType.ZZPhase if gate.kind == OpType.ZZMax else gate.kind
            if kind not in _QISKIT:
                raise ExecutionError(
                    f"the gate {kind.name} has no counterpart in Qiskit; compile to other native gates."
                )
            numbers = [0.5] if gate.kind == OpType.ZZMax else gate.parameters
            values = [math.pi * number for number in numbers]
            if gate.angle is not None:
                symbol = symbols[gate.angle] if gate.sign == 1 else gate.sign * symbols[gate.angle]
                values = [symbol + values[0] if values[0] else symbol, *values[1:]]
            getattr(circuit, _QISKIT[kind])(*values, *(places[q] for q in gate.qubits))
        for bit, read in enumerate(self.reads):
            circuit.measure(places[read], len(self.reads) - 1 - bit)
        return circuit


def native(circuit: AngleCircuit, reads: Sequence[int], turns: Sequence[tuple[Gate, ...]], fold: int) -> NativeCircuit:
    """What is submitted for one setting.

    Args:
        circuit: As compiled.
        reads: Places in its qubits that are read.
        turns: Gates before each read, as `turn` gives.
        fold: How often every two-qubit gate is run, odd.
    """
    places = {qubit: place for place, qubit in enumerate(circuit.circuit.qubits)}
    number = {angle_name(k): k for k in range(len(circuit.angles.constants))}
    gates: list[Gate] = []
    for command in circuit.circuit.get_commands():
        if command.op.type in (OpType.Barrier, OpType.noop):
            continue
        qubits = tuple(places[q] for q in command.qubits)
        gate = _gate(command.op.type, command.op.params, qubits, number)
        gates.append(gate)
        if len(qubits) > 1:
            gates.extend((_inverse(gate), gate) * (fold // 2))
    gates.extend(gate for turned in turns for gate in turned)
    return NativeCircuit(tuple(circuit.circuit.qubits), tuple(gates), tuple(reads), len(number))


def turn(axis: str, qubit: int, known: frozenset[OpType]) -> tuple[Gate, ...]:
    """Native gates after which Z on a qubit is what `axis` was before.

    Raises:
        ExecutionError: None of the usual gates is known.

    Example:
        >>> [gate.kind.name for gate in turn("X", 0, frozenset({OpType.Rz, OpType.SX}))]
        ['Rz', 'SX']
    """
    if axis == "Z":
        return ()
    first = (Gate(OpType.Rz, (qubit,), (0.5,)),) if axis == "X" else ()
    if OpType.SX in known and (axis == "Y" or OpType.Rz in known):
        return (*first, Gate(OpType.SX, (qubit,)))
    if OpType.PhasedX in known:
        return (Gate(OpType.PhasedX, (qubit,), (0.5, 0.0 if axis == "Y" else -0.5)),)
    if axis == "X" and OpType.Ry in known:
        return (Gate(OpType.Ry, (qubit,), (-0.5,)),)
    if OpType.Rx in known and (axis == "Y" or OpType.Rz in known):
        return (*first, Gate(OpType.Rx, (qubit,), (0.5,)))
    raise ExecutionError(f"the device has no gates to measure {axis}: SX, PhasedX, or Rx with Ry or Rz, is needed.")


def flip(qubit: int, known: frozenset[OpType]) -> tuple[Gate, ...]:
    """Native gates that take |0⟩ to |1⟩."""
    for kind, times, parameters in (
        (OpType.X, 1, ()), (OpType.SX, 2, ()), (OpType.PhasedX, 1, (1.0, 0.0)), (OpType.Rx, 1, (1.0,)), (OpType.Ry, 1, (1.0,)),
    ):  # fmt: skip
        if kind in known:
            return (Gate(kind, (qubit,), parameters),) * times
    raise ExecutionError("the device has no gate to flip a qubit: X, SX, PhasedX, Rx or Ry is needed.")


def _gate(
    kind: OpType, parameters: Sequence[sympy.Expr | float], qubits: tuple[int, ...], number: dict[str, int]
) -> Gate:
    expressions = [sympy.sympify(p) for p in parameters]
    free = sorted((s for e in expressions for s in e.free_symbols), key=str)
    if not free:
        return Gate(kind, qubits, tuple(float(e) for e in expressions))
    (symbol,) = free
    sign = float(expressions[0].coeff(symbol) * sympy.pi)
    numbers = (float(expressions[0].subs(symbol, 0)), *(float(e) for e in expressions[1:]))
    return Gate(kind, qubits, numbers, number[str(symbol)], sign)


def _inverse(gate: Gate) -> Gate:
    """The inverse of a two-qubit gate, in the same native gate."""
    if gate.kind in (OpType.CX, OpType.CZ, OpType.ECR, OpType.SWAP):
        return gate
    if gate.kind == OpType.ZZMax:
        return Gate(OpType.ZZPhase, gate.qubits, (-0.5,))
    if gate.kind in (OpType.ZZPhase, OpType.XXPhase, OpType.YYPhase):
        return Gate(gate.kind, gate.qubits, (-gate.parameters[0],), gate.angle, -gate.sign)
    raise ExecutionError(
        f"the inverse of {gate.kind.name} is not native, so it cannot be folded; leave out ZeroNoiseExtrapolation."
    )
