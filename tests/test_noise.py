"""Noise models against the target's figures, waiting against T1 and T2, and the trap of gates that the noise does not know."""

from __future__ import annotations

import numpy as np
import pytest
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerBackend, tk_to_qiskit
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.quantum_info import DensityMatrix, average_gate_fidelity
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel
from qiskit_ibm_runtime.fake_provider import FakeTorino

from qcascade.errors import ExecutionError
from qcascade.executors.noise import NoisyCircuits, check_noisy_gates, noise_model, prepare
from qcascade.routing.fidelity import predict_gates
from qcascade.targets import Gate, QubitProperties, Target


def line(qubits: int, *, t1: float | None = 1e-4, t2: float | None = 8e-5, wrong: float = 0.0) -> Target:
    """Neighbours joined by CZ; relaxation alone explains half of the CZ's error."""
    gates = [Gate("rz", (q,), 0.0, 0.0) for q in range(qubits)]
    gates += [Gate("sx", (q,), 5e-4, 3e-8) for q in range(qubits)]
    gates += [Gate("cz", (q, q + 1), 4e-3, 1e-7) for q in range(qubits - 1)]
    return Target("line", "a line", qubits, tuple(gates), (QubitProperties(wrong, 1e-6, t1, t2),) * qubits)


def final(prepared: NoisyCircuits, which: int = 0) -> DensityMatrix:
    circuit = prepared.circuits[which].remove_final_measurements(inplace=False)
    circuit.save_density_matrix()
    simulator = AerSimulator(method="density_matrix", noise_model=prepared.noise_model)
    return DensityMatrix(simulator.run(circuit).result().data()["density_matrix"])


def test_every_gate_errs_as_reported(torino: Target) -> None:
    nodes = (0, 1, 2, 15)
    errors = noise_model(torino, nodes)._local_quantum_errors
    checked = 0
    for name, places in errors.items():
        for (first, *rest), error in places.items():
            place = tuple(nodes[k] for k in (first, *rest))
            reported = torino.places[name, place].error
            assert 1 - average_gate_fidelity(error) == pytest.approx(reported, rel=1e-6)
            checked += 1
    assert checked == 4 * 2 + 3 * 2  # sx and x on four qubits, cz both ways on three edges


@pytest.mark.parametrize("seconds", [None, 1e-8, 1e-7, 1e-5])
def test_gate_error_holds_whatever_its_duration(seconds: float | None) -> None:
    gates = (Gate("sx", (0,), 1e-3, seconds), Gate("sx", (1,), 1e-3, seconds), Gate("ecr", (1, 0), 5e-3, seconds))
    properties = (QubitProperties(t1=1e-4, t2=1.5e-4), QubitProperties(t1=5e-5, t2=2e-4))
    for places in noise_model(Target("pair", "", 2, gates, properties))._local_quantum_errors.values():
        for place, error in places.items():
            expected = 1e-3 if len(place) == 1 else 5e-3
            assert 1 - average_gate_fidelity(error) == pytest.approx(expected, rel=1e-6)


def test_symmetric_gates_err_either_way_round() -> None:
    circuit = QuantumCircuit(2)
    circuit.sx([0, 1])
    circuit.cz(1, 0)
    assert final(prepare([circuit], line(2))).purity().real < 1 - 4e-3


def test_waiting_is_relaxation() -> None:
    """Qubit 0 is turned, then waits for three gates of its neighbours: the law gives its populations and coherence."""
    circuit = QuantumCircuit(3)
    circuit.sx(0)
    circuit.cz(0, 1)
    for _ in range(3):
        circuit.cz(1, 2)
    circuit.cz(0, 1)
    target = line(3)
    perfect = tuple(Gate(g.name, g.qubits, 1e-15, g.seconds) for g in target.gates)
    state = final(prepare([circuit], Target("line", "", 3, perfect, target.properties)))
    alone = np.array(state.data).reshape((2,) * 6).trace(axis1=0, axis2=3).trace(axis1=0, axis2=2)
    assert alone[1, 1].real == pytest.approx(0.5 * np.exp(-3e-7 / 1e-4), rel=1e-6)
    assert abs(alone[0, 1]) == pytest.approx(0.5 * np.exp(-3e-7 / 8e-5), rel=1e-6)


