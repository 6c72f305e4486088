"""What a target is: qubits, native gates with error and duration at every place, readout, decoherence, overheads, price.

Gates go by Qiskit's names ("cz", "ecr", "rzz", "sx", "r", "rz", …). Errors are average gate infidelities 1 − F, times
are seconds. What is not known is None. What is dead is removed at the door: in a calibrated target, gates whose error is
0.5 or more or is not reported, in either direction, and qubits that cannot be read or rotated. Not reported is dead only
beside gates that are: a two-qubit gate where any two-qubit error is known, a one-qubit gate or a readout where the same
is known of another qubit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from qcascade.errors import TargetError

if TYPE_CHECKING:
    import networkx as nx
    from qiskit.transpiler import Target as QiskitTarget

DEAD_ERROR = 0.5  # from here on a gate or a readout carries nothing
_DIAGONAL = frozenset({"id", "p", "rz", "s", "sdg", "t", "tdg", "u1", "z"})  # changes of frame: they rotate nothing


@dataclass(frozen=True, slots=True)
class Gate:
    """A native gate at one place."""

    name: str
    qubits: tuple[int, ...]  # in the gate's own order
    error: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class QubitProperties:
    """One qubit: `readout_error` is the mean probability of reading 0 as 1 and 1 as 0."""

    readout_error: float | None = None
    readout_seconds: float | None = None
    t1: float | None = None
    t2: float | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What running costs, in `currency`; gate and measurement prices are per gate and shot.

    Seconds are all that a job takes the processor: its shots' and its own (`Target.job_overhead`).
    """

    currency: str
    per_job: float = 0.0
    per_circuit: float = 0.0
    per_shot: float = 0.0
    per_second: float = 0.0
    per_one_qubit_gate: float = 0.0
    per_two_qubit_gate: float = 0.0
    per_measurement: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Target:
    """A device.

    Args:
        name: What it is asked for by.
        description: One line.
        qubits: How many; None puts no limit, and then nothing is routed.
        gates: Native gates by place; dead ones are removed, and the rest put in one order: by size, name and qubits.
        properties: One entry a qubit.
        shot_overhead: Seconds of a shot beside its gates and readout (reset, delay between shots).
        job_overhead: Seconds of a submission beside its shots (compilation, transfer), queueing left out.
        parallel_two_qubit_gates: Two-qubit gates that run at once; None: all that share no qubit.
        price: None where it is not known.
        calibrated: Day of the calibration, ISO 8601.
        source: Where the figures are from.
        dead_edges: Pairs of qubits, smaller first, that the device couples by nothing that works; what is removed at
            the door is added.

    It compares by value and hashes by name, qubits and calibration, which is cheap; caches go by `digest`.

    Raises:
        TargetError: A gate names a qubit that the target does not have, a figure is out of range, or nothing is left.

    Example:
        >>> gates = [Gate("sx", (q,), 1e-4) for q in range(3)] + [Gate("cz", (0, 1), 4e-3), Gate("cz", (1, 2), 1.0)]
        >>> target = Target("tiny", "three qubits, one edge dead", 3, tuple(gates), (QubitProperties(0.01),) * 3)
        >>> target.edges
        ((0, 1),)
    """

    name: str
    description: str
    qubits: int | None = None
    gates: tuple[Gate, ...] = field(default=(), repr=False)
    properties: tuple[QubitProperties, ...] = field(default=(), repr=False)
    shot_overhead: float | None = None
    job_overhead: float | None = None
    parallel_two_qubit_gates: int | None = None
    price: Price | None = None
    calibrated: str | None = None
    source: str = ""
    dead_edges: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        _check(self)
        if not self.gates:
            return
        given = self.gates  # in any order: Qiskit's own changes from process to process
        alive = sorted(_alive(self), key=lambda gate: (len(gate.qubits), gate.name, gate.qubits))
        object.__setattr__(self, "gates", tuple(alive))
        if not self.nodes:
            raise TargetError(f"target {self.name!r} has no usable qubit: every one is dead. Check its calibration.")
        dead = {*_pairs(given), *self.dead_edges} - set(self.edges)
        object.__setattr__(self, "dead_edges", tuple(sorted(dead)))

    def __hash__(self) -> int:
        return hash((self.name, self.qubits, self.calibrated, len(self.gates)))

    @cached_property
    def calibrated_gates(self) -> bool:
        """Whether errors are known."""
        return any(gate.error is not None for gate in self.gates)

    @cached_property
    def operations(self) -> tuple[str, ...]:
        """Names of the native gates."""
        return tuple(dict.fromkeys(gate.name for gate in self.gates))

    @cached_property
    def places(self) -> Mapping[tuple[str, tuple[int, ...]], Gate]:
        """Gates by name and qubits."""
        return {(gate.name, gate.qubits): gate for gate in self.gates}

    @cached_property
    def two_qubit_gates(self) -> tuple[str, ...]:
        """Names of the native two-qubit gates."""
        return tuple(dict.fromkeys(gate.name for gate in self.gates if len(gate.qubits) == 2))

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs of qubits, smaller first, that a two-qubit gate joins."""
        return tuple(sorted(_pairs(self.gates)))

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """Qubits that can be rotated."""
        return tuple(sorted(_rotated(self.gates)))

    @cached_property
    def dead_qubits(self) -> tuple[int, ...]:
        """Qubits of the device that cannot be used."""
        return tuple(sorted(set(range(self.qubits or 0)) - set(self.nodes)))

    @cached_property
    def graph(self) -> nx.Graph:
        """Usable qubits and edges; an edge's `error` is its best two-qubit gate's, None where unknown."""
        best: dict[tuple[int, int], float | None] = dict.fromkeys(self.edges)
        for gate in self.gates:
            if len(gate.qubits) == 2 and gate.error is not None:
                edge = (min(gate.qubits), max(gate.qubits))
                known = best[edge]
                best[edge] = gate.error if known is None else min(known, gate.error)
        import networkx as nx  # here: half a second

        graph = nx.Graph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((*edge, {"error": error}) for edge, error in best.items())
        return graph

    @cached_property
    def largest_component(self) -> tuple[int, ...]:
        """The most usable qubits that two-qubit gates join into one piece; the piece of the lowest number, of equals.

        Example:
            >>> gates = [Gate("sx", (q,)) for q in range(5)] + [Gate("cz", p) for p in ((0, 1), (2, 3), (3, 4))]
            >>> Target("broken", "a line without its second edge", 5, tuple(gates)).largest_component
            (2, 3, 4)
        """
        import networkx as nx

        pieces = [tuple(sorted(piece)) for piece in nx.connected_components(self.graph)]
        return max(pieces, key=lambda piece: (len(piece), -piece[0]), default=())

    def median_error(self, qubits: int = 2) -> float | None:
        """Median error of the gates on so many qubits (of one: those that are no changes of frame), None where unknown."""
        known = [
            gate.error
            for gate in self.gates
            if len(gate.qubits) == qubits and gate.error is not None and gate.name not in _DIAGONAL
        ]
        return median(known) if known else None

    def median_readout_error(self) -> float | None:
        """Median readout error of the usable qubits, None where unknown."""
        entries = (self.properties[q] for q in self.nodes) if self.properties else ()
        known = [entry.readout_error for entry in entries if entry.readout_error is not None]
        return median(known) if known else None

    @cached_property
    def all_to_all(self) -> bool:
        """Whether every pair of usable qubits is joined."""
        return self.qubits is None or len(self.edges) == len(self.nodes) * (len(self.nodes) - 1) // 2

    @cached_property
    def digest(self) -> str:
        """A hash of everything that the target says, for caches."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_qiskit(self) -> QiskitTarget:
        """As Qiskit's transpiler and Aer's noise models take it; see `targets.qiskit`."""
        from qcascade.targets.qiskit import to_qiskit

        return to_qiskit(self)

    @classmethod
    def from_qiskit(cls, backend: Any, *, name: str | None = None, **overrides: Any) -> Target:
        """The target of a Qiskit backend (BackendV2) or `qiskit.transpiler.Target`.

        Args:
            backend: What has or is a `qiskit.transpiler.Target`.
            name: The backend's own by default.
            **overrides: Fields of `Target` that the backend does not say, or says wrongly.

        Raises:
            TargetError: It has no `qiskit.transpiler.Target`, or names no gate on any qubit.
        """
        from qcascade.targets.qiskit import from_qiskit

        return from_qiskit(backend, name=name, **overrides)

    @classmethod
    def from_pytket(cls, backend: Any, *, name: str | None = None, **overrides: Any) -> Target:
        """The target of a pytket `Backend` or `BackendInfo`: its architecture, gate set and error maps.

        Qubit i is the backend's node of index i. Times and decoherence are not said by pytket; an IBM device is
        better read by `from_qiskit`.

        Args:
            backend: The backend, or what it says of itself.
            name: The device's own by default.
            **overrides: Fields of `Target` that the backend does not say, or says wrongly.

        Raises:
            TargetError: It says nothing of itself, has no two-qubit gate that Qiskit names, or numbers its nodes in
                more than one dimension.
        """
        from qcascade.targets.pytket import from_pytket

        return from_pytket(backend, name=name, **overrides)

    @classmethod
    def from_json(cls, source: str | Path) -> Target:
        """The target of a JSON file or text, as `to_json` writes it.

        Raises:
            TargetError: It is no valid target; the message names the field.
        """
        from qcascade.targets.document import from_json

        return from_json(source)

    def to_json(self, indent: int | None = None) -> str:
        """The whole target as JSON."""
        from qcascade.targets.document import to_json

        return to_json(self, indent)


