"""A program and a measurement as the integer tables that compiled circuits read.

Narrow schedules (lanes are examples) never move an amplitude: CNOTs and SWAPs are linear maps over GF(2), carried in the
pair and select masks of the gates after them. Wide schedules (lanes are the three lowest qubits of one example) apply each
run of CNOTs as one permutation. Gates of one layer are ordered into sweeps by how far apart the rows that they pair are,
so that a state larger than the cache is passed through as seldom as possible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcascade.circuits.observables import measurement_groups
from qcascade.circuits.template import Expectations, Measurement
from qcascade.engine.program import DiagonalLayer, Layer, LinearLayer, LocalLayer, PhaseTerm, Program, Rotation

ALL, CHUNK, PHASE, PERMUTE, PRODUCT, ROTATE = range(6)  # kinds of sweeps
STATE, PROBABILITIES, EXPECTATIONS = range(3)  # what is measured
GENERAL, REAL, DIAGONAL = range(3)  # kinds of gates
SUM, DIFFERENCE, BOTH = 1, 2, 3  # what of a butterfly is wanted
CHUNK_ROWS = 256  # rows that stay in the first-level cache while the gates on their low bits are applied
LANE_QUBITS = 3
TOGETHER = 3  # as many Z rotations in a layer are cheaper as one diagonal than inside their qubits' gates,
TOGETHER_ROWS = 512  # from this size of state on
_AXES = {"X": 0, "Y": 1, "Z": 2}
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Tables for `circuit.forward` and `circuit.backward`.

    Attributes:
        wide: Whether lanes are qubits.
        sweeps: [n, 4] kind, first and last gate (or term, or permutation), and the row of `epochs` that holds.
        epochs: [n, row qubits] the pair masks of all row qubits, lowest first.
        gates: [G, 4] pair mask, select mask, kind, lane bit (0: on rows).
        spans: [G + 1] first rotation of every gate.
        rotations: [n, 2] axis and angle.
        terms: [T, 4] angle, two parity masks over rows, and in which (case, lane) the phase acts, as bits.
        permutations: [n, 2, q] where in a state the source is of each basis state with one bit, and the same for the inverse.
        measured: What is measured; `groups` measurement settings and `width` values of expectations.
        bases: [n, 5] group, pair, select, lane bit, axis (0: X, 1: Y) of the qubits not measured along Z.
        strings: [K, 4] group, row mask, lane mask, place of each string.
        butterflies: [n, 4] group, first row, half the size (0: that row's lanes), parts wanted, the largest first.
        images: [2^q] row of every basis state at the end; empty where they agree or do not matter.
    """

    qubits: int
    angles: int
    wide: bool
    measured: int
    width: int
    groups: int
    swaps: int
    sweeps: Integers
    epochs: Integers
    gates: Integers
    spans: Integers
    rotations: Integers
    terms: Integers
    permutations: Integers
    bases: Integers
    strings: Integers
    butterflies: Integers
    images: Integers
    arguments: tuple[Any, ...] = field(init=False, repr=False)  # the tables in the order compiled circuits take them

    def __post_init__(self) -> None:
        order = (
            self.sweeps, self.epochs, self.gates, self.spans, self.rotations, self.terms, self.permutations, self.swaps,
            self.measured, self.groups, self.width, self.bases, self.strings, self.butterflies, self.images,
        )  # fmt: skip
        object.__setattr__(self, "arguments", order)

    @property
    def rows(self) -> int:
        """Rows of eight lanes in a state."""
        return int(2 ** (self.qubits - LANE_QUBITS if self.wide else self.qubits))


