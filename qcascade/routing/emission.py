"""Emit native gates: a circuit placed on a target's qubits, in the target's own gates, with the fewest one-qubit pulses.

What comes in: a flat circuit whose wires are the target's qubits and whose two-qubit gates are on its edges. What goes
out: the same circuit up to global phase in native gates, angles still affine, each variable angle in one gate. One-qubit
runs are merged: numbers into one Euler form, rotations about the same axis into one, Z rotations pushed through diagonal
two-qubit gates. A run of numbers becomes RZ–SX–RZ–SX–RZ at most, or one R and one RZ; every variable rotation that
cannot be merged without leaving the affine adds its own.

Source of the Euler forms: McKay et al. 2017 (arXiv:1612.00858), equations 5 to 9.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcascade.errors import CircuitError, TargetError
from qcascade.routing.flat import Angle, Flat, Op, gate_matrix
from qcascade.routing.problem import Keep
from qcascade.targets import Target

Matrix: TypeAlias = NDArray[np.complex128]
_TINY = 1e-9
_H = gate_matrix("h", ())
_ONE: Matrix = np.eye(2, dtype=np.complex128)
_FROM_Z = {"rz": _ONE, "rx": _H, "ry": gate_matrix("s", ()) @ _H}  # σ = F Z F†
_ENTANGLERS = ("cz", "ecr", "cx", "rzz")  # in order of preference where an edge has several
WRITTEN = frozenset({*_ENTANGLERS, "swap"})  # two-qubit gates that can be written in any of those


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation by a variable angle."""

    axis: str  # rx, ry or rz
    angle: Angle


def one_qubit_basis(target: Target) -> str:
    """The gate that one-qubit pulses are made of beside rz: "sx", "r" or "rx".

    Raises:
        TargetError: The target has no rz, or none of the three.
    """
    for name in ("sx", "r", "rx"):
        if name in target.operations and "rz" in target.operations:
            return name
    raise TargetError(
        f"target {target.name!r} has the gates {', '.join(target.operations)}; rz with sx, r or rx is needed to compile for it."
    )


def entangler(target: Target, first: int, second: int) -> Op | None:
    """The native gate of an edge, in a direction that it has; None where the two are not joined."""
    for name in _ENTANGLERS:
        known = [
            target.places[name, pair] for pair in ((first, second), (second, first)) if (name, pair) in target.places
        ]
        if known:
            best = min(known, key=lambda gate: 0.0 if gate.error is None else gate.error)
            return Op(name, best.qubits)
    return None


def emit(flat: Flat, target: Target, keep: Keep = "state") -> Flat:
    """The circuit in native gates.

    Args:
        flat: Gates on at most two qubits.
        target: Whose gates are used.
        keep: Rotations about Z fall away at the start for "state", at both ends for "outcomes".

    Raises:
        CircuitError: A two-qubit gate is not on an edge.
        TargetError: The target's one-qubit gates are not supported.
    """
    made = _Emission(target, one_qubit_basis(target), "x" in target.operations)
    if keep == "unitary":
        made.touched.update(range(flat.width))
    for op in flat.ops:
        made.add(op)
    made.finish(outcomes=keep == "outcomes")
    return Flat(flat.width, tuple(made.ops))


