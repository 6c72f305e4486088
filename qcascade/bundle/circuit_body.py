"""A lowered circuit as real tensor arithmetic, from which standard ONNX operators follow.

What comes in: a program, its measurement, data [1|S, B, D], weights [S, W] and loaded states as real and imaginary parts
[1|S, 1|B, 2^q]. What goes out: what `engine.simulate` gives, in float arithmetic alone, complex numbers as two tensors of
which the second is left out while it is zero. Every constant has a size that grows with gates and qubits: what has 2^q
entries (bits of basis states, parities, permutations) is computed from the qubits' numbers, and what depends on weights
alone is for a runtime to fold. More than `MAX_QUBITS` qubits are refused.

Layers of rotations are Kronecker products over blocks of at most `BLOCK` neighbours; Z rotations join the diagonal that
follows them, and diagonals that no outcome depends on are left out, so that rotations about Y stay real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcascade.circuits.observables import measurement_groups
from qcascade.circuits.template import Expectations, Measurement
from qcascade.engine.program import DiagonalLayer, LinearLayer, LocalLayer, PhaseTerm, Program, Rotation
from qcascade.errors import BundleError

MAX_QUBITS = 16
BLOCK = 5


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A complex tensor as real and imaginary part; no imaginary part is zero."""

    real: Tensor
    imaginary: Tensor | None

    def squared(self) -> Tensor:
        """|z|²."""
        real = self.real * self.real
        return real if self.imaginary is None else real + self.imaginary * self.imaginary

    def times(self, other: Pair) -> Pair:
        """The product, entry by entry."""
        return _product(self, other, torch.mul)

    def matmul(self, other: Pair) -> Pair:
        """The matrix product."""
        return _product(self, other, torch.matmul)

    def parts(self) -> tuple[Tensor, Tensor]:
        """Both parts, zeros where the second is left out."""
        return self.real, torch.zeros_like(self.real) if self.imaginary is None else self.imaginary


def _product(left: Pair, right: Pair, multiply: Callable[[Tensor, Tensor], Tensor]) -> Pair:
    a, b, c, d = left.real, left.imaginary, right.real, right.imaginary
    real, imaginary = multiply(a, c), None
    if b is not None and d is not None:
        real = real - multiply(b, d)
        imaginary = multiply(a, d) + multiply(b, c)
    elif b is not None:
        imaginary = multiply(b, c)
    elif d is not None:
        imaginary = multiply(a, d)
    return Pair(real, imaginary)


def simulate(
    program: Program, measurement: Measurement | None, data: Tensor, weights: Tensor, amplitudes: Pair | None
) -> Tensor | Pair:
    """Expectation values [S, B, K], probabilities [S, B, 2^q], or states [S, B, 2^q] as a pair where nothing is measured.

    Raises:
        BundleError: The circuit is too wide.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from qcascade.circuits.template import CircuitTemplate, Probabilities
        >>> from qcascade.engine import lower
        >>> program = lower(CircuitTemplate(Circuit(1).X(0), (), ()))
        >>> simulate(program, Probabilities(), torch.zeros(1, 1, 0), torch.zeros(1, 0), None)[0, 0].round()
        tensor([0., 1.])
    """
    state = computed(program, measurement, data, weights, amplitudes)
    sets, batch = weights.shape[0], data.shape[1]
    if isinstance(state, Pair):
        return each(state, lambda t: t.expand(sets, batch, -1))
    return state.expand(sets, batch, -1)