@dataclass
class _Tables:
    """The tables while they grow, and where each logical bit is."""

    qubits: int
    wide: bool
    pairs: list[int] = field(init=False)  # the rows that differ in a bit differ by this
    selects: list[int] = field(init=False)  # the bit is the parity of the row's number under this
    sweeps: list[tuple[int, int, int, int]] = field(default_factory=list)
    epochs: list[tuple[int, ...]] = field(default_factory=list)
    gates: list[tuple[int, int, int, int]] = field(default_factory=list)
    spans: list[int] = field(default_factory=lambda: [0])
    rotations: list[tuple[int, int]] = field(default_factory=list)
    terms: list[tuple[int, int, int, int]] = field(default_factory=list)
    permutations: list[LinearLayer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pairs = [1 << t for t in range(self.qubits)]
        self.selects = list(self.pairs)
        self.epochs.append(tuple(1 << t for t in range(self.rows.bit_length() - 1)))

    @property
    def rows(self) -> int:
        return int(2 ** (self.qubits - LANE_QUBITS if self.wide else self.qubits))

    def site(self, bit: int) -> tuple[int, int, int]:
        """(pair, select, lane bit) of a logical bit."""
        if not self.wide:
            return self.pairs[bit], self.selects[bit], 0
        return (0, 0, 1 << bit) if bit < LANE_QUBITS else (1 << bit - LANE_QUBITS, 1 << bit - LANE_QUBITS, 0)

    def select(self, mask: int) -> int:
        """The physical mask whose parity is that of a logical mask."""
        select = 0
        for bit in range(self.qubits):
            if mask >> bit & 1:
                select ^= self.selects[bit]
        return select

    def sweep(self, kind: int, first: int, last: int) -> None:
        self.sweeps.append((kind, first, last, len(self.epochs) - 1))

    def gate(self, qubit: int, rotations: Sequence[Rotation]) -> None:
        """File a gate."""
        axes = {r.axis for r in rotations}
        kind = REAL if axes == {"Y"} else DIAGONAL if axes == {"Z"} else GENERAL
        pair, select, lane = self.site(self.qubits - 1 - qubit)
        self.gates.append((pair, select, kind, lane))
        self.rotations += [(_AXES[r.axis], r.angle) for r in rotations]
        self.spans.append(len(self.rotations))

    def local(self, layer: LocalLayer, *, product: bool) -> None:
        if product:
            start = len(self.gates)
            for qubit, rotations in enumerate(layer.rotations):
                if rotations:
                    self.gate(qubit, rotations)
            self.sweep(PRODUCT, start, len(self.gates))
            return
        before, middle, after = _split(layer.rotations, TOGETHER if self.rows >= TOGETHER_ROWS else self.qubits + 1)
        self.diagonal(before)
        self.gates_in_order({q: r for q, r in enumerate(middle) if r})
        self.diagonal(after)

    def diagonal(self, rotations: Mapping[int, Sequence[Rotation]]) -> None:
        """Z rotations of many qubits in one sweep."""
        start = len(self.gates)
        for qubit, found in rotations.items():
            self.gate(qubit, found)
        if rotations:
            self.sweep(ROTATE, start, len(self.gates))

    def gates_in_order(self, rotations: Mapping[int, Sequence[Rotation]]) -> None:
        """Gates in the sweeps that pass through the state most seldom."""
        sites = {qubit: self.site(self.qubits - 1 - qubit) for qubit in rotations}
        near = [qubit for qubit in rotations if sites[qubit][0] < CHUNK_ROWS]
        for mode, members in ((CHUNK, near), (ALL, [qubit for qubit in rotations if qubit not in near])):
            first = len(self.gates)
            for qubit in members:
                self.gate(qubit, rotations[qubit])
            if members:
                self.sweep(mode, first, len(self.gates))

    def phase(self, term: PhaseTerm) -> None:
        masks = [self.select(mask) for mask in term.masks]
        lanes = [mask & 7 if self.wide else 0 for mask in masks]
        rows = [mask >> LANE_QUBITS if self.wide else mask for mask in masks]
        cases = 0
        for case in range(4):
            for lane in range(8):
                parities = (case >> 1, case & 1)
                if all(parities[k] ^ (lane & lanes[k]).bit_count() & 1 for k in range(len(masks))):
                    cases |= 1 << (8 * case + lane)
        rows += [0] * (2 - len(rows))
        self.sweep(PHASE, len(self.terms), len(self.terms) + 1)
        self.terms.append((term.angle, rows[0], rows[1], cases))

    def linear(self, layer: LinearLayer, *, measured: bool) -> None:
        """CNOTs and SWAPs; `measured` where nothing but a measurement along Z follows."""
        if self.wide and not measured:
            if layer not in self.permutations:
                self.permutations.append(layer)
            place = self.permutations.index(layer)
            self.sweep(PERMUTE, place, place + 1)
            return
        columns = layer.columns
        self.selects = [
            _xor(self.selects[u] for u in range(self.qubits) if columns[u] >> t & 1) for t in range(self.qubits)
        ]
        self.pairs = [_applied(self.pairs, column) for column in _inverse(columns)]
        if not self.wide:
            self.epochs.append(tuple(self.pairs))


def _split(
    rotations: Sequence[Sequence[Rotation]], least: int
) -> tuple[dict[int, Sequence[Rotation]], list[Sequence[Rotation]], dict[int, Sequence[Rotation]]]:
    """A layer as Z rotations of many qubits, gates, and Z rotations again; fewer than `least` stay in their gates.

    A rotation about Y alone is a real gate, half the work of any other.
    """
    before: dict[int, Sequence[Rotation]] = {}
    after: dict[int, Sequence[Rotation]] = {}
    for qubit, found in enumerate(rotations):
        axes = "".join(r.axis for r in found)
        if match := re.fullmatch("(Z*)(Y*)(Z*)", axes):
            ends = (match.end(1), match.end(2)) if match[2] else (0, 0)
            if ends[0]:
                before[qubit] = found[: ends[0]]
            if ends[1] < len(found):
                after[qubit] = found[ends[1] :]
    before = before if len(before) >= least else {}
    after = after if len(after) >= least else {}
    middle = [
        found[len(before.get(qubit, ())) : len(found) - len(after.get(qubit, ()))]
        for qubit, found in enumerate(rotations)
    ]
    return before, middle, after


def _visible(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers without the phases at their end, which no measurement along Z can tell."""
    for number in reversed(range(len(layers))):
        layer, rest = layers[number], layers[number + 1 :]
        if isinstance(layer, DiagonalLayer):
            return _visible((*layers[:number], *rest))
        if isinstance(layer, LocalLayer):
            kept = (tuple(_without_last_z(rotations)) for rotations in layer.rotations)
            return (*layers[:number], LocalLayer(tuple(kept)), *rest)
    return layers


def _without_last_z(rotations: Sequence[Rotation]) -> Sequence[Rotation]:
    kept = max((k + 1 for k, rotation in enumerate(rotations) if rotation.axis != "Z"), default=0)
    return rotations[:kept]


def schedule(program: Program, measurement: Measurement | None, loaded: bool, wide: bool) -> Schedule:
    """The tables of a program with a measurement (None: amplitudes), from |0…0⟩ or from loaded amplitudes."""
    made = _Tables(program.qubits, wide)
    expected = isinstance(measurement, Expectations)
    measured = STATE if measurement is None else EXPECTATIONS if expected else PROBABILITIES
    along_z = isinstance(measurement, Expectations) and all(a == "Z" for pauli in measurement.paulis for _, a in pauli)
    layers = _visible(program.layers) if along_z or measured == PROBABILITIES else program.layers
    last = max((k for k, layer in enumerate(layers) if not isinstance(layer, LinearLayer)), default=-1)
    for number, layer in enumerate(layers):
        if isinstance(layer, LocalLayer):
            made.local(layer, product=number == 0 and not loaded)
        elif isinstance(layer, DiagonalLayer):
            for term in layer.terms:
                made.phase(term)
        elif isinstance(layer, LinearLayer):
            made.linear(layer, measured=along_z and number > last)
    if measurement is None and program.phase is not None:
        made.phase(PhaseTerm(program.phase, ()))
    bases, strings, groups = _observables(made, measurement)
    moved = made.pairs != [1 << t for t in range(program.qubits)] and not isinstance(measurement, Expectations)
    sources = [[_inverse(layer.columns), layer.columns] for layer in made.permutations]
    permutations = np.array(sources, dtype=np.int64).reshape(len(sources), 2, program.qubits)
    return Schedule(
        qubits=program.qubits,
        angles=len(program.constants),
        wide=wide,
        measured=measured,
        width=0 if strings is None else len(strings),
        groups=groups,
        swaps=sum(kind == PERMUTE for kind, _, _, _ in made.sweeps),
        sweeps=_table(made.sweeps, 4),
        epochs=_table(made.epochs, len(made.epochs[0])),
        gates=_table(made.gates, 4),
        spans=np.array(made.spans, dtype=np.int64),
        rotations=_table(made.rotations, 2),
        terms=_table(made.terms, 4),
        permutations=permutations + (permutations & ~7),
        bases=_table(bases, 5),
        strings=_table(strings or [], 4),
        butterflies=_table(_butterflies(strings or [], made.rows, wide), 4),
        images=LinearLayer(tuple(made.pairs)).image() if moved else np.zeros(0, dtype=np.int64),
    )


def _observables(
    made: _Tables, measurement: Measurement | None
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]] | None, int]:
    if not isinstance(measurement, Expectations):
        return [], None, 0
    bases: list[tuple[int, ...]] = []
    strings: list[tuple[int, ...]] = []
    grouped = measurement_groups(measurement.paulis)
    for group, (axes, members) in enumerate(grouped):
        for qubit, axis in sorted(axes.items()):
            if axis != "Z":
                bases.append((group, *made.site(made.qubits - 1 - qubit), _AXES[axis]))
        for place in members:
            mask = made.select(sum(1 << (made.qubits - 1 - qubit) for qubit, _ in measurement.paulis[place]))
            row, lane = (mask >> LANE_QUBITS, mask & 7) if made.wide else (mask, 0)
            strings.append((group, row, lane, place))
    return bases, strings, len(grouped)


def _butterflies(strings: list[tuple[int, ...]], rows: int, wide: bool) -> list[tuple[int, ...]]:
    """The butterflies of a Walsh–Hadamard transform over rows, and lanes, that lead to the strings' masks."""
    found: list[tuple[int, ...]] = []
    for group in sorted({string[0] for string in strings}):
        waiting = [(0, rows, {string[1] for string in strings if string[0] == group})]
        while waiting:
            first, size, masks = waiting.pop()
            half = size // 2
            sums, differences = {m for m in masks if not m & half}, {m ^ half for m in masks if m & half}
            if half:
                found.append((group, first, half, SUM * bool(sums) + DIFFERENCE * bool(differences)))
                waiting += [(first, half, sums)] * bool(sums) + [(first + half, half, differences)] * bool(differences)
            elif wide:
                found.append((group, first, 0, 0))
    return found


def _table(rows: Sequence[tuple[int, ...]], width: int) -> Integers:
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


def _xor(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total ^= mask
    return total


def _applied(columns: list[int], vector: int) -> int:
    """A linear map, given by its columns, of a vector."""
    return _xor(columns[u] for u in range(len(columns)) if vector >> u & 1)


def _inverse(columns: tuple[int, ...]) -> list[int]:
    """The columns of the inverse map, by elimination over GF(2)."""
    left, right = list(columns), [1 << t for t in range(len(columns))]
    for bit in range(len(columns)):
        pivot = next(k for k in range(bit, len(columns)) if left[k] >> bit & 1)
        left[bit], left[pivot], right[bit], right[pivot] = left[pivot], left[bit], right[pivot], right[bit]
        for k in range(len(columns)):
            if k != bit and left[k] >> bit & 1:
                left[k] ^= left[bit]
                right[k] ^= right[bit]
    return right
