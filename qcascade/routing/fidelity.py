"""What a compiled circuit will come to on a target: fidelity and duration, from the target's figures alone.

What comes in: a circuit of native gates on nodes (`Node(i)` is the target's qubit i), its angles free or bound: they do
not matter. What goes out: the expected fidelity ⟨ψ|ρ|ψ⟩ of the final state times the probability of reading every
measured qubit right, and the parts that it is made of.

A gate's calibrated error is the average infidelity ε over states of its own d = 2^k dimensions. By the time it runs its
qubits are entangled with others, and the infidelity averaged over states of all D dimensions that they are entangled
with is larger, by the relation of average to process fidelity (Nielsen, Phys. Lett. A 303, 249 (2002), used at d and at D):

    1 − F_process = ε (d + 1)/d,        q = (1 − F_process) D/(D + 1).

Waiting for t seconds is thermal relaxation, whose process fidelity is (1 + exp(−t/T1) + 2 exp(−t/T2))/4; a qubit before
its first gate is in |0⟩ and does not decay. D = 2^m counts the m qubits in the causal past: what others do among
themselves changes nothing in a qubit's entanglement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pytket.circuit import Circuit, Node

from qcascade.errors import CircuitError
from qcascade.routing.names import DIAGONAL, SYMMETRIC, Placed, placed_gates
from qcascade.routing.schedule import before_the_end, idle_times
from qcascade.targets import Gate, Target


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a circuit will come to.

    `fidelity` is gates × readout, × idle where that is known, each a probability: that no gate errs, that every
    measured qubit is read right, that no waiting qubit decoheres. A factor is None where a figure it needs is not known
    (one gate's error is enough); `fidelity` is None where `gates` or `readout` is, and leaves `idle` out where only that
    is None, which many a target is without. `duration` is the critical path in seconds with the readout, None where a
    gate's time or the readout's is not known.
    """

    fidelity: float | None
    gates: float | None
    readout: float | None
    idle: float | None
    duration: float | None


def predict(circuit: Circuit, target: Target, measured: Iterable[int | Node]) -> Prediction:
    """What a compiled circuit will come to on its target.

    Args:
        circuit: Native gates on `Node(i)`; symbols may be free.
        target: The target it was compiled for.
        measured: Nodes that are read, as such or by number.

    Raises:
        CircuitError: A gate is not native to the target at its place.

    Example:
        >>> from qcascade.targets import QubitProperties
        >>> gates = (Gate("sx", (0,), 1e-3), Gate("sx", (1,), 1e-3), Gate("cz", (0, 1), 1e-2))
        >>> target = Target("pair", "two qubits", 2, gates, (QubitProperties(0.02),) * 2)
        >>> circuit = Circuit()
        >>> circuit.add_qubit(Node(0)); circuit.add_qubit(Node(1))
        >>> predict(circuit.SX(Node(0)).CZ(Node(0), Node(1)), target, [0]).readout
        0.98
    """
    return predict_gates(placed_gates(circuit), target, measured)


def predict_gates(gates: Sequence[Placed], target: Target, measured: Iterable[int | Node]) -> Prediction:
    """`predict` for gates given as (Qiskit's name, device qubits), in circuit order."""
    nodes = tuple(dict.fromkeys(n if isinstance(n, int) else int(n.index[0]) for n in measured))
    _check_readable(nodes, target)
    readout = _readout(nodes, target)
    if not target.gates:
        return Prediction(None, None, readout, None, None)
    places, errors, seconds = _look_up(gates, target)
    dimensions = _entangled_dimensions(places)
    worked = _gates(places, errors, dimensions)
    idle, duration = None, None
    if (times := _all_known(seconds)) is not None:
        starts = before_the_end(places, times, target.parallel_two_qubit_gates)
        idle = _idle(idle_times(places, times, starts, nodes), dimensions, target)
        if (reading := _all_known(_property(nodes, target, "readout_seconds"))) is not None:
            duration = max(starts, default=0.0) + max(reading, default=0.0)
    fidelity = None if worked is None or readout is None else worked * readout * (1.0 if idle is None else idle)
    return Prediction(fidelity, worked, readout, idle, duration)


def find_gate(target: Target, name: str, qubits: tuple[int, ...]) -> Gate | None:
    """The target's gate at a place, either way round where the gate is symmetric."""
    found = target.places.get((name, qubits))
    if found is None and name in SYMMETRIC:
        found = target.places.get((name, qubits[::-1]))
    return found