def computed(
    program: Program, measurement: Measurement | None, data: Tensor, weights: Tensor, amplitudes: Pair | None
) -> Tensor | Pair:
    """As `simulate`; sets and batch are 1 where nothing differs along them.

    Raises:
        BundleError: The circuit is too wide.
    """
    if program.qubits > MAX_QUBITS:
        raise BundleError(
            f"a circuit has {program.qubits} qubits; a body of standard ONNX operators is written for at most {MAX_QUBITS}."
        )
    steps, phase = steps_of(program, measurement)
    body = CircuitBody(program, steps, data, weights)
    state = amplitudes
    for step in steps:
        state = body.apply(step, state)
    state = body.ground() if state is None else body.flat(state)
    if measurement is None:
        if phase:
            turn = body.linear(phase)[..., None]
            state = state.times(Pair(turn.cos(), turn.sin()))
        return state
    return body.expectations(state, measurement) if isinstance(measurement, Expectations) else state.squared()


Step = LocalLayer | DiagonalLayer | LinearLayer


def steps_of(program: Program, measurement: Measurement | None) -> tuple[list[Step], list[tuple[float, int]]]:
    """The layers with Z rotations moved to diagonals, and the global phase as (factor, angle)s.

    Diagonals at the end go where only the computational basis is measured.
    """
    steps: list[Step] = []
    phase: list[tuple[float, int]] = [] if program.phase is None else [(1.0, program.phase)]
    for layer in program.layers:
        if not isinstance(layer, LocalLayer):
            if isinstance(layer, DiagonalLayer) and steps and isinstance(steps[-1], DiagonalLayer):
                steps[-1] = DiagonalLayer(steps[-1].terms + layer.terms)
            else:
                steps.append(layer)
            continue
        before: list[PhaseTerm] = []
        kept: list[tuple[Rotation, ...]] = []
        after: list[PhaseTerm] = []
        for qubit, rotations in enumerate(layer.rotations):
            mask = 1 << (program.qubits - 1 - qubit)
            first, last = 0, len(rotations)
            while first < last and rotations[first].axis == "Z":
                before.append(PhaseTerm(rotations[first].angle, (mask,)))
                first += 1
            while last > first and rotations[last - 1].axis == "Z":
                last -= 1
                after.append(PhaseTerm(rotations[last].angle, (mask,)))
            kept.append(rotations[first:last])
        phase += [(-0.5, term.angle) for term in (*before, *after)]
        for more in (DiagonalLayer(tuple(before)), LocalLayer(tuple(kept)), DiagonalLayer(tuple(after))):
            if isinstance(more, LocalLayer):
                if any(kept):
                    steps.append(more)
            elif more.terms:
                if steps and isinstance(steps[-1], DiagonalLayer):
                    more = DiagonalLayer(steps.pop().terms + more.terms)  # type: ignore[union-attr]
                steps.append(more)
    along_z = measurement is not None and (
        not isinstance(measurement, Expectations) or all(axis == "Z" for p in measurement.paulis for _, axis in p)
    )
    while along_z and steps and isinstance(steps[-1], DiagonalLayer):
        steps.pop()
    return steps, phase


