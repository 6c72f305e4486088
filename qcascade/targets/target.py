"""What a target is: qubits, native gates with error and duration at every place, readout, decoherence, overheads, price.

Gates go by Qiskit's names ("cz", "ecr", "rzz", "sx", "r", "rz", …). Errors are average gate infidelities 1 − F, times
are seconds. What is not known is None. What is dead is removed at the door: in a calibrated target, gates whose error is
0.5 or more or is not reported, in either direction, and qubits that cannot be read or rotated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from qcascade.errors import TargetError

if TYPE_CHECKING:
    from qiskit.transpiler import Target as QiskitTarget

DEAD_ERROR = 0.5  # from here on a gate or a readout carries nothing


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
    """What running costs, in `currency`; gate and measurement prices are per gate and shot."""

    currency: str
    per_job: float = 0.0
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
        gates: Native gates by place; dead ones are removed.
        properties: One entry a qubit.
        shot_overhead: Seconds of a shot beside its gates and readout (reset, delay between shots).
        job_overhead: Seconds of a submission beside its shots (compilation, transfer), queueing left out.
        parallel_two_qubit_gates: Two-qubit gates that run at once; None: all that share no qubit.
        price: None where it is not known.
        calibrated: Day of the calibration, ISO 8601.
        source: Where the figures are from.

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

    def __post_init__(self) -> None:
        _check(self)
        if self.calibrated_gates:
            object.__setattr__(self, "gates", _alive(self))
            if self.qubits is not None and not self.nodes:
                raise TargetError(
                    f"target {self.name!r} has no usable qubit: every one is dead. Check its calibration."
                )

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
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs of qubits, smaller first, that a two-qubit gate joins."""
        return tuple(sorted({(min(g.qubits), max(g.qubits)) for g in self.gates if len(g.qubits) == 2}))

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """Qubits that can be rotated."""
        return tuple(sorted({gate.qubits[0] for gate in self.gates if len(gate.qubits) == 1}))

    @cached_property
    def graph(self) -> nx.Graph:
        """Usable qubits and edges; an edge's `error` is its best two-qubit gate's, None where unknown."""
        graph = nx.Graph()
        graph.add_nodes_from(self.nodes)
        for edge in self.edges:
            found = [g.error for g in self.gates if g.error is not None and tuple(sorted(g.qubits)) == edge]
            graph.add_edge(*edge, error=min(found, default=None))
        return graph

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

        Raises:
            TargetError: It has no qubits or no two-qubit gates.
        """
        from qcascade.targets.qiskit import from_qiskit

        return from_qiskit(backend, name=name, **overrides)

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
    if target.qubits is not None and target.qubits < 1:
        raise TargetError(f"target {target.name!r} has {target.qubits} qubits; at least 1 is needed.")
    if target.qubits is not None and len(target.properties) not in (0, target.qubits):
        raise TargetError(
            f"target {target.name!r} has {target.qubits} qubits and {len(target.properties)} entries of properties; "
            "give one a qubit, or none."
        )
    for gate in target.gates:
        if target.qubits is None or not all(0 <= q < target.qubits for q in gate.qubits):
            raise TargetError(
                f"target {target.name!r}: gate {gate.name} is on {gate.qubits}, of {target.qubits} qubits."
            )
        if len(set(gate.qubits)) < len(gate.qubits) or not gate.qubits:
            raise TargetError(f"target {target.name!r}: gate {gate.name} is on {gate.qubits}; name each qubit once.")
        _in_range(target, f"the error of {gate.name} on {gate.qubits}", gate.error, 1.0)
        _in_range(target, f"the duration of {gate.name} on {gate.qubits}", gate.seconds, None)
    for qubit, entry in enumerate(target.properties):
        _in_range(target, f"the readout error of qubit {qubit}", entry.readout_error, 1.0)
        for what in ("readout_seconds", "t1", "t2"):
            _in_range(target, f"{what} of qubit {qubit}", getattr(entry, what), None)


def _in_range(target: Target, what: str, value: float | None, most: float | None) -> None:
    if value is not None and not (value >= 0 and (most is None or value <= most) and value < float("inf")):
        accepted = "a finite number of seconds" if most is None else f"a number from 0 to {most:g}"
        raise TargetError(f"target {target.name!r}: {what} is {value}; {accepted} is accepted, or null.")


def _alive(target: Target) -> tuple[Gate, ...]:
    """The gates worth using: of qubits that can be read and rotated, with a reported error below 0.5 both ways."""
    dead = {
        q
        for q, entry in enumerate(target.properties)
        if entry.readout_error is not None and entry.readout_error >= DEAD_ERROR
    }
    broken: set[tuple[str, frozenset[int]]] = set()
    for gate in target.gates:
        unreported = gate.error is None and not (len(gate.qubits) == 1 and not gate.seconds)  # rz is a change of frame
        if unreported or (gate.error is not None and gate.error >= DEAD_ERROR):
            broken.add((gate.name, frozenset(gate.qubits)))
            if len(gate.qubits) == 1:
                dead.update(gate.qubits)
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