@dataclass
class _Emission:
    target: Target
    basis: str
    has_x: bool
    ops: list[Op] = field(default_factory=list)
    runs: dict[int, list[Matrix | Rotation]] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)

    def add(self, op: Op) -> None:
        if len(op.qubits) == 1:
            run = self.runs.setdefault(op.qubits[0], [])
            if op.symbolic():
                axis = {"p": "rz", "u1": "rz", "r": "r"}.get(op.name, op.name)
                if axis == "r":  # R(θ, φ) = RZ(φ) RX(θ) RZ(−φ), φ a number
                    turn = op.angles[1].constant
                    run += [gate_matrix("rz", (-turn,)), Rotation("rx", op.angles[0]), gate_matrix("rz", (turn,))]
                else:
                    run.append(Rotation(axis, op.angles[0]))
            else:
                run.append(op.matrix())
            return
        for part in self._on_edge(op):
            if len(part.qubits) == 1:
                self.add(part)
            else:
                for qubit in part.qubits:
                    self._flush(qubit, diagonal=part.name in ("cz", "rzz"))
                self.touched.update(part.qubits)
                self.ops.append(part)

    def finish(self, *, outcomes: bool) -> None:
        for qubit in sorted(self.runs):
            self._flush(qubit, diagonal=False, last=outcomes)

    def _on_edge(self, op: Op) -> Iterable[Op]:
        """A two-qubit gate as native ones and gates on one qubit."""
        first, second = op.qubits
        native = entangler(self.target, first, second)
        if native is None:
            raise CircuitError(
                f"{op.name} is on qubits {first} and {second}, which target {self.target.name!r} does not join."
            )
        if op.name == native.name and (op.qubits == native.qubits or op.name in ("cz", "rzz")):
            return [Op(op.name, native.qubits, op.angles)]
        if op.name == "rzz" and ("rzz", native.qubits) in self.target.places:
            return [Op("rzz", native.qubits, op.angles)]
        if op.name == "cz":
            return _controlled_z(native)
        if op.name == "cx":
            return [Op("h", (second,)), *_controlled_z(native), Op("h", (second,))]
        if op.name == "swap":
            turned = [part for q in op.qubits for part in (Op("h", (q,)),)]
            block = [*_controlled_z(native), *turned]
            return [turned[1], *block, *block, *_controlled_z(native), turned[1]]
        if op.name == "rzz":
            around = [Op("h", (second,)), *_controlled_z(native), Op("h", (second,))]
            return [*around, Op("rz", (second,), op.angles), *around]
        if op.name == "ecr":  # H₁ X₀ ECR H₁ = CZ up to rotations about Z, in this order of time
            back = [Op("sdg", (first,)), Op("sdg", (second,))]
            return [Op("x", (first,)), Op("h", (second,)), *_controlled_z(native), *back, Op("h", (second,))]
        raise CircuitError(
            f"the two-qubit gate {op.name} cannot be written in the gates of target {self.target.name!r}."
        )

    def _flush(self, qubit: int, *, diagonal: bool, last: bool = False) -> None:
        """Write down a wire's run; what is diagonal at its end waits behind a diagonal gate."""
        run = self.runs.pop(qubit, [])
        write = _pulses if self.basis == "sx" else _turns
        gates, rest = write(run, self.basis, self.has_x)
        if qubit not in self.touched and gates and gates[0][0] == "rz":
            gates = gates[1:]  # of |0⟩
        if gates:
            self.touched.add(qubit)
        self.ops.extend(Op(name, (qubit,), angles) for name, angles in gates)
        if last or rest.vanishes() or qubit not in self.touched:
            return
        if diagonal:
            self.runs[qubit] = _diagonal(rest)
        else:
            self.ops.append(Op("rz", (qubit,), (rest.reduced(),)))


def _diagonal(angle: Angle) -> list[Matrix | Rotation]:
    number = gate_matrix("rz", (angle.constant,))
    return [number, Rotation("rz", Angle(0.0, angle.terms))] if angle.terms else [number]


def _controlled_z(native: Op) -> list[Op]:
    """CZ by one native gate."""
    first, second = native.qubits
    if native.name == "cz":
        return [native]
    if native.name == "cx":
        return [Op("h", (second,)), native, Op("h", (second,))]
    turns = [Op("s", (first,)), Op("s", (second,))]  # CZ = exp(iπ/4 ZZ) with RZ(π/2) on both
    if native.name == "rzz":
        return [Op("rzz", native.qubits, (Angle(-math.pi / 2),)), *turns]
    return [Op("h", (second,)), Op("x", (first,)), native, Op("h", (second,)), *turns]  # exp(iπ/4 ZX) = ECR X₀


_Gates: TypeAlias = list[tuple[str, tuple[Angle, ...]]]


def _pulses(run: list[Matrix | Rotation], basis: str, has_x: bool) -> tuple[_Gates, Angle]:
    """A run as rz and sx (and x), and the rotation about Z that is left at its end."""
    gates, waiting = _Gates(), Angle()

    def turn() -> None:
        nonlocal waiting
        if not waiting.vanishes():
            gates.append(("rz", (waiting.reduced(),)))
        waiting = Angle()

    for part in _alternating(run):
        if isinstance(part, Angle):
            waiting = waiting + part
            continue
        theta, phi, lam = euler(part)
        if theta < _TINY:
            waiting = waiting + Angle(phi + lam)
            continue
        if abs(theta - math.pi / 2) < _TINY:
            before, pulses, after = lam - math.pi / 2, ["sx"], phi + math.pi / 2
        elif math.pi - theta < _TINY and has_x:
            before, pulses, after = lam + math.pi, ["x"], phi
        else:
            before, pulses, after = lam, ["sx", "sx"], phi + math.pi
        waiting = waiting + Angle(before)
        turn()
        gates.append((pulses[0], ()))
        if len(pulses) > 1:
            waiting = Angle(theta + math.pi)
            turn()
            gates.append((pulses[1], ()))
        waiting = waiting + Angle(after)
    return gates, waiting