class CircuitBody:
    """Applies steps; what several gates need is computed for all of them at once."""

    def __init__(self, program: Program, steps: Sequence[Step], data: Tensor, weights: Tensor) -> None:
        self.qubits, self.like = program.qubits, weights
        columns = len(program.data)
        angles = _mapped(weights, program.coefficients[:, columns:])
        self.shared = angles[:, None] if angles is not None else weights.new_zeros(1, 1, len(program.constants))
        if program.constants.any():
            self.shared = self.shared + self.constant(program.constants)
        given = _mapped(data, program.coefficients[:, :columns]) if program.uses_data else None
        self.angles = self.shared if given is None else self.shared + given  # [S, 1|B, A]
        self.with_data = (program.coefficients[:, :columns] != 0).sum(1) > 0
        self.powers = torch.tensor([2.0**place for place in reversed(range(self.qubits))])
        index = torch.arange(2**self.qubits, dtype=torch.float32)[:, None]
        self.bits = torch.floor(index / self.powers) % 2  # of every basis state [2^q, q], the most significant first
        self.sources = self._sources([step for step in steps if isinstance(step, LinearLayer)])
        self.turns = self._turns([step for step in steps if isinstance(step, LocalLayer)])

    def constant(self, values: NDArray[np.float64] | Sequence[float]) -> Tensor:
        """Numbers in the circuit's precision."""
        return torch.tensor(np.asarray(values).tolist(), dtype=self.like.dtype)

    def chosen(self, places: Sequence[int]) -> Tensor:
        """Angles [S, 1|B, K] at places; without the batch where none depends on data."""
        source = self.angles if self.with_data[list(places)].any() else self.shared
        return source.index_select(-1, torch.tensor(list(places)))

    def linear(self, terms: Sequence[tuple[float, int]]) -> Tensor:
        """The sum [S, 1|B] of factors times angles."""
        return (self.chosen([place for _, place in terms]) * self.constant([factor for factor, _ in terms])).sum(-1)

    def ground(self) -> Pair:
        """|0…0⟩ [1, 1, 2^q]."""
        index = torch.arange(2**self.qubits)
        return Pair((index == 0).to(self.like.dtype)[None, None], None)

    def parities(self, masks: Sequence[int]) -> Tensor:
        """Parity [2^q, K] of every basis state under masks."""
        table = [[float(mask >> (self.qubits - 1 - qubit) & 1) for mask in masks] for qubit in range(self.qubits)]
        return (self.bits @ torch.tensor(table)) % 2

    def apply(self, step: Step, state: Pair | None) -> Pair:
        """A step on a state whose entries are in order, in any shape [S, ...]; None is |0…0⟩."""
        if isinstance(step, LocalLayer):
            return self.product(step) if state is None else self.local(step, state)
        state = self.flat(self.ground() if state is None else state)
        if isinstance(step, DiagonalLayer):
            return state.times(self.turn(step))
        source = self.sources[id(step)]
        return each(state, lambda t: t.index_select(-1, source))

    def turn(self, layer: DiagonalLayer) -> Pair:
        """A diagonal's entries [S, 1|B, 2^q]."""
        phase = self.chosen([t.angle for t in layer.terms]) @ self.patterns(layer.terms)
        return Pair(phase.cos(), phase.sin())

    def flat(self, state: Pair) -> Pair:
        """A state as [S, B, 2^q]."""
        return each(state, lambda t: t if t.dim() == 3 else t.reshape(t.shape[0], -1, 2**self.qubits))

    def patterns(self, terms: Sequence[PhaseTerm]) -> Tensor:
        """Which basis states every term acts on: [K, 2^q] of 0 and 1."""
        found = self.parities([t.masks[0] for t in terms])
        if any(len(t.masks) > 1 for t in terms):
            found = found * self.parities([t.masks[-1] for t in terms])
        return found.T.to(self.like.dtype)

    def _sources(self, layers: Sequence[LinearLayer]) -> dict[int, Tensor]:
        """Of every layer, by identity, where the content of every basis state comes from: [2^q] integers."""
        if not layers:
            return {}
        tables = []
        for layer in layers:
            back = [_inverse(layer.columns, self.qubits)[self.qubits - 1 - row] for row in range(self.qubits)]
            tables.append([[float(b >> (self.qubits - 1 - column) & 1) for column in range(self.qubits)] for b in back])
        found = (((self.bits @ torch.tensor(tables)) % 2) @ self.powers).to(torch.int64)
        return {id(layer): found[number] for number, layer in enumerate(layers)}

    def _turns(self, layers: Sequence[LocalLayer]) -> dict[int, Pair]:
        """Of every angle that is a qubit's only rotation in its layer, about Y: the gate [S, 1|B, 2, 2]."""
        alone = [r[0].angle for layer in layers for r in layer.rotations if len(r) == 1 and r[0].axis == "Y"]
        found = {}
        for with_data in (False, True):
            places = [place for place in alone if bool(self.with_data[place]) == with_data]
            if places:
                half = self.chosen(places) * 0.5
                c, s = half.cos(), half.sin()
                gates = torch.stack((c, -s, s, c), -1).reshape(c.shape[0], -1, len(places), 2, 2)
                found.update({place: Pair(gates[:, :, number], None) for number, place in enumerate(places)})
        return found

    def gate(self, rotations: tuple[Rotation, ...]) -> Pair:
        """A qubit's gate [S, 1|B, 2, 2] of its rotations in order of application."""
        if not rotations:
            return Pair(self.constant([[1.0, 0.0], [0.0, 1.0]])[None, None], None)  # type: ignore[list-item]
        if len(rotations) == 1 and rotations[0].angle in self.turns:
            return self.turns[rotations[0].angle]
        half = self.chosen([rotation.angle for rotation in rotations]) * 0.5
        cosines, sines = half.cos(), half.sin()
        gate: tuple[Pair, Pair] | None = None  # (a, b) of [[a, −b*], [b, a*]], each [S, 1|B]
        for place, rotation in enumerate(rotations):
            c, s = cosines[..., place], sines[..., place]
            zero = torch.zeros_like(c)
            turn = {
                "X": (Pair(c, None), Pair(zero, -s)),
                "Y": (Pair(c, None), Pair(s, None)),
                "Z": (Pair(c, -s), Pair(zero, None)),
            }[rotation.axis]
            gate = turn if gate is None else _composed(turn, gate)
        assert gate is not None
        a, b = gate
        real = torch.stack((a.real, -b.real, b.real, a.real), -1).unflatten(-1, (2, 2))
        if a.imaginary is None and b.imaginary is None:
            return Pair(real, None)
        (_, ai), (_, bi) = a.parts(), b.parts()
        return Pair(real, torch.stack((ai, bi, bi, -ai), -1).unflatten(-1, (2, 2)))

    def product(self, layer: LocalLayer) -> Pair:
        """The layer on |0…0⟩: the Kronecker product of the gates' first columns."""
        columns = [each(self.gate(rotations), lambda t: t[..., :1]) for rotations in layer.rotations]
        return each(kronecker(columns), lambda t: t[..., 0])

    def local(self, layer: LocalLayer, state: Pair) -> Pair:
        """Kronecker products, block by block, narrowed to the qubits that turn."""
        count = -(-self.qubits // BLOCK)
        edges = [self.qubits * k // count for k in range(count + 1)]
        for low, high in pairwise(edges):
            turned = [qubit for qubit in range(low, high) if layer.rotations[qubit]]
            if turned:
                start, stop = turned[0], turned[-1] + 1
                matrix = kronecker([self.gate(rotations) for rotations in layer.rotations[start:stop]])
                state = self.block(state, matrix, start, stop - start)
        return state

    def block(self, state: Pair, matrix: Pair, start: int, width: int) -> Pair:
        """`matrix` [S, 1|B, 2^w, 2^w] on qubits start … start + w − 1; the result has a shape of its own."""
        before, inner, after = 2**start, 2**width, 2 ** (self.qubits - start - width)
        if after == 1:
            shaped = each(state, lambda t: t.reshape(t.shape[0], -1, before, inner))
            return shaped.matmul(each(matrix, lambda t: t.transpose(-1, -2)))
        shaped = each(state, lambda t: t.reshape(t.shape[0], -1, before, inner, after))
        return each(matrix, lambda t: t.unsqueeze(-3)).matmul(shaped)

    def expectations(self, state: Pair, measurement: Expectations) -> Tensor:
        """⟨P⟩ [S, B, K], the strings of one choice of axes together."""
        columns: list[Tensor] = []
        order: list[int] = []
        for basis, members in measurement_groups(measurement.paulis):
            turned = state
            for qubit, axis in sorted(basis.items()):
                if axis != "Z":
                    turned = self.block(turned, self.change(axis), qubit, 1)
            masks = [sum(1 << (self.qubits - 1 - q) for q, _ in measurement.paulis[m]) for m in members]
            signs = (1 - 2 * self.parities(masks)).to(self.like.dtype)
            columns.append(self.flat(turned).squared() @ signs)
            order.extend(members)
        if not columns:
            return self.flat(state).real[..., :0]
        found = columns[0] if len(columns) == 1 else torch.cat(columns, -1)
        if order == sorted(order):
            return found
        return found.index_select(-1, torch.tensor(np.argsort(order).tolist()))

    def change(self, axis: str) -> Pair:
        """The gate that turns a qubit measured along X or Y to Z: [1, 1, 2, 2]."""
        root = 2**-0.5
        if axis == "X":
            return Pair(self.constant([[root, root], [root, -root]])[None, None], None)  # type: ignore[list-item]
        real, imaginary = self.constant([[root, 0], [root, 0]]), self.constant([[0, -root], [0, root]])  # type: ignore[list-item]
        return Pair(real[None, None], imaginary[None, None])


def _mapped(values: Tensor, coefficients: NDArray[np.float64]) -> Tensor | None:
    """Values [..., D] @ coefficients.T; by picking columns where every angle has at most one symbol."""
    if not coefficients.any():
        return None
    if (np.count_nonzero(coefficients, axis=1) > 1).any():
        return values @ torch.tensor(coefficients.T.tolist(), dtype=values.dtype)
    columns = np.abs(coefficients).argmax(1)
    factors = coefficients[np.arange(len(columns)), columns]
    picked = values.index_select(-1, torch.tensor(columns.tolist()))
    return picked if (factors == 1).all() else picked * torch.tensor(factors.tolist(), dtype=values.dtype)


def each(pair: Pair, change: Callable[..., Tensor]) -> Pair:
    """Both parts changed alike."""
    return Pair(change(pair.real), None if pair.imaginary is None else change(pair.imaginary))


def _sum(left: Pair, right: Pair, sign: int = 1) -> Pair:
    real = left.real + right.real if sign > 0 else left.real - right.real
    if right.imaginary is None:
        return Pair(real, left.imaginary)
    turned = right.imaginary if sign > 0 else -right.imaginary
    return Pair(real, turned if left.imaginary is None else left.imaginary + turned)


def conjugate(pair: Pair) -> Pair:
    """The complex conjugate."""
    return Pair(pair.real, None if pair.imaginary is None else -pair.imaginary)


def _composed(second: tuple[Pair, Pair], first: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
    """(a, b) of second · first."""
    (a, b), (c, d) = second, first
    return _sum(a.times(c), conjugate(b).times(d), -1), _sum(b.times(c), conjugate(a).times(d))


def kronecker(matrices: Sequence[Pair]) -> Pair:
    """The Kronecker product [S, 1|B, …] of matrices [S, 1|B, rows, columns], the first the most significant."""
    product = matrices[0]
    for matrix in matrices[1:]:
        (rows, columns), (more, wide) = product.real.shape[-2:], matrix.real.shape[-2:]
        left = each(product, lambda t, r=rows, c=columns: t.reshape(t.shape[0], -1, r, 1, c, 1))
        outer = left.times(each(matrix, lambda t, r=more, c=wide: t.reshape(t.shape[0], -1, 1, r, 1, c)))
        product = each(outer, lambda t, r=rows * more, c=columns * wide: t.reshape(t.shape[0], -1, r, c))
    return product


def _inverse(columns: Sequence[int], qubits: int) -> list[int]:
    """Columns of the inverse of an invertible matrix over two elements, by elimination."""
    rows = list(columns)
    made = [1 << k for k in range(qubits)]
    for k in range(qubits):
        pivot = next(r for r in range(k, qubits) if rows[r] >> k & 1)
        rows[k], rows[pivot], made[k], made[pivot] = rows[pivot], rows[k], made[pivot], made[k]
        for r in range(qubits):
            if r != k and rows[r] >> k & 1:
                rows[r] ^= rows[k]
                made[r] ^= made[k]
    return made
