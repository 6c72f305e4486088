"""A circuit of transfer matrices laid out for the compiled simulation (`pauli_state`): tables of numbers, made once.

A state is 4^D Pauli expectation values, qubits being digits of base 4 of their numbers: values whose digit of a qubit differs by 1 are
`place` numbers apart. A qubit joins as the highest digit when its first two-qubit gate comes and is read after its last one, which leaves
two values of four, or one: a state is whole only in between. One-qubit gates wait until their qubit joins, meets another or is read.

The two lowest digits, of places 1 and 4, are inside the vectors that processors work on, and two-qubit gates act between vectors: a
qubit that is inside is first exchanged with the one outside that is needed latest (Belady 1966).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
ONE, TWO, JOIN, READ = range(4)  # kinds of instructions
EXCHANGE_LOW, EXCHANGE_HIGH = 1, 2  # bits: the qubit comes from place 1, the other one from place 4
TRACE = np.array([[1.0, 0.0, 0.0, 0.0]])  # the end of a qubit that is not read
_FEWEST = 4  # digits: two inside vectors, two between which a gate acts
_NOTHING = 1e-15  # what rounding leaves of zeros


@dataclass(slots=True)
class Step:
    """A transfer matrix on one qubit or two (second, first); with `angle`, `parts` are A, B and C of A + B cos a + C sin a."""

    qubits: tuple[int, ...]
    parts: list[Matrix]
    angle: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What `pauli_state` runs.

    Attributes:
        instructions: [S, 9] in order: kind; qubit; the other qubit; number of the angle, or −1; where the entries of its matrix begin
            and end; the qubit's place; of TWO the other one's place, of READ the values that are left; what to exchange first.
        positions: Row and column [E, 2] of the entries of all matrices that are not zero.
        entries: What they are [E, 3]: a constant, what the cosine of the angle is multiplied by, and the sine.
        qubits: D; there are four at least, nothing happens to those that were added.
        values: Of a state where it is largest, at most 4^D.
        read: The qubits whose readings are told apart, the most significant first.
    """

    instructions: NDArray[np.int64]
    positions: NDArray[np.int64]
    entries: Matrix
    qubits: int
    values: int
    read: tuple[int, ...]


def laid_out(steps: Sequence[Step], ends: Mapping[int, Matrix]) -> Program:
    """The program of a circuit.

    Args:
        steps: Gates with their noise.
        ends: For each of the qubits 0 … n − 1, the matrix [2, 4] from (I, X, Y, Z) to the chances of 0 and 1, or [1, 4] to the trace.

    Example:
        >>> flip = Step((0,), [np.diag([1.0, 1.0, -1.0, -1.0])])
        >>> program = laid_out([flip], {0: np.array([[0.5, 0.0, 0.0, 0.5], [0.5, 0.0, 0.0, -0.5]])})
        >>> program.instructions[:, 0].tolist()[:3] == [ONE, JOIN, READ], program.read
        (True, (0,))
    """
    layout = _Layout(steps, {**ends, **dict.fromkeys(range(len(ends), _FEWEST), TRACE)})
    for step in steps:
        if len(step.qubits) == 2:
            layout.two(step)
    layout.finish()
    return Program(
        np.array(layout.instructions, np.int64),
        np.concatenate(layout.positions),
        np.ascontiguousarray(np.concatenate(layout.entries)),
        len(layout.ends),
        layout.largest,
        tuple(qubit for qubit in reversed(layout.order) if layout.widths[qubit] == 2),
    )


