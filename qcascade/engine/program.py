"""Lower a circuit template to a program: layers of one-qubit gates, diagonals and permutations with affine angles.

What comes in: a `CircuitTemplate` whose circuit is any unitary pytket circuit. What goes out: a frozen `Program` of
three kinds of steps, which is all that executing needs. Gates outside the native set are decomposed by pytket first.
Angles become one affine map ``angles = coefficients @ symbols + constants`` in radians; an angle that is not affine in
its symbols is refused.

Basis states are numbered as in pytket: qubit 0 is the most significant bit. Implicit qubit permutations are part of the
program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import sympy
from numpy.typing import NDArray
from pytket.circuit import Circuit, Command, OpType, Qubit
from pytket.passes import AutoRebase, DecomposeBoxes

from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import CircuitError

_ROTATIONS = {OpType.Rx: "X", OpType.Ry: "Y", OpType.Rz: "Z"}
_DIAGONAL_1Q = {OpType.Z: 1.0, OpType.S: 0.5, OpType.Sdg: -0.5, OpType.T: 0.25, OpType.Tdg: -0.25}
_NATIVE = {*_ROTATIONS, *_DIAGONAL_1Q} | {
    OpType.H, OpType.X, OpType.Y, OpType.U1, OpType.CX, OpType.CZ, OpType.SWAP, OpType.CU1, OpType.CRz, OpType.ZZPhase,
}  # fmt: skip
_REBASE = {OpType.CX, OpType.Rz, OpType.Ry, OpType.Rx}


@dataclass(frozen=True, slots=True)
class Rotation:
    """exp(−i angle σ/2) on one qubit, the angle being entry `angle` of the program's angles; axis "X", "Y" or "Z"."""

    axis: str
    angle: int


