"""What commutes with Z: phases gathered from CX pairs, and gates left out that no reading depends on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qcascade.routing.flat import Angle, Flat, Op


def without_effect(flat: Flat, read: Sequence[int]) -> Flat:
    """The circuit without gates that no reading depends on: outside the readings' past, or commuting with them.

    Args:
        flat: Any gates.
        read: Wires that are read in the computational basis at the end.

    Example:
        >>> len(without_effect(Flat(2, (Op("h", (0,)), Op("cx", (0, 1)), Op("cz", (0, 1)))), (1,)).ops)
        2
    """
    cone, changed, kept = set(read), set[int](), list[Op]()  # `changed`: wires on which a kept gate comes later
    for op in reversed(flat.ops):
        if all(q not in cone or (q not in changed and _diagonal_on(op, q)) for q in op.qubits):
            continue
        kept.append(op)
        cone.update(op.qubits)
        changed.update(op.qubits)
    return Flat(flat.width, tuple(reversed(kept)))


def with_phases(flat: Flat) -> Flat:
    """CX, rotations about Z on its target, and the same CX again, written as one RZZ.

    Example:
        >>> turn = Op("rz", (1,), (Angle(0.3),))
        >>> [op.name for op in with_phases(Flat(2, (Op("cx", (0, 1)), turn, Op("cx", (0, 1))))).ops]
        ['rzz']
    """
    ops: list[Op | None] = list(flat.ops)
    opened: dict[int, tuple[int, int, list[int]]] = {}  # target: (place of the CX, control, places of the rotations)
    for number, op in enumerate(flat.ops):
        angle = _rotation(op)
        if angle is not None and op.qubits[0] in opened:
            opened[op.qubits[0]][2].append(number)
            continue
        if op.name == "cx":
            control, target = op.qubits
            begun = opened.get(target)
            if begun and begun[1] == control and len(begun[2]) > 0:
                total = Angle()
                for place in begun[2]:
                    total = total + (_rotation(flat.ops[place]) or Angle())
                    ops[place] = None
                ops[begun[0]], ops[number] = None, Op("rzz", op.qubits, (total,))
                del opened[target]
                opened = {t: entry for t, entry in opened.items() if entry[1] != target}
                continue
        for qubit in op.qubits:
            opened.pop(qubit, None)
            if not _diagonal_on(op, qubit):
                opened = {t: entry for t, entry in opened.items() if entry[1] != qubit}
        if op.name == "cx":
            opened[op.qubits[1]] = (number, op.qubits[0], [])
    return Flat(flat.width, tuple(op for op in ops if op is not None))


def _rotation(op: Op) -> Angle | None:
    if op.name in ("rz", "p", "u1"):
        return op.angles[0]
    fixed = {"z": math.pi, "s": math.pi / 2, "sdg": -math.pi / 2, "t": math.pi / 4, "tdg": -math.pi / 4}
    return Angle(fixed[op.name]) if op.name in fixed else None


def _diagonal_on(op: Op, qubit: int) -> bool:
    """Whether the gate commutes with Z on the qubit."""
    if op.name in ("cz", "rzz", "cp", "cu1", "crz", "ccz") or _rotation(op) is not None:
        return True
    if op.name in ("ccx", "cswap"):
        return qubit in op.qubits[: 2 if op.name == "ccx" else 1]
    return op.name in ("cx", "cy", "ch", "crx", "cry") and op.qubits[0] == qubit