def is_virtual(gate: Gate) -> bool:
    """Whether a gate is only a change of frame: it takes no time and cannot err."""
    return gate.name in DIAGONAL and not gate.seconds and not gate.error


def _look_up(
    gates: Sequence[Placed], target: Target
) -> tuple[list[tuple[int, ...]], list[float | None], list[float | None]]:
    """Places, errors and seconds of all gates that are more than a change of frame."""
    known: dict[Placed, Gate | None] = {}
    places: list[tuple[int, ...]] = []
    errors: list[float | None] = []
    seconds: list[float | None] = []
    for placed in gates:
        if placed not in known:
            found = find_gate(target, *placed)
            if found is None:
                name, qubits = placed
                raise CircuitError(
                    f"{name} on {qubits} is no native gate of target {target.name!r} "
                    f"({', '.join(target.operations)}, on its edges); compile the circuit for it first."
                )
            known[placed] = None if is_virtual(found) else found
        if (gate := known[placed]) is not None:
            places.append(placed[1])
            errors.append(gate.error)
            seconds.append(gate.seconds)
    return places, errors, seconds


def _entangled_dimensions(places: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
    """2^m for each gate, m the number of qubits that it or a gate before it in its causal past acts on."""
    past: dict[int, int] = {}  # of each qubit, as bits
    joined = np.empty(len(places))
    for number, place in enumerate(places):
        bits = 0
        for qubit in place:
            bits |= past.get(qubit, 1 << qubit)
        for qubit in place:
            past[qubit] = bits
        joined[number] = bits.bit_count()
    return np.asarray(np.exp2(joined))


def _gates(
    places: Sequence[tuple[int, ...]], errors: Sequence[float | None], dimensions: NDArray[np.float64]
) -> float | None:
    known = _all_known(errors)
    if known is None:
        return None
    own = np.exp2([len(place) for place in places])
    infidelity = np.array(known) * (own + 1) / own * dimensions / (dimensions + 1)
    return float(np.prod(np.clip(1 - infidelity, 0.0, 1.0)))


def _idle(waits: Sequence[tuple[int, int, float]], dimensions: NDArray[np.float64], target: Target) -> float | None:
    """The probability that no waiting qubit decoheres."""
    if not waits:
        return 1.0
    if not target.properties:
        return None
    after, qubits, seconds = (np.array(column) for column in zip(*waits, strict=True))
    rates = {int(q): (target.properties[q].t1, target.properties[q].t2) for q in set(qubits.tolist())}
    if any(not t1 or not t2 for t1, t2 in rates.values()):
        return None
    t1, t2 = np.array([rates[int(q)] for q in qubits], dtype=float).T
    joined = dimensions[after]
    infidelity = (1 - relaxation_fidelity(seconds, t1, t2)) * joined / (joined + 1)
    return float(np.prod(1 - infidelity))


def relaxation_fidelity(
    seconds: NDArray[np.float64], t1: NDArray[np.float64], t2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Process fidelity of waiting, (1 + exp(−t/T1) + 2 exp(−t/T2))/4; T2 is at most 2 T1.

    Example:
        >>> round(float(relaxation_fidelity(np.array(1e-6), np.array(1e-4), np.array(1e-4))), 6)
        0.992537
    """
    return np.asarray((1 + np.exp(-seconds / t1) + 2 * np.exp(-seconds / np.minimum(t2, 2 * t1))) / 4)


def _readout(nodes: tuple[int, ...], target: Target) -> float | None:
    errors = _all_known(_property(nodes, target, "readout_error"))
    return None if errors is None else float(np.prod(1 - np.array(errors)))


def _property(nodes: tuple[int, ...], target: Target, name: str) -> list[float | None]:
    return [getattr(target.properties[node], name) if target.properties else None for node in nodes]


def _all_known(figures: Sequence[float | None]) -> list[float] | None:
    known = [figure for figure in figures if figure is not None]
    return known if len(known) == len(figures) else None


def _check_readable(nodes: tuple[int, ...], target: Target) -> None:
    if target.qubits is not None and (wrong := [node for node in nodes if not 0 <= node < target.qubits]):
        raise CircuitError(f"nodes {wrong} cannot be measured: target {target.name!r} has {target.qubits} qubits.")
