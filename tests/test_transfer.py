"""Exact noisy simulation in the Pauli basis, against Aer's density matrix and numpy's own products."""

from __future__ import annotations

import functools
import pickle
import string
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import IGate
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error, thermal_relaxation_error

from qcascade.executors.pauli_program import Step, laid_out
from qcascade.executors.pauli_state import chances
from qcascade.executors.transfer import TransferCircuit

ANGLES = 5
KNOWN: dict[Any, np.ndarray] = {}
TO_CHANCE = np.array([[0.5, 0.0, 0.0, 0.5], [0.5, 0.0, 0.0, -0.5]])


@functools.cache
def noise(qubits: int) -> NoiseModel:
    """A qubit's errors are the same in all of them."""
    model = NoiseModel()
    for q in range(qubits):
        waits = thermal_relaxation_error(50e-6 - q * 1e-6, 40e-6, 1e-6)
        model.add_quantum_error(depolarizing_error(2e-3, 1).compose(waits), "sx", [q])
        model.add_quantum_error(waits, "wait", [q])
        model.add_readout_error(ReadoutError([[0.98, 0.02], [0.05, 0.95]]), [q])
        for p in range(qubits):
            if p != q:
                two = depolarizing_error(0.01, 2).compose(waits.expand(waits))
                for name in ("cz", "cx", "rzz"):
                    model.add_quantum_error(two, name, [p, q])
    return model


def random_circuit(seed: int, qubits: int, gates: int, read: list[int]) -> QuantumCircuit:
    random = np.random.default_rng(seed)
    angles = ParameterVector("a", ANGLES)
    circuit = QuantumCircuit(qubits, len(read))
    for _ in range(gates):
        name = random.choice(["sx", "rz", "rz", "id", "cz", "cx", "rzz"])
        angle = float(random.choice([-1, 1])) * angles[int(random.integers(ANGLES))] + float(random.choice([0, 0.3]))
        one, *rest = random.permutation(qubits).tolist()
        if name == "rz":
            circuit.rz(angle, one)
        elif name == "sx":
            circuit.sx(one)
        elif name == "id":
            circuit.append(IGate(label="wait"), [one])
        elif rest and name == "rzz":
            circuit.rzz(angle, one, rest[0])
        elif rest:
            getattr(circuit, name)(one, rest[0])
    circuit.measure(read, range(len(read)))
    return circuit


def made_of(circuit: QuantumCircuit) -> TransferCircuit:
    return TransferCircuit(circuit, noise(circuit.num_qubits), KNOWN)


@functools.cache
def simulator(qubits: int) -> AerSimulator:
    return AerSimulator(method="density_matrix", noise_model=noise(qubits))


def by_aer(circuit: QuantumCircuit, angles: np.ndarray, read: list[int]) -> np.ndarray:
    """Diagonals of Aer's density matrices, confused by the readout errors."""
    plain = circuit.remove_final_measurements(inplace=False)
    plain.save_density_matrix()
    bound = [plain.assign_parameters({p: row[p.index] for p in plain.parameters}) for row in angles]
    result = simulator(circuit.num_qubits).run(bound).result()
    states = [np.asarray(result.data(k)["density_matrix"]) for k in range(len(angles))]
    chance = np.stack([np.diag(state).real for state in states]).reshape(-1, *(2,) * circuit.num_qubits)
    letters = string.ascii_lowercase[: circuit.num_qubits]  # the last qubit comes first
    chance = np.einsum(f"...{letters}->...{''.join(letters[-1 - q] for q in reversed(read))}", chance)
    for axis, q in enumerate(reversed(read)):
        confused = np.asarray(noise(circuit.num_qubits)._local_readout_errors[q,].probabilities)
        chance = np.moveaxis(np.tensordot(confused.T, chance, (1, 1 + axis)), 0, 1 + axis)
    return chance.reshape(len(angles), -1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), qubits=st.integers(1, 6), gates=st.integers(0, 60), data=st.data())
def test_it_is_aers_density_matrix(seed: int, qubits: int, gates: int, data: st.DataObject) -> None:
    read = data.draw(st.permutations(range(qubits)))[: data.draw(st.integers(1, qubits))]
    circuit = random_circuit(seed, qubits, gates, read)
    angles = np.random.default_rng(seed).uniform(-4, 4, (2, ANGLES))
    expected = by_aer(circuit, angles, read)
    made = made_of(circuit)
    np.testing.assert_allclose(made.probabilities(angles, double=True), expected, atol=1e-12, rtol=0)
    np.testing.assert_allclose(made.probabilities(angles, double=False), expected, atol=2e-6, rtol=0)


