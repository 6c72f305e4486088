"""A target's noise for Aer: an error on every gate and every wait, and wrong readings.

A gate's error is thermal relaxation of its qubits over its duration, where T1, T2 and the duration are known, after a
depolarising channel, together of exactly the average infidelity that the target reports; where relaxation alone would
exceed the report, the report is believed and the relaxation is shortened. A wait is thermal relaxation alone: it is an
``id`` with a label of its own, which the noise model knows. Readings flip with the readout error, both ways alike.

What comes in: circuits of native gates whose qubit i is the target's qubit i; Parameters may be free. What goes out: the same
circuits scheduled as late as possible, on the qubits that they use and no other, with the noise model of those. They are
bound and run by Aer as they are: transpiling them would take the gates away that the noise is tied to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TypeAlias

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction
from qiskit.circuit.library import IGate
from qiskit_aer.noise import NoiseModel, QuantumError, ReadoutError, depolarizing_error, thermal_relaxation_error
from qiskit_aer.noise.noise_model import AerJSONEncoder
from scipy.optimize import brentq

from qcascade.errors import ExecutionError
from qcascade.routing.fidelity import find_gate, is_virtual, relaxation_fidelity
from qcascade.routing.names import DIAGONAL, SYMMETRIC
from qcascade.routing.schedule import before_the_end, idle_times
from qcascade.targets import Target

_LEAST = (
    1e-15  # error of a gate reported as perfect: Aer forgets errors that are nothing, and the gate would be unknown
)
_SILENT = {"measure", "barrier", "delay"}
_Rates: TypeAlias = tuple[float, float]  # T1 and T2 in seconds
_Placed: TypeAlias = tuple[CircuitInstruction, tuple[int, ...]]  # with the target's qubits


@dataclass(frozen=True, slots=True)
class _Wait:
    node: int
    picoseconds: int

    @property
    def seconds(self) -> float:
        return self.picoseconds * 1e-12

    @property
    def label(self) -> str:
        return f"wait_{self.node}_{self.picoseconds}ps"


@dataclass(frozen=True, slots=True, eq=False)
class NoisyCircuits:
    """Circuits as Aer is to run them.

    Each of `circuits` is on len(nodes) qubits, qubit k standing for the target's qubit `nodes[k]`, with the classical
    bits, measurements and Parameters that it came with and a labelled ``id`` for every wait. One `noise_model` serves them all.
    """

    circuits: tuple[QuantumCircuit, ...]
    noise_model: NoiseModel
    nodes: tuple[int, ...]


def prepare(circuits: Sequence[QuantumCircuit], target: Target) -> NoisyCircuits:
    """Schedule circuits, drop the qubits that none of them uses, and make the noise model for what is left.

    Args:
        circuits: Native gates on the target's qubits: qubit i is node i. Measurements come last on their qubits.
        target: The target they were compiled for.

    Raises:
        ExecutionError: The target has no errors or durations to simulate, a gate is not one of its native gates or has no
            reported error, or a qubit is used after its measurement.

    Example:
        >>> from qcascade.targets import Gate, QubitProperties
        >>> gates = [Gate("sx", (q,), 1e-3, 3e-8) for q in range(3)] + [Gate("cz", (1, 2), 1e-2, 7e-8)]
        >>> target = Target("three", "three qubits", 3, tuple(gates), (QubitProperties(0.02, 1e-6, 1e-4, 1e-4),) * 3)
        >>> circuit = QuantumCircuit(3, 2)
        >>> circuit.sx(1); circuit.cz(1, 2); circuit.sx(2); circuit.measure([1, 2], [0, 1])  # doctest: +ELLIPSIS
        <...>
        >>> prepared = prepare([circuit], target)
        >>> prepared.nodes, dict(prepared.circuits[0].count_ops())
        ((1, 2), {'sx': 2, 'measure': 2, 'cz': 1, 'id': 1})
    """
    placed = [_placed(circuit, target) for circuit in circuits]
    nodes = tuple(sorted({node for instructions in placed for _, place in instructions for node in place}))
    model = noise_model(target, nodes)
    waits = [_waits(instructions, target) for instructions in placed]
    for wait in {wait for found in waits for _, wait in found}:
        rates = _rates(target, wait.node)
        assert rates is not None
        model.add_quantum_error(_relaxation(rates, wait.seconds), wait.label, [nodes.index(wait.node)])
    made = tuple(map(_rebuilt, circuits, placed, waits, [nodes] * len(placed)))
    return NoisyCircuits(made, model, nodes)


def noise_model(target: Target, nodes: Sequence[int] | None = None) -> NoiseModel:
    """The noise of a target's gates and readout.

    Args:
        target: A target whose errors are known.
        nodes: The qubits to keep, the model's qubit k being the target's `nodes[k]`; None keeps all as they are.

    Raises:
        ExecutionError: The target reports no gate errors.

    Example:
        >>> from qcascade.targets import Gate
        >>> gates = (Gate("sx", (0,), 1e-3), Gate("sx", (1,), 1e-3), Gate("cz", (0, 1), 1e-2))
        >>> sorted(noise_model(Target("pair", "two qubits", 2, gates)).noise_instructions)
        ['cz', 'sx']
    """
    if not target.calibrated_gates:
        raise ExecutionError(
            f"target {target.name!r} reports no gate errors, so there is no noise to simulate; choose a calibrated target, "
            "or run with use('shots')."
        )
    place = {node: number for number, node in enumerate(range(target.qubits or 0) if nodes is None else nodes)}
    model = NoiseModel(basis_gates=[*target.operations, "id"])
    for gate in target.gates:
        if gate.error is None or is_virtual(gate) or not all(qubit in place for qubit in gate.qubits):
            continue
        directions = [gate.qubits]
        if gate.name in SYMMETRIC and (gate.name, gate.qubits[::-1]) not in target.places:
            directions.append(gate.qubits[::-1])
        for qubits in directions:
            error = _gate_error(max(gate.error, _LEAST), gate.seconds, tuple(_rates(target, qubit) for qubit in qubits))
            model.add_quantum_error(error, gate.name, [place[qubit] for qubit in qubits])
    for node, number in place.items():
        wrong = target.properties[node].readout_error if target.properties else None
        if wrong:
            model.add_readout_error(ReadoutError([[1 - wrong, wrong], [wrong, 1 - wrong]]), [number])
    return model


def noise_digest(noise_model: NoiseModel, *more: object) -> str:
    """Of a noise model's content, and of what else has a part in the noise: equal in every process.

    Example:
        >>> one, other = (NoiseModel(), NoiseModel())
        >>> one.add_all_qubit_readout_error(ReadoutError([[0.9, 0.1], [0.1, 0.9]]))
        >>> other.add_all_qubit_readout_error(ReadoutError([[0.8, 0.2], [0.2, 0.8]]))
        >>> noise_digest(one) == noise_digest(one) != noise_digest(other)
        True
    """
    errors = noise_model.to_dict()["errors"]
    for error in errors:
        error.pop("id", None)  # drawn anew for every error
    content = sorted(
        json.dumps(error, cls=AerJSONEncoder, sort_keys=True) for error in errors
    )  # in whatever order they were added
    return hashlib.blake2b(repr((content, more)).encode(), digest_size=8).hexdigest()


def check_noisy_gates(circuit: QuantumCircuit, noise_model: NoiseModel) -> None:
    """See that a noise model knows the gates of a circuit, without which they would run free of noise in silence.

    Changes of frame (rz and other diagonal gates on one qubit), waits, barriers and measurements may go without.

    Raises:
        ExecutionError: Some are unknown; the message names them.

    Example:
        >>> from qcascade.targets import Gate
        >>> gates = (Gate("sx", (0,), 1e-3), Gate("sx", (1,), 1e-3), Gate("cz", (0, 1), 1e-2))
        >>> circuit = QuantumCircuit(2)
        >>> circuit.cx(0, 1)  # doctest: +ELLIPSIS
        <...>
        >>> check_noisy_gates(circuit, noise_model(Target("pair", "two qubits", 2, gates)))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        qcascade.errors.ExecutionError: the noise model has no noise for cx (it knows cz, sx), ...
    """
    known = set(noise_model.noise_instructions)
    names = {i.operation.label if i.operation.label in known else i.operation.name for i in circuit.data}
    if unknown := sorted(names - known - DIAGONAL - _SILENT):
        raise ExecutionError(
            f"the noise model has no noise for {', '.join(unknown)} (it knows {', '.join(sorted(known))}), so they would run "
            "as if they were perfect. Compile the circuit to the target's native gates and run it without transpiling again."
        )


def _placed(circuit: QuantumCircuit, target: Target) -> list[_Placed]:
    """The instructions with their nodes, barriers and delays left out, all of them seen to be possible."""
    placed: list[_Placed] = []
    read: set[int] = set()
    for instruction in circuit.data:
        name = instruction.operation.name
        place = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
        if name in ("barrier", "delay"):
            continue
        if read.intersection(place):
            raise ExecutionError(
                f"{name} on {place} comes after a measurement there; measure at the end of the circuit."
            )
        placed.append((instruction, place))
        if name == "measure":
            read.update(place)
            continue
        gate = find_gate(target, name, place)
        if gate is None or (gate.error is None and not is_virtual(gate)):
            problem = "is no native gate" if gate is None else "has no reported error"
            raise ExecutionError(
                f"{name} on {place} {problem} of target {target.name!r} ({', '.join(target.operations)}, on its edges), so its "
                "noise is not known; compile the circuit for a calibrated target first."
            )
    return placed


def _waits(placed: Sequence[_Placed], target: Target) -> list[tuple[int, _Wait]]:
    """Waits with the number of the instruction that each follows; none where a duration is not known."""
    gates = [(k, place, find_gate(target, i.operation.name, place)) for k, (i, place) in enumerate(placed)]
    timed = [(k, place, gate.seconds) for k, place, gate in gates if gate is not None and not is_virtual(gate)]
    places, seconds = [place for _, place, _ in timed], [s for _, _, s in timed if s is not None]
    if len(seconds) < len(timed):
        return []
    starts = before_the_end(places, seconds, target.parallel_two_qubit_gates)
    read = {place[0] for instruction, place in placed if instruction.operation.name == "measure"}
    return [
        (timed[gate][0], _Wait(node, round(wait * 1e12)))
        for gate, node, wait in idle_times(places, seconds, starts, read)
        if _rates(target, node) is not None
    ]


def _rebuilt(
    circuit: QuantumCircuit, placed: Sequence[_Placed], waits: Sequence[tuple[int, _Wait]], nodes: tuple[int, ...]
) -> QuantumCircuit:
    """The circuit on `nodes` alone, with its waits."""
    made = QuantumCircuit(len(nodes), name=circuit.name, global_phase=circuit.global_phase)
    made.add_bits(circuit.clbits)
    for register in circuit.cregs:
        made.add_register(register)
    number = {node: k for k, node in enumerate(nodes)}
    following: dict[int, list[_Wait]] = {}
    for position, wait in waits:
        following.setdefault(position, []).append(wait)
    for position, (instruction, place) in enumerate(placed):
        made.append(instruction.operation, [number[node] for node in place], instruction.clbits)
        for wait in following.get(position, ()):
            made.append(IGate(label=wait.label), [number[wait.node]])
    return made


def _rates(target: Target, node: int) -> _Rates | None:
    """T1 and T2 of a qubit, T2 at most 2 T1; None where either is not known."""
    entry = target.properties[node] if target.properties else None
    return (entry.t1, min(entry.t2, 2 * entry.t1)) if entry is not None and entry.t1 and entry.t2 else None


def _relaxation(rates: _Rates, seconds: float) -> QuantumError:
    return thermal_relaxation_error(*rates, seconds)


@lru_cache(maxsize=4096)
def _gate_error(error: float, seconds: float | None, rates: tuple[_Rates | None, ...]) -> QuantumError:
    """The error of a gate whose average infidelity is `error`, with qubits of these rates."""
    dimension = 2 ** len(rates)
    kept = max(1 - min(error, dimension / (dimension + 1)) * (dimension + 1) / dimension, 0.0)  # process fidelity

    def relaxed(time: float) -> float:
        return float(np.prod([relaxation_fidelity(*map(np.array, (time, *r))) for r in rates if r is not None]))

    time = seconds or 0.0
    if relaxed(time) < kept:
        time = float(brentq(lambda t: relaxed(t) - kept, 0.0, time, xtol=1e-18))
    survives = relaxed(time)
    # a fully depolarised state has process fidelity 1/d², which relaxation after it does not change
    strength = max((survives - kept) / (survives - dimension**-2), 0.0)
    total = depolarizing_error(strength, len(rates))
    for qubit, rate in enumerate(rates):
        if rate is not None and time > 0:
            others = QuantumError([(IGate(), 1.0)])
            parts = [_relaxation(rate, time) if k == qubit else others for k in range(len(rates))]
            total = total.compose(reduce(lambda low, high: low.expand(high), parts))
    return total
