"""Flat circuits: what routing hands from step to step, and their way from and to pytket and Qiskit.

A flat circuit is a tuple of gates by Qiskit's names on numbered wires, without measurements and without an implicit
permutation. Its angles are affine in numbered variables (the `a{k}` of an angle circuit), so that they survive both
libraries: pytket holds them as symbols, Qiskit as Parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray
from pytket.circuit import Circuit, Node, OpType
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping
from sympy import Symbol, pi

from qcascade.circuits.angles import angle_name
from qcascade.errors import CircuitError
from qcascade.routing.names import NAMES

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Angle:
    """constant + Σ coefficient·variable, in radians; `terms` are (variable, coefficient), variables ascending."""

    constant: float = 0.0
    terms: tuple[tuple[int, float], ...] = ()

    def __add__(self, other: Angle) -> Angle:
        """The sum; terms that cancel are dropped."""
        if not (self.terms or other.terms):
            return Angle(self.constant + other.constant)
        total = dict(self.terms)
        for variable, coefficient in other.terms:
            total[variable] = total.get(variable, 0.0) + coefficient
        kept = tuple(sorted((v, c) for v, c in total.items() if abs(c) > _ROUNDING))
        return Angle(self.constant + other.constant, kept)

    def __mul__(self, factor: float) -> Angle:
        """Every part times a number."""
        return Angle(self.constant * factor, tuple((v, c * factor) for v, c in self.terms))

    def reduced(self) -> Angle:
        """The constant brought to (−π, π], which changes a rotation's phase at most."""
        constant = math.remainder(self.constant, 2 * math.pi)
        return Angle(math.pi if constant <= -math.pi + _ROUNDING else constant, self.terms)

    def vanishes(self) -> bool:
        """Whether a rotation by it is the identity up to phase."""
        return not self.terms and abs(math.remainder(self.constant, 2 * math.pi)) < 1e-10

    def at(self, values: Sequence[float]) -> float:
        """The number, for values of the variables."""
        return self.constant + sum(coefficient * values[variable] for variable, coefficient in self.terms)


@dataclass(frozen=True, slots=True)
class Op:
    """A gate by Qiskit's name."""

    name: str
    qubits: tuple[int, ...]
    angles: tuple[Angle, ...] = ()

    def symbolic(self) -> bool:
        """Whether an angle has a variable."""
        return any(angle.terms for angle in self.angles)

    def matrix(self) -> NDArray[np.complex128]:
        """Its unitary in Qiskit's order: the first qubit is the least significant bit. Not for symbolic ones."""
        return gate_matrix(self.name, tuple(angle.constant for angle in self.angles))