def _check(target: Target) -> None:
    here = f"target {target.name!r}"
    if not target.name:
        raise TargetError("a target's name is empty; give it one.")
    if target.qubits is not None and target.qubits < 1:
        raise TargetError(f"{here} has {target.qubits} qubits; at least 1 is needed.")
    if len(target.properties) not in (0, target.qubits):
        raise TargetError(
            f"{here} has {target.qubits} qubits and {len(target.properties)} entries of properties; "
            "give one a qubit, or none."
        )
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for gate in target.gates:
        if not gate.name:
            raise TargetError(f"{here}: the gate on {gate.qubits} has no name; give Qiskit's.")
        if target.qubits is None or not all(0 <= q < target.qubits for q in gate.qubits):
            raise TargetError(f"{here}: gate {gate.name} is on {gate.qubits}, of {target.qubits} qubits.")
        if len(set(gate.qubits)) < len(gate.qubits) or not gate.qubits:
            raise TargetError(f"{here}: gate {gate.name} is on {gate.qubits}; name each qubit once.")
        if (gate.name, gate.qubits) in seen:
            raise TargetError(f"{here}: gate {gate.name} on {gate.qubits} is listed twice; list it once.")
        seen.add((gate.name, gate.qubits))
        _in_range(target, f"the error of {gate.name} on {gate.qubits}", gate.error, 1.0)
        _in_range(target, f"the seconds of {gate.name} on {gate.qubits}", gate.seconds)
    for edge in target.dead_edges:
        if target.qubits is None or not 0 <= edge[0] < edge[1] < target.qubits:
            raise TargetError(f"{here}: dead_edges names {edge}; two of its {target.qubits} qubits, smaller first.")
    for qubit, entry in enumerate(target.properties):
        _in_range(target, f"readout_error of qubit {qubit}", entry.readout_error, 1.0)
        for what in ("readout_seconds", "t1", "t2"):
            _in_range(target, f"{what} of qubit {qubit}", getattr(entry, what))
    for what in ("shot_overhead", "job_overhead"):
        _in_range(target, what, getattr(target, what))
    if target.parallel_two_qubit_gates is not None and target.parallel_two_qubit_gates < 1:
        raise TargetError(
            f"{here}: parallel_two_qubit_gates is {target.parallel_two_qubit_gates}; a number from 1 is accepted, or null."
        )
    if target.price is not None:
        if not target.price.currency:
            raise TargetError(f"{here}: the price has no currency; name it, as in USD.")
        for entry_field in fields(Price):
            if entry_field.name.startswith("per_"):
                value = getattr(target.price, entry_field.name)
                _in_range(target, f"{entry_field.name} of the price", value, None, "a finite number from 0")
    _check_day(target)


