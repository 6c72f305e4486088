"""Lower a circuit template to a program: layers of one-qubit gates, diagonal terms and linear maps, with affine angles.

What comes in: a `CircuitTemplate` whose circuit is any unitary pytket circuit. What goes out: a frozen `Program` of
three kinds of layers, which is all that executing needs. Gates outside the native set are decomposed by pytket first.
Every gate goes to the earliest layer of its kind that the gates before it allow, so that neighbours fuse; rotations about
one axis that follow one another become one.

Angles become one affine map ``angles = coefficients @ symbols + constants`` in radians; an angle that is not affine in
its symbols is kept as an expression and evaluated by torch.

Basis states are numbered as in pytket: qubit 0 is the most significant bit. Implicit qubit permutations and the global
phase are part of the program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import sympy
from numpy.typing import NDArray
from pytket.circuit import Circuit, Command, OpType, Qubit
from pytket.passes import AutoRebase

from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import CircuitError

_HALF = 0.5  # half-turns: π/2
# One-qubit gates as rotations in order of application, angles in half-turns, and a global phase in half-turns.
_FIXED: dict[OpType, tuple[tuple[tuple[str, float], ...], float]] = {
    OpType.H: ((("Y", 0.5), ("X", 1.0)), 0.5),
    OpType.X: ((("X", 1.0),), 0.5),
    OpType.Y: ((("Y", 1.0),), 0.5),
    OpType.Z: ((("Z", 1.0),), 0.5),
    OpType.S: ((("Z", 0.5),), 0.25),
    OpType.Sdg: ((("Z", -0.5),), -0.25),
    OpType.T: ((("Z", 0.25),), 0.125),
    OpType.Tdg: ((("Z", -0.25),), -0.125),
    OpType.V: ((("X", 0.5),), 0.0),
    OpType.Vdg: ((("X", -0.5),), 0.0),
    OpType.SX: ((("X", 0.5),), 0.25),
    OpType.SXdg: ((("X", -0.5),), -0.25),
}
_ROTATIONS = {OpType.Rx: "X", OpType.Ry: "Y", OpType.Rz: "Z"}
_NATIVE = {*_FIXED, *_ROTATIONS} | {
    OpType.U1, OpType.TK1, OpType.PhasedX, OpType.CX, OpType.CZ, OpType.SWAP, OpType.CU1, OpType.CRz,
    OpType.ZZPhase, OpType.XXPhase, OpType.YYPhase, OpType.ZZMax, OpType.TK2, OpType.noop, OpType.Phase,
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


@dataclass(frozen=True, slots=True)
class PhaseTerm:
    """exp(i angle) on every basis state whose bits have odd parity under every mask: one mask, or two for an AND."""

    angle: int
    masks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DiagonalLayer:
    """A product of phase terms."""

    terms: tuple[PhaseTerm, ...]


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A run of CNOTs and SWAPs: |i⟩ → |⊕ of columns[t] over the set bits t of i⟩, bit 0 the least significant."""

    columns: tuple[int, ...]

    def image(self) -> NDArray[np.int64]:
        """Where every basis state goes: [2^q]."""
        image = np.zeros(1, dtype=np.int64)
        for column in self.columns:
            image = np.concatenate((image, image ^ column))
        return image