@dataclass(frozen=True)
class Flat:
    """Gates on wires 0 … width − 1."""

    width: int
    ops: tuple[Op, ...]

    @cached_property
    def two_qubit_gates(self) -> int:
        """Gates on two qubits or more."""
        return sum(len(op.qubits) > 1 for op in self.ops)

    @cached_property
    def two_qubit_depth(self) -> int:
        """Layers of gates on two qubits or more."""
        depth: dict[int, int] = {}
        for op in self.ops:
            if len(op.qubits) > 1:
                layer = 1 + max(depth.get(q, 0) for q in op.qubits)
                depth.update(dict.fromkeys(op.qubits, layer))
        return max(depth.values(), default=0)

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Wires that carry a gate."""
        return tuple(sorted({q for op in self.ops for q in op.qubits}))

    @cached_property
    def symbolic(self) -> bool:
        """Whether any angle has a variable."""
        return any(op.symbolic() for op in self.ops)

    def moved(self, place: Mapping[int, int], width: int) -> Flat:
        """The same gates with every wire renamed."""
        return Flat(width, tuple(Op(op.name, tuple(place[q] for q in op.qubits), op.angles) for op in self.ops))

    def bound(self, values: Sequence[float]) -> Flat:
        """The same gates with numbers for the variables."""
        return Flat(
            self.width,
            tuple(Op(op.name, op.qubits, tuple(Angle(a.at(values)) for a in op.angles)) for op in self.ops),
        )

    def separated(self, variables: int) -> tuple[Flat, NDArray[np.float64], NDArray[np.float64]]:
        """The same gates with a variable of its own for each that has any, and the map to those from the old ones.

        Returns:
            The circuit, and coefficients [A, variables] and constants [A] of its A variables.
        """
        ops, rows, constants = list[Op](), list[NDArray[np.float64]](), list[float]()
        for op in self.ops:
            if not op.symbolic():
                ops.append(op)
                continue
            if any(angle.terms for angle in op.angles[1:]):
                raise CircuitError(f"{op.name} has a variable beside its rotation angle.")
            row = np.zeros(variables)
            for variable, coefficient in op.angles[0].terms:
                row[variable] = coefficient
            ops.append(Op(op.name, op.qubits, (Angle(0.0, ((len(rows), 1.0),)), *op.angles[1:])))
            rows.append(row)
            constants.append(op.angles[0].constant)
        return Flat(self.width, tuple(ops)), np.array(rows).reshape(len(rows), variables), np.array(constants)


@lru_cache(maxsize=4096)
def gate_matrix(name: str, angles: tuple[float, ...]) -> NDArray[np.complex128]:
    """The unitary of a Qiskit gate; do not write into it."""
    matrix: NDArray[np.complex128] = _standard()[name](*angles).to_matrix()
    return matrix


@lru_cache(maxsize=1)
def _standard() -> dict[str, Callable[..., Any]]:
    return {name: type(gate) for name, gate in get_standard_gate_name_mapping().items()}


# Angles are half-turns in pytket and radians here, in the same order.
_NAMES = {**NAMES, OpType.V: "sx", OpType.Vdg: "sxdg", OpType.CCX: "ccx", OpType.CSWAP: "cswap"}
_TYPES = {name: kind for kind, name in _NAMES.items() if kind not in (OpType.V, OpType.Vdg, OpType.ZZMax)}
_TYPES |= {"p": OpType.U1, "u3": OpType.U3, "cu1": OpType.CU1}


def from_pytket(circuit: Circuit) -> Flat | None:
    """The flat circuit of a pytket circuit; wire k is `circuit.qubits[k]`. Symbols are named ``a0``, ``a1``, ….

    Returns:
        None where it has an angle that is not affine.

    Raises:
        CircuitError: A gate has no counterpart; decompose it first.
    """
    place = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    ops = list[Op]()
    for command in circuit.get_commands():
        kind, qubits = command.op.type, tuple(place[q] for q in command.qubits)
        if kind in (OpType.Barrier, OpType.noop, OpType.Phase):
            continue
        parameters = list(command.op.params)
        if kind == OpType.TK1:  # Rz(a) Rx(b) Rz(c), the last one first
            gates = [("rz", parameters[2]), ("rx", parameters[1]), ("rz", parameters[0])]
        elif kind == OpType.U2:
            gates = [("rz", parameters[1]), ("ry", 0.5), ("rz", parameters[0])]
        elif kind == OpType.ZZMax:
            gates = [("rzz", 0.5)]
        elif kind in _NAMES:
            gates = []
            angles = tuple(_from_half_turns(p) for p in parameters)
            if None in angles:
                return None
            ops.append(Op(_NAMES[kind], qubits, tuple(a for a in angles if a is not None)))
        else:
            raise CircuitError(
                f"gate {command.op} cannot be routed. Unitary gates of one to three qubits are accepted; decompose it first."
            )
        for name, parameter in gates:
            angle = _from_half_turns(parameter)
            if angle is None:
                return None
            ops.append(Op(name, qubits, (angle,)))
    return Flat(len(place), tuple(ops))


def to_pytket(flat: Flat, wires: Sequence[int] | None = None, variables: Sequence[Any] | None = None) -> Circuit:
    """As a pytket circuit on default qubits, or, where `wires` are given, on these alone as `Node(wire)`.

    `variables` are expressions of the variables in radians; by default the symbols ``a0``, ``a1``, ….
    """
    circuit = Circuit(flat.width) if wires is None else Circuit()
    for wire in wires or ():
        circuit.add_qubit(Node(wire))
    for op in flat.ops:
        parameters = [_to_half_turns(angle, variables) for angle in op.angles]
        qubits: list[Any] = list(op.qubits) if wires is None else [Node(q) for q in op.qubits]
        circuit.add_gate(_TYPES[op.name], parameters, qubits)
    return circuit


def from_qiskit(circuit: QuantumCircuit) -> Flat | None:
    """The flat circuit of a Qiskit circuit, its measurements and barriers left out; None where an angle is not affine."""
    place = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    ops = list[Op]()
    for instruction in circuit.data:
        name = instruction.operation.name
        if name in ("measure", "barrier", "delay", "id"):
            continue
        angles = tuple(_from_parameter(p) for p in instruction.operation.params)
        if None in angles:
            return None
        ops.append(Op(name, tuple(place[q] for q in instruction.qubits), tuple(a for a in angles if a is not None)))
    return Flat(len(place), tuple(ops))


def to_qiskit(flat: Flat) -> QuantumCircuit:
    """As a Qiskit circuit with one Parameter ``a{k}`` for every variable."""
    circuit, standard = QuantumCircuit(flat.width), _standard()
    parameters = _Parameters()
    for op in flat.ops:
        circuit.append(standard[op.name](*(parameters.expression(angle) for angle in op.angles)), op.qubits)
    return circuit


@dataclass(frozen=True)
class _Parameters:
    made: dict[int, Parameter] = field(default_factory=dict)

    def expression(self, angle: Angle) -> float | ParameterExpression:
        total: Any = angle.constant
        for number, (variable, coefficient) in enumerate(angle.terms):
            parameter = self.made.setdefault(variable, Parameter(angle_name(variable)))
            scaled = parameter if coefficient == 1.0 else coefficient * parameter
            total = scaled if number == 0 and total == 0.0 else total + scaled
        return total


def _from_parameter(parameter: Any) -> Angle | None:
    if not isinstance(parameter, ParameterExpression) or not parameter.parameters:
        return Angle(float(parameter))
    terms, zeros = [], {}
    for variable in parameter.parameters:
        slope = parameter.gradient(variable)
        if isinstance(slope, ParameterExpression) and slope.parameters:
            return None
        terms.append((_number(variable.name), float(slope)))
        zeros[variable] = 0.0
    return Angle(float(parameter.bind(zeros)), tuple(sorted(terms)))


@lru_cache(maxsize=4096)  # circuits come back and forth with the same few expressions
def _from_half_turns(parameter: Any) -> Angle | None:
    if isinstance(parameter, (int, float)):
        return Angle(float(parameter) * math.pi)
    expression = sympy.sympify(parameter) * pi
    free = sorted(expression.free_symbols, key=str)
    if not free:
        return Angle(float(expression))
    try:
        polynomial = sympy.Poly(expression, *free)
    except sympy.PolynomialError:
        return None
    if polynomial.total_degree() > 1:
        return None
    terms = sorted((_number(str(s)), float(polynomial.coeff_monomial(s))) for s in free)
    return Angle(float(polynomial.coeff_monomial(1)), tuple(terms))


def _to_half_turns(angle: Angle, variables: Sequence[Any] | None) -> Any:
    if not angle.terms:
        return angle.constant / math.pi
    total: Any = sympy.Float(angle.constant) if angle.constant else 0
    for variable, coefficient in angle.terms:
        expression = Symbol(angle_name(variable)) if variables is None else variables[variable]
        total = total + (expression if coefficient == 1.0 else coefficient * expression)
    return total / pi


def _number(name: str) -> int:
    return int(name.removeprefix(angle_name(0)[:-1]))