def _check_day(target: Target) -> None:
    try:
        if target.calibrated is not None:
            date.fromisoformat(target.calibrated)
    except ValueError as error:
        raise TargetError(
            f"target {target.name!r}: calibrated is {target.calibrated!r}; a day as in 2026-11-21 is accepted, or null."
        ) from error


def _in_range(
    target: Target, what: str, value: float | None, most: float | None = None, accepted: str | None = None
) -> None:
    if value is None or (math.isfinite(value) and 0 <= value <= (math.inf if most is None else most)):
        return
    accepted = accepted or ("a finite number of seconds" if most is None else f"a number from 0 to {most:g}")
    raise TargetError(f"target {target.name!r}: {what} is {value}; {accepted} is accepted, or null.")


def _pairs(gates: Iterable[Gate]) -> set[tuple[int, int]]:
    return {(min(gate.qubits), max(gate.qubits)) for gate in gates if len(gate.qubits) == 2}


def _rotated(gates: Iterable[Gate]) -> set[int]:
    return {gate.qubits[0] for gate in gates if len(gate.qubits) == 1 and gate.name not in _DIAGONAL}


def _alive(target: Target) -> tuple[Gate, ...]:
    """The gates worth using: of qubits that can be read and rotated, with a reported error below 0.5 both ways."""
    readouts = [entry.readout_error for entry in target.properties]
    read_elsewhere = any(error is not None for error in readouts)
    dead = {q for q, error in enumerate(readouts) if (read_elsewhere if error is None else error >= DEAD_ERROR)}
    reported = {gate.name if len(gate.qubits) == 1 else "" for gate in target.gates if gate.error is not None}
    broken: set[tuple[str, frozenset[int]]] = set()
    for gate in target.gates:
        kind = gate.name if len(gate.qubits) == 1 else ""
        if kind in reported if gate.error is None else gate.error >= DEAD_ERROR:
            broken.add((gate.name, frozenset(gate.qubits)))
            if len(gate.qubits) == 1:
                dead.update(gate.qubits)
    dead |= set(range(target.qubits or 0)) - _rotated(target.gates)
    return tuple(
        gate
        for gate in target.gates
        if dead.isdisjoint(gate.qubits) and (gate.name, frozenset(gate.qubits)) not in broken
    )


def places_on(name: str, places: Iterable[tuple[int, ...]], error: float | None, seconds: float | None) -> list[Gate]:
    """The same gate at many places.

    Example:
        >>> len(places_on("cz", [(0, 1), (1, 2)], 1e-3, 5e-8))
        2
    """
    return [Gate(name, place, error, seconds) for place in places]