Layer: TypeAlias = LocalLayer | DiagonalLayer | LinearLayer


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A lowered circuit.

    `coefficients` [A, D + W] and `constants` [A] map (data, weights) to the A angles in radians. `curved` holds what is
    not affine: (angle, expression of the symbols in radians), added to the affine part. `phase` is the global phase's
    angle, if there is one.
    """

    qubits: int
    data: tuple[str, ...]
    weights: tuple[str, ...]
    layers: tuple[Layer, ...]
    coefficients: NDArray[np.float64]
    constants: NDArray[np.float64]
    phase: int | None = None
    curved: tuple[tuple[int, sympy.Expr], ...] = ()
    text: str = field(init=False, repr=False)  # the program as exported graphs carry it; of angles alone where `curved`

    def __post_init__(self) -> None:
        from qcascade.engine.text import program_text

        object.__setattr__(self, "text", program_text(self))

    @property
    def uses_data(self) -> bool:
        """Whether any angle depends on the data."""
        return bool(self.coefficients[:, : len(self.data)].any())

    def on_angles(self) -> Program:
        """The same program with its angles themselves as data and no weights."""
        count = len(self.constants)
        names = tuple(f"angle_{k}" for k in range(count))
        return Program(self.qubits, names, (), self.layers, np.eye(count), np.zeros(count), self.phase)


class _Builder:
    """Places gates into layers, each into the earliest that fits."""

    def __init__(self, qubits: int, symbols: tuple[str, ...]) -> None:
        self.qubits = qubits
        self.symbols = {name: column for column, name in enumerate(symbols)}
        self.angles: list[sympy.Expr] = []  # in half-turns
        self.layers: list[list[Any]] = []  # rotations by qubit, phase terms, or columns, by kind
        self.kinds: list[type[Layer]] = []
        self.touched = [-1] * qubits  # the last layer that acts on each qubit
        self.global_phase: sympy.Expr = sympy.Integer(0)

    def bit(self, qubit: int) -> int:
        return 1 << (self.qubits - 1 - qubit)

    def angle(self, half_turns: sympy.Expr | float) -> int:
        """File an angle given in half-turns; returns its index."""
        self.angles.append(sympy.sympify(half_turns))
        return len(self.angles) - 1

    def affine(self, half_turns: sympy.Expr) -> tuple[NDArray[np.float64], float, sympy.Expr | None]:
        """(coefficients of the symbols, constant, what is not affine) of an angle, in radians."""
        row, rest, curved = np.zeros(len(self.symbols)), half_turns * sympy.pi, None
        free = sorted(rest.free_symbols, key=str)
        if free:
            try:
                polynomial = sympy.Poly(rest, *free)
            except sympy.PolynomialError:
                polynomial = None
            if polynomial is None or polynomial.total_degree() > 1:
                rest, curved = 0, rest
            else:
                for symbol in free:
                    row[self.symbols[str(symbol)]] = float(polynomial.coeff_monomial(symbol))
                rest = polynomial.coeff_monomial(1)
        constant = complex(rest)
        if not np.isfinite(constant.real) or constant.imag:
            raise CircuitError(f"the angle {half_turns} is not a finite real number; bind symbols to finite numbers.")
        return row, constant.real, curved

    def place(self, kind: type[Layer], qubits: list[int]) -> int:
        """The earliest layer of a kind that may act on the qubits now; made at the end where there is none."""
        last = max((self.touched[q] for q in qubits), default=-1)
        start = last if last >= 0 and self.kinds[last] is kind else last + 1
        for layer in range(start, len(self.layers)):
            if self.kinds[layer] is kind:
                break
        else:
            layer = len(self.layers)
            self.kinds.append(kind)
            self.layers.append(
                [[] for _ in range(self.qubits)]
                if kind is LocalLayer
                else [1 << t for t in range(self.qubits)]
                if kind is LinearLayer
                else []
            )
        for qubit in qubits:
            self.touched[qubit] = layer
        return layer

    def rotate(self, qubit: int, axis: str, half_turns: sympy.Expr | float) -> None:
        rotations = self.layers[self.place(LocalLayer, [qubit])][qubit]
        if rotations and rotations[-1].axis == axis:
            self.angles[rotations[-1].angle] += half_turns
        else:
            rotations.append(Rotation(axis, self.angle(half_turns)))

    def phase(self, qubits: list[int], masks: tuple[int, ...], half_turns: sympy.Expr | float) -> None:
        layer = self.layers[self.place(DiagonalLayer, qubits)]
        layer.append(PhaseTerm(self.angle(half_turns), masks))

    def cnot(self, control: int, target: int) -> None:
        columns = self.layers[self.place(LinearLayer, [control, target])]
        on, flip = self.bit(control), self.bit(target)
        columns[:] = [column ^ flip if column & on else column for column in columns]

    def swap(self, first: int, second: int) -> None:
        for control, target in ((first, second), (second, first), (first, second)):
            self.cnot(control, target)

    def parity(self, qubits: list[int], half_turns: sympy.Expr | float) -> None:
        """exp(−i angle/2 Z…Z)."""
        self.phase(qubits, (sum(self.bit(q) for q in qubits),), half_turns)
        self.global_phase -= half_turns / 2

    def pauli_pair(self, axis: str, qubits: list[int], half_turns: sympy.Expr | float) -> None:
        """exp(−i angle/2 σσ)."""
        around = {"X": ("Y", -_HALF), "Y": ("X", _HALF)}.get(axis)
        for qubit in qubits:
            if around:
                self.rotate(qubit, *around)
        self.parity(qubits, half_turns)
        for qubit in qubits:
            if around:
                self.rotate(qubit, around[0], -around[1])

    def add(self, command: Command, index: dict[Qubit, int]) -> None:
        kind, qubits, params = command.op.type, [index[q] for q in command.qubits], command.op.params
        if kind in _ROTATIONS:
            self.rotate(qubits[0], _ROTATIONS[kind], params[0])
        elif kind in _FIXED:
            rotations, phase = _FIXED[kind]
            for axis, angle in rotations:
                self.rotate(qubits[0], axis, angle)
            self.global_phase += phase
        elif kind == OpType.U1:
            self.rotate(qubits[0], "Z", params[0])
            self.global_phase += params[0] / 2
        elif kind in (OpType.TK1, OpType.PhasedX):
            first, middle, last = params if kind == OpType.TK1 else (params[1], params[0], -params[1])
            for axis, angle in (("Z", last), ("X", middle), ("Z", first)):
                self.rotate(qubits[0], axis, angle)
        elif kind == OpType.CX:
            self.cnot(*qubits)
        elif kind == OpType.SWAP:
            self.swap(*qubits)
        elif kind in (OpType.CZ, OpType.CU1):
            masks = tuple(self.bit(q) for q in qubits)
            self.phase(qubits, masks, 1.0 if kind == OpType.CZ else params[0])
        elif kind == OpType.CRz:  # RZ(angle) on the target where the control is 1
            self.phase(qubits, tuple(self.bit(q) for q in qubits), params[0])
            self.rotate(qubits[0], "Z", -params[0] / 2)
            self.global_phase -= params[0] / 4
        elif kind in (OpType.ZZPhase, OpType.ZZMax):
            self.parity(qubits, params[0] if params else _HALF)
        elif kind in (OpType.XXPhase, OpType.YYPhase):
            self.pauli_pair("X" if kind == OpType.XXPhase else "Y", qubits, params[0])
        elif kind == OpType.TK2:
            for axis, angle in zip("XYZ", params, strict=True):
                self.pauli_pair(axis, qubits, angle)
        elif kind == OpType.Phase:
            self.global_phase += params[0]
        elif kind != OpType.noop:
            raise CircuitError(
                f"gate {command} is not unitary or not known; remove measurements, resets and conditions."
            )

    def finished(self) -> tuple[Layer, ...]:
        layers: list[Layer] = []
        for kind, content in zip(self.kinds, self.layers, strict=True):
            if kind is LocalLayer:
                layers.append(LocalLayer(tuple(tuple(r) for r in content)))
            elif kind is DiagonalLayer:
                layers.append(DiagonalLayer(tuple(content)))
            elif content != [1 << t for t in range(self.qubits)]:
                layers.append(LinearLayer(tuple(content)))
        return tuple(layers)


def lower(template: CircuitTemplate) -> Program:
    """The program of a template.

    Raises:
        CircuitError: The circuit holds an operation that is not unitary, or an angle that is not a real number.

    Example:
        >>> from pytket.circuit import Circuit
        >>> lower(CircuitTemplate(Circuit(2).H(0).CX(0, 1), data=(), weights=())).qubits
        2
    """
    circuit = template.gates_alone()
    if any(command.op.type not in _NATIVE for command in circuit.get_commands()):
        circuit = _rebased(circuit)
    builder = _Builder(circuit.n_qubits, template.data + template.weights)
    index = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    for command in circuit.get_commands():
        builder.add(command, index)
    for first, second in _exchanges({index[a]: index[b] for a, b in circuit.implicit_qubit_permutation().items()}):
        builder.swap(first, second)
    phase = sympy.sympify(builder.global_phase + circuit.phase)
    whole = None if phase.is_number and abs(float(phase) % 2.0) < 1e-12 else builder.angle(phase)
    angles = [builder.affine(angle) for angle in builder.angles]
    width = len(template.data) + len(template.weights)
    return Program(
        circuit.n_qubits,
        template.data,
        template.weights,
        builder.finished(),
        np.array([row for row, _, _ in angles]).reshape(len(angles), width),
        np.array([constant for _, constant, _ in angles]),
        whole,
        tuple((place, curved) for place, (_, _, curved) in enumerate(angles) if curved is not None),
    )


def _rebased(circuit: Circuit) -> Circuit:
    """The circuit in gates the lowering knows; symbolic global phase is kept by pytket."""
    try:
        AutoRebase(_REBASE).apply(circuit)
    except RuntimeError as error:
        raise CircuitError(f"the circuit has operations that are not unitary gates: {error}") from error
    return circuit


def _exchanges(moves: dict[int, int]) -> list[tuple[int, int]]:
    """Swaps after which the content of every qubit a lies on qubit moves[a]."""
    swaps, holds = [], {qubit: qubit for qubit in moves}  # position -> which content it holds
    for content, destination in moves.items():
        position = next(p for p, c in holds.items() if c == content)
        if position != destination:
            swaps.append((position, destination))
            holds[position], holds[destination] = holds[destination], holds[position]
    return swaps