@dataclass(frozen=True, slots=True)
class LocalLayer:
    """Rotations on each qubit in order of application; an empty tuple leaves the qubit alone."""

    rotations: tuple[tuple[Rotation, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class DiagonalLayer:
    """exp(i Σ_k angle_k · pattern_k(basis state)): phases [K, 2^q] of real patterns, angles by index."""

    angles: tuple[int, ...]
    patterns: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PermutationLayer:
    """new[i] = old[source[i]] over the 2^q basis states."""

    source: NDArray[np.int64]


Step: TypeAlias = LocalLayer | DiagonalLayer | PermutationLayer


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A lowered circuit.

    `coefficients` [A, D + W] and `constants` [A] map (data, weights) to the A angles in radians.
    """

    qubits: int
    data: tuple[str, ...]
    weights: tuple[str, ...]
    steps: tuple[Step, ...]
    coefficients: NDArray[np.float64]
    constants: NDArray[np.float64]

    @property
    def uses_data(self) -> bool:
        """Whether any angle depends on the data."""
        return bool(self.coefficients[:, : len(self.data)].any())


class _Builder:
    """Collects gates into steps, merging neighbours of one kind."""

    def __init__(self, qubits: int, symbols: tuple[str, ...]) -> None:
        self.qubits = qubits
        self.symbols = {name: column for column, name in enumerate(symbols)}
        self.rows: list[tuple[NDArray[np.float64], float]] = []
        self.steps: list[Step] = []
        self.local: list[list[Rotation]] | None = None
        self.diagonal: tuple[list[int], list[NDArray[np.float64]]] | None = None
        self.source: NDArray[np.int64] | None = None
        index = np.arange(2**qubits)
        self.bits = [(index >> (qubits - 1 - q)) & 1 for q in range(qubits)]

    def angle(self, half_turns: sympy.Expr | float) -> int:
        """File an angle given in half-turns; returns its index."""
        row = np.zeros(len(self.symbols))
        expression = sympy.sympify(half_turns) * sympy.pi
        free = sorted(expression.free_symbols, key=str)
        rest = expression
        if free:
            try:
                polynomial = sympy.Poly(expression, *free)
            except sympy.PolynomialError:
                polynomial = None
            if polynomial is None or polynomial.total_degree() > 1:
                raise CircuitError(
                    f"the angle {half_turns} is not affine in its symbols; write gate angles as sums of multiples of symbols."
                )
            for symbol in free:
                row[self.symbols[str(symbol)]] = float(polynomial.coeff_monomial(symbol))
            rest = polynomial.coeff_monomial(1)
        self.rows.append((row, float(rest)))
        return len(self.rows) - 1

    def flush(self) -> None:
        if self.local is not None:
            self.steps.append(LocalLayer(tuple(tuple(r) for r in self.local)))
        if self.diagonal is not None:
            self.steps.append(DiagonalLayer(tuple(self.diagonal[0]), np.stack(self.diagonal[1])))
        if self.source is not None and not np.array_equal(self.source, np.arange(2**self.qubits)):
            self.steps.append(PermutationLayer(self.source))
        self.local = self.diagonal = self.source = None

    def rotate(self, qubit: int, axis: str, half_turns: sympy.Expr | float) -> None:
        if self.local is None:
            self.flush()
            self.local = [[] for _ in range(self.qubits)]
        self.local[qubit].append(Rotation(axis, self.angle(half_turns)))

    def phase(self, pattern: NDArray[np.floating], half_turns: sympy.Expr | float) -> None:
        if self.diagonal is None:
            self.flush()
            self.diagonal = ([], [])
        self.diagonal[0].append(self.angle(half_turns))
        self.diagonal[1].append(pattern.astype(np.float64))

    def permute(self, source: NDArray[np.int64]) -> None:
        if self.source is None:
            self.flush()
            self.source = np.arange(2**self.qubits)
        self.source = self.source[source]

    def add(self, command: Command, index: dict[Qubit, int]) -> None:
        kind, qubits = command.op.type, [index[q] for q in command.qubits]
        if kind in _ROTATIONS:
            self.rotate(qubits[0], _ROTATIONS[kind], command.op.params[0])
        elif kind == OpType.H:  # = i · RX(π) RY(π/2)
            self.rotate(qubits[0], "Y", 0.5)
            self.rotate(qubits[0], "X", 1.0)
            self.phase(np.ones(2**self.qubits), 0.5)
        elif kind in _DIAGONAL_1Q or kind == OpType.U1:
            angle = _DIAGONAL_1Q[kind] if kind in _DIAGONAL_1Q else command.op.params[0]
            self.phase(self.bits[qubits[0]].astype(float), angle)
        elif kind in (OpType.X, OpType.Y):
            self.rotate(qubits[0], kind.name, 1.0)
            self.phase(np.ones(2**self.qubits), 0.5)
        elif kind == OpType.CX:
            control, target = qubits
            flip = 1 << (self.qubits - 1 - target)
            self.permute(np.arange(2**self.qubits) ^ (self.bits[control] * flip))
        elif kind == OpType.SWAP:
            self.permute(self._exchanged([(qubits[0], qubits[1]), (qubits[1], qubits[0])]))
        elif kind in (OpType.CZ, OpType.CU1):
            angle = 1.0 if kind == OpType.CZ else command.op.params[0]
            self.phase((self.bits[qubits[0]] * self.bits[qubits[1]]).astype(float), angle)
        elif kind == OpType.CRz:
            self.phase(self.bits[qubits[0]] * (self.bits[qubits[1]] - 0.5), command.op.params[0])
        elif kind == OpType.ZZPhase:
            parity = self.bits[qubits[0]] ^ self.bits[qubits[1]]
            self.phase(parity - 0.5, command.op.params[0])
        else:
            raise CircuitError(
                f"gate {command} is not unitary or not known; remove measurements, resets and conditions."
            )

    def _exchanged(self, moves: list[tuple[int, int]]) -> NDArray[np.int64]:
        """Source such that the content of qubit `a` ends on qubit `b` for every (a, b)."""
        source = np.arange(2**self.qubits)
        for origin, destination in moves:
            clear = 1 << (self.qubits - 1 - origin)
            source = (source & ~clear) | (self.bits[destination] * clear)
        return source


def lower(template: CircuitTemplate) -> Program:
    """The program of a template.

    Raises:
        CircuitError: The circuit holds a non-unitary operation or an angle that is not affine in its symbols.

    Example:
        >>> from pytket.circuit import Circuit
        >>> lower(CircuitTemplate(Circuit(2).H(0).CX(0, 1), data=(), weights=())).qubits
        2
    """
    circuit = template.circuit.copy()
    DecomposeBoxes().apply(circuit)
    if any(command.op.type not in _NATIVE for command in circuit.get_commands()):
        circuit = _rebased(circuit)
    builder = _Builder(circuit.n_qubits, template.data + template.weights)
    index = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    for command in circuit.get_commands():
        if command.op.type != OpType.Barrier:
            builder.add(command, index)
    moves = [(index[a], index[b]) for a, b in circuit.implicit_qubit_permutation().items() if a != b]
    if moves:
        builder.permute(builder._exchanged(moves))
    if abs(float(circuit.phase) % 2.0) > 1e-12:
        builder.phase(np.ones(2**circuit.n_qubits), float(circuit.phase))
    builder.flush()
    width = len(template.data) + len(template.weights)
    coefficients = np.array([row for row, _ in builder.rows]).reshape(len(builder.rows), width)
    constants = np.array([constant for _, constant in builder.rows])
    if not math.isfinite(float(constants.sum())):
        raise CircuitError("an angle of the circuit is not finite; bind symbols to finite numbers.")
    return Program(circuit.n_qubits, template.data, template.weights, tuple(builder.steps), coefficients, constants)


def _rebased(circuit: Circuit) -> Circuit:
    """The circuit in gates the lowering knows; symbolic global phase is kept by pytket."""
    try:
        AutoRebase(_REBASE).apply(circuit)
    except RuntimeError as error:
        raise CircuitError(f"the circuit has operations that are not unitary gates: {error}") from error
    return circuit