def random_steps(seed: int, qubits: int, gates: int, pairs: list[tuple[int, int]]) -> list[Step]:
    """Matrices that keep lengths, so that what is wrong shows, and their parts where they turn with an angle."""
    random = np.random.default_rng(seed)
    steps = []
    for _ in range(gates):
        two = bool(pairs) and random.random() < 0.6
        places = pairs[random.integers(len(pairs))] if two else (int(random.integers(qubits)),)
        sides = [np.linalg.qr(random.normal(size=(4 ** len(places),) * 2))[0] for _ in range(3)]
        turns = random.random() < 0.4
        parts = [side / np.sqrt(3) for side in sides] if turns else sides[:1]
        steps.append(Step(places, parts, int(random.integers(ANGLES)) if turns else None))
    return steps


def by_numpy(steps: list[Step], ends: dict[int, np.ndarray], read: tuple[int, ...], angles: np.ndarray) -> np.ndarray:
    """One product after the other on the whole state, of which qubit q is axis q."""
    qubits = len(ends)
    state = functools.reduce(np.multiply.outer, [np.array([1.0, 0.0, 0.0, 1.0])] * qubits)
    for step in steps:
        matrix = step.parts[0]
        if step.angle is not None:
            matrix = matrix + np.cos(angles[step.angle]) * step.parts[1] + np.sin(angles[step.angle]) * step.parts[2]
        count = len(step.qubits)
        matrix = matrix.reshape((4,) * (2 * count))
        state = np.tensordot(matrix, state, (range(count, 2 * count), step.qubits))
        state = np.moveaxis(state, range(count), step.qubits)
    for qubit, end in ends.items():
        state = np.moveaxis(np.tensordot(end, state, (1, qubit)), 0, qubit)
    letters = string.ascii_lowercase[:qubits]
    return np.einsum(f"{letters}->{''.join(letters[q] for q in read)}", state).reshape(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), qubits=st.integers(1, 8), gates=st.integers(0, 40), chain=st.booleans(), data=st.data()
)
def test_any_order_of_gates_and_readings(seed: int, qubits: int, gates: int, chain: bool, data: st.DataObject) -> None:
    """Qubits join late, are read early and change places, whatever the circuit."""
    pairs = [(a, b) for a in range(qubits) for b in range(qubits) if a != b and (not chain or abs(a - b) == 1)]
    steps = random_steps(seed, qubits, gates, pairs)
    if chain:
        steps.sort(key=lambda step: min(step.qubits))  # first ones are finished before last ones begin
    unread = data.draw(st.sets(st.integers(0, qubits - 1)))
    trace = np.array([[1.0, 0.0, 0.0, 0.0]])
    ends = {q: trace if q in unread else TO_CHANCE + 0.01 * q for q in range(qubits)}
    program = laid_out(steps, ends)
    assert sorted(program.read) == sorted(set(range(qubits)) - unread)
    angles = np.random.default_rng(seed).uniform(-3, 3, (2, ANGLES))
    expected = np.stack([by_numpy(steps, ends, program.read, row) for row in angles])
    size = np.abs(expected).max() + 1e-3
    np.testing.assert_allclose(chances(program, angles, double=True), expected, atol=1e-12 * size, rtol=0)
    np.testing.assert_allclose(chances(program, angles, double=False), expected, atol=1e-5 * size, rtol=0)


def test_states_stay_small_where_a_chain_is_read_as_it_goes() -> None:
    matrix = np.eye(16)
    program = laid_out([Step((q, q + 1), [matrix]) for q in range(11)], dict.fromkeys(range(12), TO_CHANCE))
    assert program.values <= 4**5 * 2**7
    assert chances(program, np.zeros((1, 0)), double=True).sum() == pytest.approx(1)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("double", [False, True])
def test_rows_are_the_same_bits_whatever_runs_beside_them(double: bool) -> None:
    made = made_of(random_circuit(3, 6, 80, list(range(6))))
    angles = np.random.default_rng(0).uniform(-40, 40, (23, ANGLES))
    together = made.probabilities(angles, double=double)
    for count in (1, 3):
        torch.set_num_threads(count)
        for some in (slice(0, 1), slice(2, 9), slice(4, 23, 3), slice(0, 23)):
            np.testing.assert_array_equal(made.probabilities(angles[some], double=double), together[some])
    strided = np.asfortranarray(angles)
    np.testing.assert_array_equal(made.probabilities(strided, double=double), together)


def test_infinite_angles_show_in_their_rows_alone() -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.sx(0)
    circuit.rz(ParameterVector("a", 1)[0], 0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    found = made_of(circuit).probabilities(np.array([[0.3], [np.inf], [0.3]]), double=False)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[0], found[2])


def test_prepared_circuits_travel_small_and_come_out_the_same() -> None:
    made = made_of(random_circuit(5, 6, 200, list(range(6))))
    packed = pickle.dumps(made)
    assert len(packed) < 200_000
    angles = np.random.default_rng(0).uniform(-3, 3, (3, ANGLES))
    np.testing.assert_array_equal(
        pickle.loads(packed).probabilities(angles, double=True), made.probabilities(angles, double=True)
    )
    assert made.probabilities(angles[:0], double=True).shape == (0, 64)