def test_perfect_gates_are_known() -> None:
    gates = (Gate("sx", (0,), 0.0, 3e-8), Gate("sx", (1,), 0.0), Gate("cz", (0, 1), 1e-3))
    circuit = QuantumCircuit(2)
    circuit.sx([0, 1])
    prepared = prepare([circuit], Target("pair", "", 2, gates))
    check_noisy_gates(prepared.circuits[0], prepared.noise_model)
    assert final(prepared).purity().real == pytest.approx(1, abs=1e-12)


def test_only_measured_qubits_wait_for_the_end() -> None:
    circuit = QuantumCircuit(3, 1)
    circuit.sx([0, 1, 2])
    circuit.cz(0, 1)
    circuit.cz(1, 2)
    circuit.measure(0, 0)
    assert prepare([circuit], line(3)).circuits[0].count_ops()["id"] == 1
    circuit.data.pop()
    circuit.measure(2, 0)
    assert "id" not in prepare([circuit], line(3)).circuits[0].count_ops()


def test_qubits_do_not_decay_before_their_first_gate() -> None:
    circuit = QuantumCircuit(2)
    for _ in range(4):
        circuit.sx(0)
    circuit.sx(1)
    circuit.cz(0, 1)
    prepared = prepare([circuit], line(2))
    assert "id" not in prepared.circuits[0].count_ops()


def test_unused_qubits_are_dropped_and_bits_are_kept(torino: Target) -> None:
    circuit = QuantumCircuit(133, 3)
    circuit.sx(15)
    circuit.cz(15, 0)
    circuit.measure([0, 15], [2, 0])
    other = QuantumCircuit(133, 3)
    other.x(1)
    other.measure(1, 1)
    prepared = prepare([circuit, other], torino)
    assert prepared.nodes == (0, 1, 15)
    assert [c.num_qubits for c in prepared.circuits] == [3, 3]
    read = [(c.find_bit(i.qubits[0]).index, c.find_bit(i.clbits[0]).index)
            for c in prepared.circuits for i in c.data if i.operation.name == "measure"]  # fmt: skip
    assert read == [(0, 2), (2, 0), (1, 1)]


def test_scheduled_once_and_bound_after() -> None:
    """A circuit with Parameters, bound by Aer, gives what the same circuit gives when it is prepared bound."""
    angle = Parameter("a")
    circuit = QuantumCircuit(3, 3)
    circuit.sx([0, 1, 2])
    circuit.rz(angle, 0)
    circuit.sx(0)
    circuit.cz(0, 1)
    circuit.sx(1)
    circuit.cz(1, 2)
    circuit.measure(range(3), range(3))
    prepared = prepare([circuit], line(3, wrong=0.05))
    assert prepared.circuits[0].parameters == {angle}
    assert prepared.circuits[0].count_ops()["id"] == 1
    free = prepared.circuits[0].remove_final_measurements(inplace=False)
    free.save_density_matrix()
    values = [0.3, 1.7]
    simulator = AerSimulator(method="density_matrix", noise_model=prepared.noise_model)
    result = simulator.run([free], parameter_binds=[{angle: values}]).result()
    for number, value in enumerate(values):
        bound = prepare([circuit.assign_parameters({angle: value})], line(3, wrong=0.05))
        assert np.allclose(result.data(number)["density_matrix"], final(bound), atol=1e-12)


def test_readout_errors_flip_both_ways_alike() -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.sx(0)
    circuit.sx(0)
    circuit.measure([0, 1], [0, 1])
    prepared = prepare([circuit], line(2, wrong=0.1))
    counts = AerSimulator(noise_model=prepared.noise_model, seed_simulator=1).run(prepared.circuits[0], shots=20000)
    ones = counts.result().get_counts()
    assert sum(v for k, v in ones.items() if k[1] == "1") / 20000 == pytest.approx(0.9, abs=0.012)
    assert sum(v for k, v in ones.items() if k[0] == "1") / 20000 == pytest.approx(0.1, abs=0.012)


