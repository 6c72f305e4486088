"""Circuits of a bundle as text, straight from their JSON: no circuit is built and no expression is evaluated.

What comes in: a document in pytket's JSON form. What goes out: one line a qubit, folded to a width, and how many gates
there are. Refused: documents of another form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qcascade.errors import BundleError

MAX_QUBITS = 64  # drawn
MAX_DRAWN = 200  # gates; what follows is counted
MAX_TEXT = 12  # characters of a parameter
_MARKS = {"CX": ("●", "⊕"), "CZ": ("●", "●"), "SWAP": ("×", "×"), "CCX": ("●", "●", "⊕")}
_QUIET = frozenset({"Barrier", "noop"})


@dataclass(frozen=True, slots=True)
class Gate:
    """One operation: its name with parameters as written, and its qubits' numbers in the circuit."""

    name: str
    params: tuple[str, ...]
    qubits: tuple[int, ...]

    def label(self, place: int) -> str:
        """What stands on the wire of its qubit number `place`."""
        if self.name in _MARKS and len(self.qubits) == len(_MARKS[self.name]):
            return _MARKS[self.name][place]
        if self.name.startswith("C") and self.name[1:2].isupper() and len(self.qubits) == 2 and place == 0:
            return "●"
        name = self.name[1:] if self.name.startswith("C") and len(self.qubits) == 2 else self.name
        inside = ",".join(p if len(p) <= MAX_TEXT else p[: MAX_TEXT - 1] + "…" for p in self.params[:3])
        mark = f"{name}({inside})" if inside else name
        return mark if len(self.qubits) < 2 or place == len(self.qubits) - 1 else f"{name}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A circuit's wires and gates."""

    wires: tuple[str, ...]
    gates: tuple[Gate, ...]

    @property
    def two_qubit_gates(self) -> int:
        """How many gates are on two qubits."""
        return sum(len(gate.qubits) == 2 for gate in self.gates)


def read_circuit(document: Any, name: str) -> Drawn:
    """The wires and gates of a document.

    Args:
        document: As `pytket.circuit.Circuit.to_dict` gives it.
        name: What it is called in messages.

    Raises:
        BundleError: It has another form.

    Example:
        >>> from pytket.circuit import Circuit
        >>> read_circuit(Circuit(2).H(0).CX(0, 1).to_dict(), "bell").two_qubit_gates
        1
    """
    try:
        units = [_unit(unit) for unit in document["qubits"]]
        number = {unit: place for place, unit in enumerate(units)}
        gates = []
        for command in document["commands"]:
            kind, params = command["op"]["type"], command["op"].get("params", [])
            if not isinstance(kind, str) or not all(isinstance(param, str) for param in params):
                raise BundleError(f"{name}: an operation's type and parameters must be text.")
            places = tuple(number[unit] for unit in map(_unit, command["args"]) if unit in number)
            if kind not in _QUIET and places:
                gates.append(Gate(_plain(kind)[:20], tuple(map(_plain, params)), places))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise BundleError(f"{name} is no circuit in pytket's JSON form: {error!r}.") from error
    return Drawn(tuple(_plain(unit) for unit in units), tuple(gates))


def draw(circuit: Drawn, width: int = 100) -> str:
    """The circuit as text of at most `width` columns.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from sympy import Symbol
        >>> print(draw(read_circuit(Circuit(2).H(0).CX(0, 1).Rz(Symbol("a"), 1).to_dict(), "x")))
        q0: ─H─●───────
        q1: ───⊕─Rz(a)─
    """
    shown = circuit.gates[:MAX_DRAWN]
    rows = min(len(circuit.wires), MAX_QUBITS)
    columns: list[dict[int, str]] = []
    free = [0] * rows
    for gate in shown:
        inside = [qubit for qubit in gate.qubits if qubit < rows]
        if not inside:
            continue
        span = range(min(inside), max(inside) + 1)
        column = max(free[row] for row in span)
        while len(columns) <= column:
            columns.append({})
        columns[column].update(dict.fromkeys(span, "│") if len(span) > 1 else {})
        for place, qubit in enumerate(gate.qubits):
            if qubit < rows:
                columns[column][qubit] = gate.label(place)
        for row in span:
            free[row] = column + 1
    names = [name if len(name) <= 20 else name[:19] + "…" for name in circuit.wires[:rows]]
    margin = max((len(name) for name in names), default=0)
    blocks: list[list[str]] = []
    for marks in columns:
        wide = max((len(text) for text in marks.values()), default=1)
        if not blocks or len(blocks[-1][0]) + wide + 1 > width:
            blocks.append([f"{name:>{margin}}: ─" for name in names])
        for row in range(rows):
            blocks[-1][row] += f"{marks.get(row, ''):─<{wide}}─"
    text = "\n\n".join("\n".join(block) for block in blocks or [[f"{name:>{margin}}: ─" for name in names]])
    notes = []
    if len(circuit.gates) > len(shown):
        notes.append(f"… {len(circuit.gates) - len(shown)} more gates")
    if len(circuit.wires) > rows:
        notes.append(f"… {len(circuit.wires) - rows} more qubits")
    return "\n".join([text, *notes])


def _unit(unit: Any) -> str:
    register, index = unit
    if not isinstance(register, str) or not all(type(one) is int for one in index):
        raise ValueError("a qubit has a register and numbers")
    return register + "_".join(map(str, index))


def _plain(text: str) -> str:
    """Text without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
