"""Resynthesise blocks of two qubits, with what is known of their start and what is not read at their end.

What comes in: a flat circuit. What goes out: one with the same unitary, state or outcomes (`keep`) and with no more
entangling gates. Gates that run on one pair of qubits without another between them make a block. A block of numbers is
written with the fewest CX (or RZZ, where those are native) that its part of the task needs:

- its unitary: at most 3 (Vatan and Williams 2004, quant-ph/0308006);
- from one qubit whose state is known and unentangled: at most 2, since a diagonal gate before it acts on one qubit only;
- from two such: at most 1, by the Schmidt decomposition, and 0 where they stay unentangled;
- before both are read: at most 2, up to a diagonal gate (Shende, Bullock and Markov 2006, quant-ph/0406176, theorem 14).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit.library import CXGate
from qiskit.synthesis import TwoQubitBasisDecomposer, TwoQubitWeylDecomposition

from qcascade.routing.emission import euler
from qcascade.routing.flat import Angle, Flat, Op, from_qiskit
from qcascade.routing.problem import Keep

Matrix = NDArray[np.complex128]
_COSTS = {"cx": 1, "cz": 1, "ecr": 1, "swap": 3, "rzz": 2}
_EXACT = 1e-10
_YY = np.fliplr(np.diag([-1.0, 1.0, 1.0, -1.0]))
_ZZ = np.array([1.0, -1.0, -1.0, 1.0])
_EXCHANGED = [0, 2, 1, 3]


@dataclass
class _Block:
    """Gates on one pair; matrices have the first qubit as the least significant bit."""

    pair: tuple[int, int]
    ops: list[Op] = field(default_factory=list)

    def matrix(self) -> Matrix:
        one = np.eye(2, dtype=np.complex128)
        total, single = (
            np.eye(4, dtype=np.complex128),
            [one, one],
        )  # `single`: of each qubit since the last gate on both
        for op in self.ops:
            matrix = op.matrix()
            if len(op.qubits) == 1:
                side = self.pair.index(op.qubits[0])
                single[side] = matrix @ single[side]
                continue
            both = matrix if op.qubits == self.pair else matrix[np.ix_(_EXCHANGED, _EXCHANGED)]
            total, single = both @ _both(*single) @ total, [one, one]
        total = _both(*single) @ total
        unit: Matrix = total / np.linalg.det(total) ** 0.25
        return unit


def _both(first: Matrix, second: Matrix) -> Matrix:
    """Second ⊗ first; np.kron is ten times slower on these."""
    product: Matrix = (second[:, None, :, None] * first[None, :, None, :]).reshape(4, 4)
    return product


def resynthesise(flat: Flat, keep: Keep, *, read: Sequence[int] = (), rzz: bool = False) -> Flat:
    """The circuit with its blocks written anew.

    Args:
        flat: Gates on at most two qubits.
        keep: What has to stay the same.
        read: Wires that are read at the end.
        rzz: Whether RZZ of any angle counts as one gate, instead of CX.
    """
    work = _Resynthesis(flat, keep, frozenset(read), rzz)
    items = _items(flat)
    last = {qubit: number for number, item in enumerate(items) for qubit in _qubits(item)}
    for number, item in enumerate(items):
        work.write(item, last=keep == "outcomes" and all(last[qubit] == number for qubit in _qubits(item)))
    return Flat(flat.width, tuple(work.ops))


def _items(flat: Flat) -> list[_Block | Op]:
    """Blocks, and what is in none: gates with variables, and those of one qubit that has no block."""
    items, opened, waiting = list[_Block | Op](), dict[int, _Block](), dict[int, list[Op]]()

    def close(qubit: int) -> None:
        if block := opened.pop(qubit, None):
            opened.pop(next(q for q in block.pair if q != qubit), None)
            items.append(block)
        items.extend(waiting.pop(qubit, ()))

    for op in flat.ops:
        if op.symbolic() or len(op.qubits) > 2:
            for qubit in op.qubits:
                close(qubit)
            items.append(op)
        elif len(op.qubits) == 1:
            if block := opened.get(op.qubits[0]):
                block.ops.append(op)
            else:
                waiting.setdefault(op.qubits[0], []).append(op)
        else:
            first, second = op.qubits
            if first not in opened or opened[first] is not opened.get(second):
                before = [o for q in op.qubits if q not in opened for o in waiting.pop(q, ())]
                for qubit in op.qubits:
                    close(qubit)
                opened[first] = opened[second] = _Block((first, second), before)
            opened[first].ops.append(op)
    for qubit in range(flat.width):
        close(qubit)
    return items


def _qubits(item: _Block | Op) -> tuple[int, ...]:
    return item.pair if isinstance(item, _Block) else item.qubits


@dataclass
class _Resynthesis:
    flat: Flat
    keep: Keep
    read: frozenset[int]
    rzz: bool
    ops: list[Op] = field(default_factory=list)
    known: dict[int, NDArray[np.complex128]] = field(default_factory=dict)  # states of unentangled qubits

    def __post_init__(self) -> None:
        if self.keep != "unitary":
            self.known = {q: np.array([1.0, 0.0], dtype=np.complex128) for q in range(self.flat.width)}

    def write(self, item: _Block | Op, *, last: bool) -> None:
        if isinstance(item, Op):
            self.ops.append(item)
            if len(item.qubits) == 1 and not item.symbolic() and item.qubits[0] in self.known:
                self.known[item.qubits[0]] = item.matrix() @ self.known[item.qubits[0]]
            else:
                for qubit in item.qubits:
                    self.known.pop(qubit, None)
            return
        unitary, pair = item.matrix(), item.pair
        states = [self.known.pop(q, None) for q in pair]
        if states[0] is not None and states[1] is not None:
            self._prepare(item, unitary, states[0], states[1])
            return
        before = list[Op]()
        ways: list[tuple[int, list[Op], Matrix]] = [(self._count(unitary), before, unitary)]
        for side, state in enumerate(states):
            if state is not None:
                ways.append(self._from_known(unitary, pair, side, state))
        if last and self.read.issuperset(pair):
            ways += [(self._count(matrix), ops, matrix) for _, ops, held in ways for matrix in _up_to_diagonal(held)]
        count, before, unitary = min(ways, key=lambda way: way[0])
        if count < self._cost(item):
            self.ops += [*before, *_written(unitary, pair, rzz=self.rzz)]
        else:
            self.ops += item.ops

    def _cost(self, block: _Block) -> int:
        """Entangling gates as the block is written; more than any where it has others than the usual."""
        costs = {**_COSTS, "rzz": 1} if self.rzz else _COSTS
        return sum(costs.get(op.name, 99) for op in block.ops if len(op.qubits) == 2)

    def _count(self, unitary: Matrix) -> int:
        if self.rzz:
            weyl = TwoQubitWeylDecomposition(unitary)
            return sum(abs(c) > 1e-7 for c in (weyl.a, weyl.b, weyl.c))
        return int(_decomposer().num_basis_gates(unitary))

    def _prepare(self, block: _Block, unitary: Matrix, first: Matrix, second: Matrix) -> None:
        """The state that two unentangled qubits become."""
        one, two = block.pair
        state = (unitary @ np.kron(second, first)).reshape(2, 2)
        left, weights, right = np.linalg.svd(state)  # Σ weight · left[:, i] of the second ⊗ right[i] of the first
        entangled = weights[1] > _EXACT
        if entangled and self._cost(block) <= 1:
            self.ops += block.ops
            return
        back = [_one(one, _frame(first).conj().T), _one(two, _frame(second).conj().T)]
        if entangled:
            angle = Angle(2 * math.atan2(weights[1], weights[0]))
            middle = [Op("ry", (one,), (angle,)), Op("cx", (one, two))]
        else:
            middle = []
            self.known[one], self.known[two] = right[0], left[:, 0]
        self.ops += [*back, *middle, _one(one, right.T), _one(two, left)]

    def _from_known(
        self, unitary: Matrix, pair: tuple[int, int], side: int, state: Matrix
    ) -> tuple[int, list[Op], Matrix]:
        """Fewer gates for a block that starts with one qubit in |0⟩, once it is turned there."""
        frame = _frame(state)
        one = np.eye(2, dtype=np.complex128)
        turned = unitary @ (_both(one, frame) if side else _both(frame, one))
        ready = [_one(pair[side], frame.conj().T)]
        ways = [(self._count(turned), ready, turned)]
        for angle in _diagonals(turned.T):
            # U = V exp(iψ ZZ), which is RZ(−2ψ) on the other qubit where this one is in |0⟩
            matrix = turned * np.exp(-1j * angle * _ZZ)[None, :]
            ways.append((self._count(matrix), [*ready, Op("rz", (pair[1 - side],), (Angle(-2 * angle),))], matrix))
        return min(ways, key=lambda way: way[0])


def _diagonals(unitary: Matrix) -> list[float]:
    """Angles ψ for which exp(−iψ ZZ) U may need fewer gates.

    With γ = U YY Uᵀ YY, the trace of γ of the product is e^(−2iψ) p + e^(2iψ) r; real: 2 CX, 0: 1 CX, ±4: none.
    """
    gamma = unitary @ _YY @ unitary.T @ _YY
    p, r = gamma[0, 0] + gamma[3, 3], gamma[1, 1] + gamma[2, 2]
    angles = [math.atan2(p.imag + r.imag, p.real - r.real) / 2]
    if abs(abs(p) - abs(r)) < 1e-7 and abs(p) > 1e-7:
        angles += [(cmath.phase(p) - cmath.phase(r) + k * math.pi) / 4 for k in range(4)]
    return angles


def _up_to_diagonal(unitary: Matrix) -> list[Matrix]:
    return [np.exp(-1j * angle * _ZZ)[:, None] * unitary for angle in _diagonals(unitary)]


def _written(unitary: Matrix, pair: tuple[int, int], *, rzz: bool) -> list[Op]:
    if not rzz:
        flat = from_qiskit(_decomposer()(unitary))
        assert flat is not None
        return [Op(op.name, tuple(pair[q] for q in op.qubits), op.angles) for op in flat.ops]
    weyl = TwoQubitWeylDecomposition(unitary)
    first, second = pair
    ops = [_one(first, weyl.K2r), _one(second, weyl.K2l)]
    for angle, turn in ((weyl.a, "h"), (weyl.b, "y"), (weyl.c, "")):
        if abs(angle) > 1e-7:
            around = _around(turn, pair)
            back = [Op({"s": "sdg", "sdg": "s"}.get(op.name, op.name), op.qubits) for op in reversed(around)]
            ops += [*around, Op("rzz", pair, (Angle(-2 * angle),)), *back]
    return [*ops, _one(first, weyl.K1r), _one(second, weyl.K1l)]


def _around(turn: str, pair: tuple[int, int]) -> list[Op]:
    """Turns XX or YY into ZZ."""
    if turn == "h":
        return [Op("h", (q,)) for q in pair]
    return [Op(name, (q,)) for q in pair for name in ("sdg", "h")] if turn else []


def _frame(state: Matrix) -> Matrix:
    """A unitary that takes |0⟩ to the state."""
    return np.array([[state[0], -state[1].conjugate()], [state[1], state[0].conjugate()]])


def _one(qubit: int, matrix: Matrix) -> Op:
    return Op("u", (qubit,), tuple(Angle(value) for value in euler(matrix)))


@lru_cache(maxsize=1)
def _decomposer() -> TwoQubitBasisDecomposer:
    return TwoQubitBasisDecomposer(CXGate(), euler_basis="U")
