"""Predictions against Qiskit's figures, against Aer's density matrix, and against laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit, Node, OpType
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import quantum_volume
from qiskit.quantum_info import DensityMatrix, Statevector, SuperOp, average_gate_fidelity, state_fidelity
from qiskit_aer import AerSimulator
from qiskit_aer.noise import thermal_relaxation_error
from sympy import Symbol

from qcascade.errors import CircuitError
from qcascade.executors.noise import prepare
from qcascade.routing.fidelity import predict, predict_gates
from qcascade.routing.names import NAMES, Placed, placed_gates
from qcascade.routing.schedule import before_the_end, idle_times
from qcascade.targets import Gate, QubitProperties, Target


def listed(circuit: QuantumCircuit) -> list[Placed]:
    return [
        (i.operation.name, tuple(circuit.find_bit(q).index for q in i.qubits))
        for i in circuit.data
        if i.operation.name not in ("measure", "barrier")
    ]


def native(gates: list[Placed]) -> Circuit:
    """In pytket, on nodes."""
    kinds = {"rz": OpType.Rz, "sx": OpType.SX, "x": OpType.X, "cz": OpType.CZ}
    circuit = Circuit()
    for qubit in sorted({q for _, qubits in gates for q in qubits}):
        circuit.add_qubit(Node(qubit))
    for number, (name, qubits) in enumerate(gates):
        parameters = [Symbol(f"a{number}")] if name == "rz" else []
        circuit.add_gate(kinds[name], parameters, [Node(q) for q in qubits])
    return circuit


def small(t1: float | None = 1e-4, parallel: int | None = None, qubits: int = 3, error: float = 1e-2) -> Target:
    gates = [Gate("rz", (q,)) for q in range(qubits)]
    gates += [Gate("sx", (q,), error / 10, 5e-8) for q in range(qubits)]
    gates += [Gate("cz", (q, q + 1), error, 2e-7) for q in range(qubits - 1)]
    properties = (QubitProperties(0.02, 1e-6, t1, t1),) * qubits
    return Target("small", "", qubits, tuple(gates), properties, parallel_two_qubit_gates=parallel)


def test_plain_product_and_duration_agree_with_qiskit(torino: Target) -> None:
    """Factors, undone one by one, are Qiskit's own errors; the critical path is Qiskit's estimate."""
    circuit = quantum_volume(5, seed=1).decompose()
    circuit.measure_all()
    device = torino.to_qiskit()
    compiled = transpile(circuit, target=device, optimization_level=1, seed_transpiler=3)
    gates = listed(compiled)
    read = [compiled.find_bit(i.qubits[0]).index for i in compiled.data if i.operation.name == "measure"]
    found = predict(native(gates), torino, read)
    errors = [(device[name][qubits].error, len(qubits)) for name, qubits in gates]
    bounds = [math.prod(1 - e * scale[n - 1] for e, n in errors) for scale in ((1.0, 1.0), (1.5, 1.25))]
    assert bounds[1] < found.gates < bounds[0]  # between all errors counted in their own dimension and in a large one
    assert found.gates == pytest.approx(bounds[1], rel=0.05)
    assert found.readout == pytest.approx(math.prod(1 - device["measure"][(q,)].error for q in read))
    waiting = max(torino.properties[q].readout_seconds for q in read)
    assert found.duration - waiting == pytest.approx(compiled.estimate_duration(device, "s") - waiting, rel=1e-6)
    assert found.fidelity == pytest.approx(found.gates * found.readout * found.idle)
    other = predict_gates(gates, torino, map(Node, read))  # the same gates in another order
    assert (other.gates, other.idle, other.duration) == pytest.approx((found.gates, found.idle, found.duration))


def test_one_gate_counts_its_own_error() -> None:
    found = predict_gates([("sx", (0,)), ("cz", (1, 2))], small(t1=None), [])
    assert found.gates == pytest.approx((1 - 1e-3) * (1 - 1e-2))


def test_a_gate_among_entangled_qubits_counts_more() -> None:
    """Average fidelity over all states of D dimensions, for a depolarising error: 1 − ε (d+1)/d D/(D+1)."""
    found = predict_gates(
        [("cz", (0, 1)), ("cz", (1, 2)), ("sx", (0,))], small(t1=None), []
    )  # the last has seen qubit 1
    expected = (1 - 1e-2) * (1 - 1e-2 * 5 / 4 * 8 / 9) * (1 - 1e-3 * 3 / 2 * 4 / 5)
    assert found.gates == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([("sx", (0,)), ("sx", (1,)), ("sx", (2,)), ("sx", (3,)), ("cz", (0, 1)), ("cz", (1, 2)),
                                 ("cz", (2, 3))]), min_size=1, max_size=25), st.sampled_from([None, 1, 2]))  # fmt: skip
def test_schedules_are_possible_and_late(gates: list[Placed], parallel: int | None) -> None:
    """No qubit is in two gates at once, no more two-qubit gates run than may, order is kept, and gates plus waits fill time."""
    places = [place for _, place in gates]
    seconds = [1.0 if len(place) == 1 else 3.0 for place in places]
    starts = before_the_end(places, seconds, parallel)
    spans = [(-s, -s + t) for s, t in zip(starts, seconds, strict=True)]
    for k, (begin, end) in enumerate(spans):
        assert end <= 1e-12
        for later in range(k + 1, len(spans)):
            if set(places[k]) & set(places[later]):
                assert end <= spans[later][0] + 1e-12
        if parallel and len(places[k]) == 2:
            at_once = sum(b <= begin < e for (b, e), place in zip(spans, places, strict=True) if len(place) == 2)
            assert at_once <= parallel
    waits = idle_times(places, seconds, starts)
    for qubit in {q for place in places for q in place}:
        mine = [k for k, place in enumerate(places) if qubit in place]
        idle = sum(t for _, q, t in waits if q == qubit)
        assert idle + sum(seconds[k] for k in mine) == pytest.approx(max(starts[k] for k in mine))


@pytest.mark.parametrize("others", [0, 1, 2])
def test_waits_decay_as_in_aer(others: int) -> None:
    """The average over all states of the waiting qubit and those it is entangled with, of Aer's own relaxation."""
    steps: list[list[Placed]] = [[("sx", (1,))], [("cz", (1, 2))], [("cz", (0, 1)), ("cz", (1, 2))]]
    found = predict_gates([*steps[others], *[("cz", (2, 3))] * 20, ("cz", (1, 2))], small(error=1e-9, qubits=4), [1])
    if not others:
        assert found.idle == 1  # nothing but |0⟩ waits: the pulse is laid right before the gate
        return
    channel = SuperOp(thermal_relaxation_error(1e-4, 1e-4, 20 * 2e-7)).expand(SuperOp(np.eye(4**others)))
    assert found.idle == pytest.approx(average_gate_fidelity(channel), rel=1e-9)