class _Layout:
    """Instructions so far, and where they leave qubits."""

    def __init__(self, steps: Sequence[Step], ends: Mapping[int, Matrix]) -> None:
        self.ends = ends
        self.instructions: list[tuple[int, ...]] = []
        self.order: list[int] = []  # qubits that joined, the lowest first
        self.widths: dict[int, int] = {}  # their values: 4, or what reading left
        self.largest = 1
        self.coming: dict[int, deque[tuple[int, Step]]] = {qubit: deque() for qubit in ends}
        self.positions: list[NDArray[np.int64]] = []
        self.entries: list[Matrix] = []
        self.known: dict[tuple[bytes, tuple[int, ...]], tuple[int, int]] = {}  # where a matrix's entries begin and end
        for number, step in enumerate(steps):
            for qubit in step.qubits:
                self.coming[qubit].append((number, step))

    def two(self, step: Step) -> None:
        """The next two-qubit gate."""
        for qubit in (*step.qubits, *self._missing()):
            if qubit not in self.widths and (qubit in step.qubits or len(self.whole()) < _FEWEST):
                self._join(qubit)
        (qubit, other), parts, exchanges = step.qubits, step.parts, 0
        if self.order[1] == qubit or self.order[0] == other:
            qubit, other = other, qubit
            parts = [part.reshape(4, 4, 4, 4).transpose(1, 0, 3, 2).reshape(16, 16) for part in parts]
        for inside, bit, one in ((0, EXCHANGE_LOW, qubit), (1, EXCHANGE_HIGH, other)):
            self._ones(one)
            self.coming[one].popleft()
            if self.order[inside] == one:
                latest = max((q for q in self.whole() if q not in (*self.order[:2], qubit, other)), key=self._next)
                outside = self.order.index(latest)
                self.order[inside], self.order[outside] = latest, one
                exchanges |= bit
        self._add(TWO, qubit, other, parts, step.angle, self._place(qubit), self._place(other), exchanges)
        for one in (qubit, other):
            if self._next(one) == math.inf:
                if len(self.whole()) == _FEWEST and self._missing():
                    self._join(self._missing()[0])
                if len(self.whole()) > _FEWEST:
                    self._read(one)

    def finish(self) -> None:
        """There are no more two-qubit gates."""
        for qubit in self._missing():
            self._join(qubit)
            self._read(qubit)
        for qubit in reversed(self.whole()):
            self._read(qubit)

    def whole(self) -> list[int]:
        """Qubits that joined and are not read, by place."""
        return [qubit for qubit in self.order if self.widths[qubit] == 4]

    def _missing(self) -> list[int]:
        """Those that did not join, the one that is needed first before the others."""
        return sorted((qubit for qubit in self.ends if qubit not in self.widths), key=self._next)

    def _next(self, qubit: int) -> float:
        """The number of its next two-qubit gate."""
        return next((number for number, step in self.coming[qubit] if len(step.qubits) == 2), math.inf)

    def _place(self, qubit: int) -> int:
        return math.prod(self.widths[one] for one in self.order[: self.order.index(qubit)])

    def _ones(self, qubit: int) -> None:
        """Its gates up to the next two-qubit gate."""
        while self.coming[qubit] and len(self.coming[qubit][0][1].qubits) == 1:
            step = self.coming[qubit].popleft()[1]
            self._add(ONE, qubit, 0, step.parts, step.angle)

    def _join(self, qubit: int) -> None:
        self._ones(qubit)
        self._add(JOIN, qubit, 0, (), None)
        self.order.append(qubit)
        self.widths[qubit] = 4
        self.largest = max(self.largest, math.prod(self.widths.values()))

    def _read(self, qubit: int) -> None:
        self._ones(qubit)
        self._add(READ, qubit, 0, [self.ends[qubit]], None, self._place(qubit), len(self.ends[qubit]))
        self.widths[qubit] = len(self.ends[qubit])

    def _add(self, kind: int, qubit: int, other: int, parts: Sequence[Matrix], angle: int | None, *rest: int) -> None:
        begin, end = self._matrix(parts) if parts else (0, 0)
        line = (kind, qubit, other, -1 if angle is None else angle, begin, end, *rest)
        self.instructions.append((*line, *(0,) * (9 - len(line))))

    def _matrix(self, parts: Sequence[Matrix]) -> tuple[int, int]:
        """Where the entries of a matrix are; equal ones are kept once."""
        values = np.zeros((3, *parts[0].shape))
        values[: len(parts)] = parts
        key = values.tobytes(), values.shape
        if key not in self.known:
            rows, columns = np.nonzero((np.abs(values) > _NOTHING).any(0))
            begin = sum(map(len, self.entries))
            self.known[key] = begin, begin + len(rows)
            self.positions.append(np.stack([rows, columns], 1))
            self.entries.append(values[:, rows, columns].T)
        return self.known[key]