def _alternating(run: list[Matrix | Rotation]) -> list[Matrix | Angle]:
    """The run as numbers and variable rotations about Z in turn, rotations merged where what lies between allows it."""
    parts: list[Matrix | Angle] = [_ONE]

    def number(matrix: Matrix) -> None:
        last = parts[-1]
        assert not isinstance(last, Angle)
        parts[-1] = matrix @ last

    for item in run:
        if not isinstance(item, Rotation):
            number(item)
            continue
        frame = _FROM_Z[item.axis]
        number(frame.conj().T)
        between, angle = parts[-1], item.angle
        assert not isinstance(between, Angle)
        if len(parts) > 1 and (abs(between[0, 1]) < _TINY or abs(between[0, 0]) < _TINY):
            before, earlier = parts[-3], parts[-2]
            assert isinstance(earlier, Angle) and not isinstance(before, Angle)
            sign = 1.0 if abs(between[0, 1]) < _TINY else -1.0  # an X between turns the sense around
            before, angle = between @ before, earlier * sign + angle
            if angle.terms:
                parts[-3:] = [before, angle, _ONE]
            else:
                parts[-3:] = [gate_matrix("rz", (angle.constant,)) @ before]
        else:
            parts.extend([angle, _ONE])
        number(frame)
    return parts


def _turns(run: list[Matrix | Rotation], basis: str, has_x: bool) -> tuple[_Gates, Angle]:
    """A run as rz and r(θ, φ), or rx, and the rotation about Z that is left at its end.

    `waiting` is a rotation about Z that has not been written yet. r lets its number through by a turn of φ; a variable one, or
    any before rx, is written first.
    """
    gates, waiting = _Gates(), Angle()
    for part in _merged(run):
        if isinstance(part, Rotation) and part.axis == "rz":
            waiting = waiting + part.angle
            continue
        if isinstance(part, Rotation):
            angle, axis, before, after = part.angle, 0.0 if part.axis == "rx" else math.pi / 2, 0.0, 0.0
        else:
            theta, phi, lam = euler(part)
            if theta < _TINY:
                waiting = waiting + Angle(phi + lam)
                continue
            angle, axis, before, after = Angle(theta), math.pi / 2 - lam, 0.0, phi + lam
        if basis == "rx":  # R(θ, φ) = RZ(φ) RX(θ) RZ(−φ)
            before, after, axis = before - axis, after + axis, 0.0
        waiting = waiting + Angle(before)
        if waiting.terms or basis == "rx":
            if not waiting.vanishes():
                gates.append(("rz", (waiting.reduced(),)))
            waiting = Angle()
        axis = math.remainder(
            axis - waiting.constant, 2 * math.pi
        )  # RZ after R, so that R(θ, φ) RZ(λ) = RZ(λ) R(θ, φ − λ)
        angles = (angle.reduced(),) if basis == "rx" else (angle.reduced(), Angle(axis))
        previous = gates[-1] if gates else None
        if previous and previous[0] == basis and (basis == "rx" or _same_axis(previous[1][1], axis)):
            total = previous[1][0] + angle
            gates[-1] = (basis, (total.reduced(), *previous[1][1:]))
            if total.vanishes():
                gates.pop()
        else:
            gates.append((basis, angles))
        waiting = waiting + Angle(after)
    return gates, waiting


def _merged(run: list[Matrix | Rotation]) -> list[Matrix | Rotation]:
    """Neighbouring numbers multiplied."""
    parts = list[Matrix | Rotation]()
    for item in run:
        last = parts[-1] if parts else None
        if not isinstance(item, Rotation) and last is not None and not isinstance(last, Rotation):
            parts[-1] = item @ last
        else:
            parts.append(item)
    return parts


def _same_axis(first: Angle, second: float) -> bool:
    return abs(math.remainder(first.constant - second, 2 * math.pi)) < _TINY


def euler(matrix: Matrix) -> tuple[float, float, float]:
    """θ, φ, λ with matrix = RZ(φ) RY(θ) RZ(λ) up to phase, θ in [0, π].

    Example:
        >>> euler(gate_matrix("h", ()))[0]  # doctest: +ELLIPSIS
        1.57079632...
    """
    theta = 2 * math.atan2(abs(matrix[1, 0]), abs(matrix[0, 0]))
    if theta < _TINY:
        return 0.0, cmath.phase(matrix[1, 1]) - cmath.phase(matrix[0, 0]), 0.0
    if math.pi - theta < _TINY:
        return math.pi, cmath.phase(matrix[1, 0]) - cmath.phase(-matrix[0, 1]), 0.0
    origin = cmath.phase(matrix[0, 0])
    return theta, cmath.phase(matrix[1, 0]) - origin, cmath.phase(-matrix[0, 1]) - origin
