"""Circuits as SVG drawings: one row a qubit, gates in the earliest column that is free, so many columns and no more.

What comes in: a pytket circuit, which of its symbols are data and which weights, how it starts and what is read. What goes
out: an `svg` element in the report's classes: gates that data turn, gates that weights turn, and fixed ones differ in
colour, and every gate names its parameters when pointed at. What is left out is counted in words, in the drawing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pytket.circuit import Circuit, Command

from qcascade.report.html.page import Markup, joined, tag

MAX_COLUMNS = 36
MAX_WIRES = 32
_ROW, _BOX, _GAP = 34, 26, 8
_DOTS = {"CX": "⊕", "CZ": "●", "CU1": "●", "CCX": "⊕", "SWAP": "×"}  # the mark on the last qubit
_QUIET = frozenset({"Barrier", "noop"})


@dataclass(frozen=True, slots=True)
class _Gate:
    name: str
    title: str
    rows: tuple[int, ...]
    column: int
    kind: str  # "data", "weight" or "fixed"


def circuit_svg(
    circuit: Circuit,
    *,
    title: str,
    data: Collection[str] = (),
    weights: Collection[str] = (),
    loads: int = 0,
    read: Collection[int] = (),
    names: Collection[str] = (),
) -> Markup:
    """The drawing.

    Args:
        circuit: Any circuit; its symbols may be bound.
        title: What it is, for those who do not see it.
        data: Symbols that hold data.
        weights: Symbols that hold weights.
        loads: Amplitudes loaded before the first gate; 0 for a start from |0…0⟩.
        read: Places of the qubits that are measured at the end.
        names: Of the qubits; numbered where there are none.

    Example:
        >>> from sympy import Symbol
        >>> drawing = circuit_svg(Circuit(2).Ry(Symbol("x"), 0).CX(0, 1), title="two gates", data=["x"])
        >>> drawing.count('class="box data"'), drawing.count("⊕")
        (1, 0)
    """
    gates, columns, wires = _placed(circuit, frozenset(data), frozenset(weights))
    labels = list(names) or [f"q{n}" for n in range(wires)]
    shown = [g for g in gates if g.column < MAX_COLUMNS and min(g.rows) < MAX_WIRES]
    rows = min(wires, MAX_WIRES)
    widths = [0] * min(columns, MAX_COLUMNS)
    for gate in shown:
        widths[gate.column] = max(widths[gate.column], _width(gate))
    left = 14 + 7.5 * max((len(name) for name in labels[:rows]), default=2)
    starts: list[float] = []
    x = left + (44 if loads else 8)
    for width in widths:
        starts.append(x)
        x += width + _GAP
    end = x + (34 if read else 6)
    notes = []
    if columns > MAX_COLUMNS:
        hidden = sum(g.column >= MAX_COLUMNS for g in gates)
        notes.append(f"… {columns - MAX_COLUMNS} more layers ({hidden} gates)")
    if wires > MAX_WIRES:
        notes.append(f"… {wires - MAX_WIRES} more qubits")
    height = rows * _ROW + 8 + 20 * len(notes)
    parts: list[Markup] = [tag("title", title)]
    for row in range(rows):
        y = _y(row)
        parts.append(tag("text", labels[row], x=left - 6, y=y + 4, text_anchor="end", class_="muted"))
        parts.append(tag("path", d=f"M{_n(left)} {y}H{_n(end)}", class_="wire"))
    if loads:
        parts += _loading(left + 6, rows, loads)
    for gate in shown:
        parts += _drawn(gate, starts[gate.column], widths[gate.column], rows)
    parts += [_meter(x, _y(row)) for row in read if row < rows]
    parts += [tag("text", note, x=_n(left), y=rows * _ROW + 20 * (n + 1)) for n, note in enumerate(notes)]
    total = max(end + 8, 300 if notes else 0)
    return tag(
        "svg", *parts, viewBox=f"0 0 {_n(total)} {height}", width=_n(total), height=height, class_="circuit", role="img"
    )


def _placed(circuit: Circuit, data: frozenset[str], weights: frozenset[str]) -> tuple[list[_Gate], int, int]:
    """Gates in their columns, how many columns there are, and how many wires."""
    place = {unit: number for number, unit in enumerate(circuit.qubits)}
    free = [0] * len(place)
    gates = []
    for command in circuit.get_commands():
        name = command.op.type.name
        rows = tuple(place[q] for q in command.qubits)
        if name in _QUIET or not rows:
            continue
        span = range(min(rows), max(rows) + 1)
        column = max(free[row] for row in span)
        for row in span:
            free[row] = column + 1
        symbols = {str(s) for s in command.op.free_symbols()}
        kind = "data" if symbols & data else "weight" if symbols & weights else "fixed"
        gates.append(_Gate(name, _told(command), rows, column, kind))
    return gates, max(free, default=0), len(place)


def _told(command: Command) -> str:
    """A gate with its parameters, in words."""
    parameters = ", ".join(
        str(p)[:60] if isinstance(p, str) or not _number(p) else f"{float(p):.5g}" for p in command.op.params
    )
    units = ", ".join(str(q) for q in command.qubits)
    turns = f"({parameters}) half-turns" if parameters else ""
    return f"{command.op.type.name}{turns} on {units}"


def _number(value: object) -> bool:
    return not getattr(value, "free_symbols", None)


def _width(gate: _Gate) -> int:
    return _BOX if gate.name in _DOTS else max(_BOX, 9 * len(gate.name) + 8)


def _y(row: int) -> int:
    return row * _ROW + _ROW // 2 + 4


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _drawn(gate: _Gate, x: float, width: float, rows: int) -> Iterator[Markup]:
    middle, inside = x + width / 2, [row for row in gate.rows if row < rows]
    parts: list[Markup] = [tag("title", gate.title)]
    if len(gate.rows) > 1:
        parts.append(tag("path", d=f"M{_n(middle)} {_y(min(inside))}V{_y(max(inside))}", class_="join"))
    kind = gate.kind
    for row in inside:
        last, y = row == gate.rows[-1], _y(row)
        mark = _DOTS.get(gate.name)
        if mark == "×" or (mark is None and len(gate.rows) == 1) or mark is None:
            if mark == "×":
                d = f"M{_n(middle - 5)} {y - 5}l10 10m0 -10l-10 10"
                parts.append(tag("path", d=d, class_="join"))
                continue
            parts.append(tag("rect", x=_n(x), y=y - _BOX / 2, width=_n(width), height=_BOX, rx=4, class_=f"box {kind}"))
            parts.append(
                tag(
                    "text",
                    gate.name.upper() if len(gate.name) < 4 else gate.name,
                    x=_n(middle),
                    y=y + 4,
                    text_anchor="middle",
                    class_="on-gate",
                )
            )
        elif last and mark == "⊕":
            parts.append(tag("circle", cx=_n(middle), cy=y, r=8, class_="open"))
            parts.append(tag("path", d=f"M{_n(middle - 8)} {y}h16M{_n(middle)} {y - 8}v16", class_="join"))
        else:
            parts.append(tag("circle", cx=_n(middle), cy=y, r=5, class_=f"dot {kind}"))
    yield tag("g", *parts)


def _loading(x: float, rows: int, loads: int) -> Iterator[Markup]:
    height = rows * _ROW - 8
    yield tag("rect", x=_n(x), y=8, width=28, height=height, rx=5, class_="box loading")
    text = f"load {loads:,}" if rows > 2 else "load"
    middle = 8 + height / 2
    yield tag(
        "text",
        text,
        transform=f"translate({_n(x + 18)} {_n(middle)}) rotate(-90)",
        text_anchor="middle",
        class_="on-gate",
    )


def _meter(x: float, y: int) -> Markup:
    box = tag("rect", x=_n(x), y=y - 12, width=26, height=24, rx=4, class_="meter")
    return joined(
        [box, tag("path", d=f"M{_n(x + 5)} {y + 5}a8 8 0 0 1 16 0M{_n(x + 13)} {y + 5}l6 -10", class_="meter-line")]
    )
