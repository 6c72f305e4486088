"""Mitigation against exact values: it reduces the error beyond what samples scatter, and costs what it says."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest
import torch
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerBackend
from qiskit_aer.noise import NoiseModel, ReadoutError
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from sympy import Symbol

from qcascade.circuits.ansatze import ring_ansatz
from qcascade.circuits.observables import one_and_two_body, single_z
from qcascade.circuits.template import CircuitTemplate, Expectations, Probabilities
from qcascade.engine import lower, simulate
from qcascade.errors import ExecutionError
from qcascade.executors import (
    NoisyExecutor,
    PytketExecutor,
    ReadoutInversion,
    RuntimeExecutor,
    ZeroNoiseExtrapolation,
    sampled,
)
from qcascade.targets import Target

MANILA = Target.from_qiskit(FakeManilaV2(), name="ibm_manila")
PLAIN, READOUT = (), (ReadoutInversion(),)
NOISE = (ZeroNoiseExtrapolation((1, 3)),)


def circuit(measurement: object) -> tuple[CircuitTemplate, torch.Tensor]:
    made, weights = ring_ansatz(3, 1)
    template = CircuitTemplate(made, (), weights, measurement=measurement)  # type: ignore[arg-type]
    return template, torch.linspace(-2, 3, 4 * len(weights), dtype=torch.float64).view(4, -1)


def error(executor: NoisyExecutor | PytketExecutor | RuntimeExecutor, measurement: object) -> float:
    """Root mean square distance from the exact values."""
    template, weights = circuit(measurement)
    exact = simulate(lower(template), template.measurement, weights=weights)
    return float((sampled(executor, template, weights=weights) - exact).square().mean().sqrt())


@pytest.mark.parametrize("measurement", [Probabilities(), Expectations(one_and_two_body(3))], ids=["P", "E"])
def test_each_reduces_the_error_and_both_most(measurement: object) -> None:
    kinds = {"plain": PLAIN, "readout": READOUT, "noise": NOISE, "both": READOUT + NOISE}
    biases = {name: error(NoisyExecutor(MANILA, None, mitigation=how), measurement) for name, how in kinds.items()}
    assert biases["both"] < 0.25 * min(biases["readout"], biases["noise"])
    assert biases["readout"] < 0.5 * biases["plain"]
    assert biases["noise"] < 0.95 * biases["plain"]
    sampled_errors = {}
    for name in ("plain", "both"):
        executor = NoisyExecutor(MANILA, 20_000, seed=0, mitigation=kinds[name])
        sampled_errors[name] = error(executor, measurement)
    assert sampled_errors["both"] < sampled_errors["plain"] - 4 * executor.history[-1].standard_error


def test_readout_inversion_is_exact_for_readout_errors() -> None:
    gates = tuple(dataclasses.replace(g, error=None if g.error is None else 0.0) for g in MANILA.gates)
    properties = tuple(dataclasses.replace(p, t1=None, t2=None) for p in MANILA.properties)
    target = dataclasses.replace(MANILA, gates=gates, properties=properties)
    for measurement in (Probabilities(), Expectations(one_and_two_body(3))):
        executor = NoisyExecutor(target, 40_000, seed=0, mitigation=READOUT)
        assert error(executor, measurement) < 1.6 * executor.history[-1].standard_error


def test_standard_errors_of_mitigated_values_are_what_repetition_shows() -> None:
    template, weights = circuit(Expectations(one_and_two_body(3)))
    executor = NoisyExecutor(MANILA, 500, seed=0, mitigation=READOUT + NOISE)
    values = sampled(executor, template, weights=weights[:1].expand(400, -1))[:, 0]
    stated = np.mean([run.standard_error**2 for run in executor.history]) ** 0.5
    assert values.var(0).mean().sqrt() == pytest.approx(stated, rel=0.1)


def test_calibration_finds_readout_that_is_not_symmetric() -> None:
    model = NoiseModel.from_backend(FakeManilaV2(), gate_error=False, thermal_relaxation=False)
    noisy = NoiseModel(basis_gates=model.basis_gates)
    for qubit in range(5):
        noisy.add_readout_error(ReadoutError([[0.99, 0.01], [0.1, 0.9]]), [qubit])
        noisy.add_quantum_error(_nothing(), ["sx", "x"], [qubit])
    for pair in MANILA.edges:
        for ends in (pair, pair[::-1]):
            noisy.add_quantum_error(_nothing(2), "cx", list(ends))
    errors = []
    for how in ((), (ReadoutInversion(calibration_shots=50_000),)):
        executor = PytketExecutor(AerBackend(noisy), 20_000, seed=1, target=MANILA, mitigation=how)
        errors.append(error(executor, Expectations(single_z(3))))
    assert errors[1] < 0.2 * errors[0]
    run = executor.history[-1]
    assert (run.circuits, run.submissions) == (4 + 2, 2)
    assert run.notes == ("readout of 3 qubits calibrated by 2 circuits",)
    error(executor, Expectations(single_z(3)))  # calibrated once
    assert executor.history[-1].circuits == 4


def _nothing(qubits: int = 1) -> object:
    from qiskit_aer.noise import pauli_error

    return pauli_error([("X" * qubits, 1e-6), ("I" * qubits, 1 - 1e-6)])


def test_the_runtime_client_is_mitigated_too() -> None:
    measurement = Expectations(single_z(3))
    plain = RuntimeExecutor(FakeManilaV2(), 8000, seed=3)
    mitigated = RuntimeExecutor(
        FakeManilaV2(),
        8000,
        seed=3,
        mitigation=(ReadoutInversion(calibration_shots=20_000), ZeroNoiseExtrapolation((1, 3))),
    )
    assert error(mitigated, measurement) < 0.6 * error(plain, measurement)
    assert mitigated.history[-1].circuits == 2 * 4 + 2


@pytest.mark.parametrize("qubits", [1, 2, 3, 6])
@pytest.mark.parametrize("error", [0.0, 0.01, 0.03, 0.1, 0.3])
def test_inversions_worst_case_is_the_largest_variance_of_any_state(qubits: int, error: float) -> None:
    row = np.linalg.inv(np.array([[1 - error, error], [error, 1 - error]]))[0]
    squares = np.array([[1 - error, error], [error, 1 - error]]) @ row**2  # the mean of c² of a qubit in 0, in 1
    means = np.array([np.prod(squares[list(state)]) for state in product((0, 1), repeat=qubits)])
    chance = np.linspace(0, 1, 5001)
    planned = ReadoutInversion().variance(Probabilities(), qubits, error)
    worst = chance * means[0] + (1 - chance) * means[1:].max() - chance**2  # the outcome beside the worst other state
    assert planned == pytest.approx(4 * worst.max(), rel=1e-6)
    mixtures = np.random.default_rng(0).dirichlet(np.full(2**qubits, 0.3), 2000)
    assert 4 * (mixtures @ means - mixtures[:, 0] ** 2).max() <= planned * (1 + 1e-12)


@pytest.mark.parametrize("fit", ["linear", "richardson", "exponential"])
def test_extrapolation_of_what_follows_the_law(fit: str) -> None:
    method = ZeroNoiseExtrapolation((1, 3, 5), fit)  # type: ignore[arg-type]
    factors = np.array([1.0, 3.0, 5.0])[:, None, None]
    truth = np.array([[0.8, -0.4]])
    decay = {
        "linear": 1 - 0.05 * factors,
        "richardson": 1 - 0.05 * factors + 0.004 * factors**2,
        "exponential": np.exp(-0.2 * factors),
    }[fit]
    values, variances = method.extrapolate(truth * decay, np.full((3, 1, 2), 1e-8), 0.0)
    np.testing.assert_allclose(values, truth, rtol=1e-6)
    assert (variances > 1e-8).all()  # extrapolation magnifies


def test_exponential_falls_back_to_a_line_where_signs_differ() -> None:
    values = np.array([0.01, -0.01, 0.02])[:, None, None]
    variances = np.full((3, 1, 1), 1e-4)
    line = ZeroNoiseExtrapolation((1, 3, 5)).extrapolate(values, variances, 0.0)
    other = ZeroNoiseExtrapolation((1, 3, 5), "exponential").extrapolate(values, variances, 0.0)
    np.testing.assert_allclose(other, line)


def test_folding_leaves_the_ideal_values_and_triples_the_gates() -> None:
    gates = tuple(dataclasses.replace(g, error=None if g.error is None else 0.0) for g in MANILA.gates)
    properties = tuple(dataclasses.replace(p, t1=None, t2=None, readout_error=0.0) for p in MANILA.properties)
    executor = NoisyExecutor(dataclasses.replace(MANILA, gates=gates, properties=properties), None, mitigation=NOISE)
    assert error(executor, Expectations(one_and_two_body(3))) < 1e-9
    template, _ = circuit(Expectations(one_and_two_body(3)))
    variants = executor._variants_of(circuit(Expectations(one_and_two_body(3)))[0])
    two = [sum(len(gate.qubits) == 2 for gate in v.circuit.gates) for v in variants]
    assert two[1::2] == [3 * n for n in two[::2]]
    assert executor.overhead == 2
    assert executor.circuits(template) == 6


def test_bad_mitigation_is_one_clear_error() -> None:
    for factors in ((1,), (1, 2), (1, 1), (0, 1), (-1, 1)):
        with pytest.raises(ExecutionError, match="odd whole numbers"):
            ZeroNoiseExtrapolation(factors)
    with pytest.raises(ExecutionError, match="fit='cubic'"):
        ZeroNoiseExtrapolation(fit="cubic")  # type: ignore[arg-type]
    for shots in (0, 10**20, 2.5):
        with pytest.raises(ExecutionError, match=f"calibration_shots={shots}; a whole number"):
            ReadoutInversion(shots)  # type: ignore[arg-type]
    with pytest.raises(ExecutionError, match="at most one ReadoutInversion"):
        NoisyExecutor(MANILA, 10, mitigation=[ReadoutInversion(), ReadoutInversion()])
    template = CircuitTemplate(Circuit(1).Ry(Symbol("w"), 0), (), ("w",), measurement=Expectations(single_z(1)))
    with pytest.raises(ExecutionError, match="calibration_shots="):
        sampled(PytketExecutor(AerBackend(), 10, mitigation=READOUT), template, weights=torch.zeros(1))