def simulated(circuit: QuantumCircuit, target: Target) -> float:
    prepared = prepare([circuit], target)
    ran = prepared.circuits[0]
    ideal = Statevector(ran)
    ran.save_density_matrix()
    simulator = AerSimulator(method="density_matrix", noise_model=prepared.noise_model)
    return float(state_fidelity(DensityMatrix(simulator.run(ran).result().data()["density_matrix"]), ideal))


def test_entangling_circuits_come_out_as_predicted(torino: Target) -> None:
    for qubits, seed in ((3, 0), (5, 1)):
        circuit = quantum_volume(qubits, seed=seed).decompose()
        compiled = transpile(circuit, target=torino.to_qiskit(), optimization_level=3, seed_transpiler=seed)
        read = sorted({q for _, place in listed(compiled) for q in place})
        found = predict_gates(listed(compiled), torino, read)
        assert found.gates * found.idle == pytest.approx(simulated(compiled, torino), abs=0.02)


def test_missing_figures_make_their_factor_unknown() -> None:
    gates: list[Placed] = [("sx", (0,)), ("cz", (0, 1)), ("cz", (1, 2)), ("cz", (1, 2)), ("cz", (0, 1))]
    whole = predict_gates(gates, small(), [0])
    without = predict_gates(gates, small(t1=None), [0])
    assert whole.idle < 1
    assert without.idle is None
    assert without.fidelity == pytest.approx(without.gates * without.readout)
    planned = tuple(Gate(g.name, g.qubits) for g in small().gates)
    nothing = predict_gates(gates, Target("plan", "", 3, planned), [0])
    assert (nothing.fidelity, nothing.gates, nothing.readout, nothing.idle, nothing.duration) == (None,) * 5
    ideal = predict(Circuit(), Target("ideal", "no limits"), [0])
    assert ideal.fidelity is ideal.gates is ideal.duration is None
    untimed = tuple(Gate(g.name, g.qubits, g.error) for g in small().gates)
    known = predict_gates(gates, Target("untimed", "", 3, untimed, small().properties), [0])
    assert (known.idle, known.duration) == (None, None)
    assert known.fidelity == pytest.approx(whole.gates * whole.readout)


def test_limited_two_qubit_gates_take_longer() -> None:
    gates: list[Placed] = [("cz", (0, 1)), ("cz", (2, 3))]
    durations = [predict_gates(gates, small(parallel=p, qubits=4), [0]).duration for p in (None, 1)]
    assert durations == pytest.approx([1.2e-6, 1.4e-6])


def test_circuits_of_other_gates_are_refused() -> None:
    with pytest.raises(CircuitError, match=r"cx on \(0, 1\) is no native gate of target 'small'"):
        predict_gates([("cx", (0, 1))], small(), [])
    with pytest.raises(CircuitError, match=r"cz on \(0, 2\)"):
        predict_gates([("cz", (0, 2))], small(), [])
    with pytest.raises(CircuitError, match="cannot be measured"):
        predict_gates([], small(), [7])
    box = Circuit()
    box.add_qubit(Node(0))
    box.add_gate(OpType.TK1, [0.1, 0.2, 0.3], [Node(0)])
    with pytest.raises(CircuitError, match="TK1"):
        placed_gates(box)


def test_names_are_qiskits() -> None:
    """Every entry of the table: the two libraries' gates of these names have the same unitary up to phase."""
    from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping

    standard = get_standard_gate_name_mapping()
    for kind, name in NAMES.items():
        gate = standard[name]
        halves = [0.23, 0.41, 0.17][: 0 if kind == OpType.ZZMax else len(gate.params)]
        qubits = gate.num_qubits
        circuit = Circuit(qubits).add_gate(kind, halves, list(range(qubits)))
        angles = [math.pi / 2] if kind == OpType.ZZMax else [math.pi * h for h in halves]
        theirs = type(gate)(*angles).to_matrix()
        ours = circuit.get_unitary()
        if qubits == 2:  # Qiskit's first qubit is the least significant
            swap = np.eye(4)[[0, 2, 1, 3]]
            ours = swap @ ours @ swap
        assert abs(np.trace(ours.conj().T @ theirs)) == pytest.approx(2**qubits), name
