"""Devices of any size to plan with: a line and a square grid of qubits with native cz, sx, x and rz.

By name (`line-12`, `grid-3x4`) they have no calibration; `line` and `grid` take the figures that a plan assumes.
"""

from __future__ import annotations

import re
from typing import TypedDict, Unpack

from qcascade.errors import TargetError
from qcascade.targets.target import Price, QubitProperties, Target, places_on

MOST_QUBITS = 4096  # a misprint should not fill the memory
PATTERNS = {
    "line-N": "N qubits in a line, for planning; as in line-12",
    "grid-RxC": "R rows and C columns of qubits, for planning; as in grid-3x4",
}
_LINE = re.compile(r"line-(\d+)", re.IGNORECASE)
_GRID = re.compile(r"grid-(\d+)x(\d+)", re.IGNORECASE)


def names() -> tuple[str, ...]:
    """The patterns of names that `load` reads."""
    return tuple(PATTERNS)


def load(name: str) -> Target | None:
    """The device of a name, None where it is not of these.

    Raises:
        TargetError: Its numbers are missing, 0 or too large.

    Example:
        >>> load("grid-3x4").qubits
        12
    """
    if found := _LINE.fullmatch(name):
        return line(int(found[1]))
    if found := _GRID.fullmatch(name):
        return grid(int(found[1]), int(found[2]))
    if name.lower().startswith(("line-", "grid-")):
        raise TargetError(f"target {name!r}: put numbers in, as in line-12 or grid-3x4.")
    return None


class Figures(TypedDict, total=False):
    """What a plan assumes, the same everywhere; what is left out, or None, is unknown."""

    error: float | None  # average gate infidelity of cz
    one_qubit_error: float | None  # of sx and x; rz is a change of frame
    readout_error: float | None  # mean probability of a wrong reading
    seconds: float | None  # of a cz
    one_qubit_seconds: float | None  # of an sx or x
    readout_seconds: float | None
    t1: float | None  # seconds
    t2: float | None
    shot_overhead: float | None  # seconds of a shot beside gates and readout
    job_overhead: float | None  # seconds of a submission beside its shots
    parallel_two_qubit_gates: int | None
    price: Price | None


def line(qubits: int, *, name: str | None = None, **figures: Unpack[Figures]) -> Target:
    """Qubits in a row, each joined to the next.

    Args:
        qubits: How many, at least 1.
        name: line-N by default.
        **figures: See `Figures`.

    Raises:
        TargetError: A number is out of range.

    Example:
        >>> line(4, error=1e-3).edges
        ((0, 1), (1, 2), (2, 3))
    """
    return _device(
        name or f"line-{qubits}",
        f"{qubits} qubits in a line",
        qubits,
        [(q, q + 1) for q in range(min(qubits, MOST_QUBITS) - 1)],
        **figures,
    )


def grid(rows: int, columns: int, *, name: str | None = None, **figures: Unpack[Figures]) -> Target:
    """Qubits in rows and columns, each joined to its neighbours; qubit r·columns + c is in row r.

    Args:
        rows: How many, at least 1.
        columns: How many, at least 1.
        name: grid-RxC by default.
        **figures: See `Figures`.

    Raises:
        TargetError: A number is out of range.

    Example:
        >>> grid(2, 2).edges
        ((0, 1), (0, 2), (1, 3), (2, 3))
    """
    qubits = rows * columns if min(rows, columns) > 0 else 0
    placed = range(min(qubits, MOST_QUBITS))
    across = [(q, q + 1) for q in placed if (q + 1) % columns]
    down = [(q, q + columns) for q in placed if q + columns < qubits]
    return _device(
        name or f"grid-{rows}x{columns}",
        f"{qubits} qubits in {rows} rows and {columns} columns",
        qubits,
        across + down,
        **figures,
    )


def _device(name: str, shape: str, qubits: int, edges: list[tuple[int, int]], **figures: Unpack[Figures]) -> Target:
    if not 1 <= qubits <= MOST_QUBITS:
        raise TargetError(f"target {name!r} would have {qubits} qubits; 1 to {MOST_QUBITS} are accepted.")
    if unknown := sorted(set(figures) - set(Figures.__annotations__)):
        raise TargetError(f"target {name!r}: no figure is called {unknown[0]}; {', '.join(Figures.__annotations__)}.")
    assumed = any(figure is not None for figure in figures.values())
    places = [(q,) for q in range(qubits)]
    error, one_qubit_error = figures.get("error"), figures.get("one_qubit_error")
    each = QubitProperties(
        figures.get("readout_error"), figures.get("readout_seconds"), figures.get("t1"), figures.get("t2")
    )
    return Target(
        name,
        f"{shape}, for planning: {'assumed figures' if assumed else 'no calibration'}",
        qubits,
        (
            *places_on("cz", [*edges, *((b, a) for a, b in edges)], error, figures.get("seconds")),
            *places_on("sx", places, one_qubit_error, figures.get("one_qubit_seconds")),
            *places_on("x", places, one_qubit_error, figures.get("one_qubit_seconds")),
            *places_on("rz", places, None if error is None and one_qubit_error is None else 0.0, 0.0),
        ),
        (each,) * qubits if each != QubitProperties() else (),
        figures.get("shot_overhead"),
        figures.get("job_overhead"),
        figures.get("parallel_two_qubit_gates"),
        figures.get("price"),
        source="assumed" if assumed else "",
    )