def test_trap_of_gates_that_the_noise_does_not_know() -> None:
    """pytket's AerBackend compiles to gates that the device's noise model has no entry for: they run free of gate noise."""
    device = FakeTorino()
    noise = NoiseModel.from_backend(device, readout_error=False, thermal_relaxation=False)
    there = Circuit(2).Rx(0.3, 0)
    for _ in range(20):
        there.CX(0, 1).Ry(0.3, 0).Rz(0.2, 1).CX(1, 0)
    source = there.copy()
    source.append(there.dagger())  # every outcome is 00, unless something errs
    source.measure_all()
    trapped = tk_to_qiskit(AerBackend(noise).get_compiled_circuit(source, optimisation_level=0))
    native = transpile(trapped, basis_gates=["cz", "rz", "sx", "x"], optimization_level=0)
    simulator = AerSimulator(method="density_matrix", noise_model=noise, seed_simulator=1)
    alike = [simulator.run(c, shots=1000).result().get_counts().get("00", 0) for c in (trapped, native)]
    assert alike[0] == 1000  # the trap: silently perfect
    assert alike[1] < 900
    with pytest.raises(ExecutionError, match=r"has no noise for .*cx"):
        check_noisy_gates(trapped, noise)
    check_noisy_gates(native, noise)


def test_prepared_circuits_pass_the_check(torino: Target) -> None:
    circuit = QuantumCircuit(3, 1)
    circuit.sx([0, 1])
    circuit.cz(0, 1)
    circuit.rz(0.3, 1)
    circuit.sx(1)
    circuit.x(1)
    circuit.cz(0, 1)
    circuit.measure(0, 0)
    prepared = prepare([circuit], torino)
    check_noisy_gates(prepared.circuits[0], prepared.noise_model)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda c: c.cx(0, 1), "cx on .* is no native gate"),
        (lambda c: c.cz(0, 2), r"cz on \(0, 2\) is no native gate"),
        (lambda c: (c.measure(0, 0), c.sx(0)), "after a measurement"),
        (lambda c: c.h(0), "h on .* is no native gate"),
    ],
)
def test_what_cannot_be_simulated_is_refused(build: object, message: str) -> None:
    circuit = QuantumCircuit(3, 1)
    build(circuit)  # type: ignore[operator]
    with pytest.raises(ExecutionError, match=message):
        prepare([circuit], line(3))


def test_targets_without_errors_are_refused() -> None:
    gates = (Gate("sx", (0,)), Gate("sx", (1,)), Gate("cz", (0, 1)))
    with pytest.raises(ExecutionError, match="reports no gate errors"):
        noise_model(Target("plan", "a plan", 2, gates))


def test_wider_than_the_target() -> None:
    circuit = QuantumCircuit(9)
    circuit.sx(8)
    with pytest.raises(ExecutionError, match="is no native gate"):
        prepare([circuit], line(3))


def test_limited_two_qubit_gates_run_in_turn() -> None:
    """Two CZ that could run at once: with one slot, a pair waits, and prediction and simulation agree on it."""
    target = line(4)
    one = Target("line", "", 4, target.gates, target.properties, parallel_two_qubit_gates=1)
    circuit = QuantumCircuit(4)
    circuit.sx(range(4))
    circuit.cz(0, 1)
    circuit.cz(2, 3)
    circuit.sx(range(4))
    waits = [prepare([circuit], t).circuits[0].count_ops().get("id", 0) for t in (target, one)]
    assert waits == [0, 2]
    gates = [(i.operation.name, tuple(circuit.find_bit(q).index for q in i.qubits)) for i in circuit.data]
    durations = [predict_gates(gates, t, range(4)).duration for t in (target, one)]
    assert durations == pytest.approx([1.16e-6, 1.26e-6])
