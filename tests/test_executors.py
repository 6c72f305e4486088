"""Executors against exact simulation, Aer and one another; `use`; backends that misbehave."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import time

import numpy as np
import pytest
import torch
from conftest import bert, text_inputs
from pytket.backends.backendresult import BackendResult
from pytket.circuit import Circuit, OpType
from pytket.extensions.qiskit import AerBackend
from qiskit.quantum_info import Operator
from qiskit_aer.noise import NoiseModel
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from sympy import Symbol, pi
from torch import nn

import qcascade
from qcascade.circuits.angles import AngleCircuit, separate_angles
from qcascade.circuits.ansatze import ring_ansatz
from qcascade.circuits.observables import one_and_two_body, single_z
from qcascade.circuits.template import CircuitTemplate, Expectations, Probabilities
from qcascade.engine import lower, simulate
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors import (
    Executor,
    Job,
    NoisyExecutor,
    PytketExecutor,
    RuntimeExecutor,
    ShotsExecutor,
    make_executor,
    sampled,
)
from qcascade.executors.native import flip, native, turn
from qcascade.targets import Gate, Target

MANILA = Target.from_qiskit(FakeManilaV2(), name="ibm_manila")


def silent() -> Target:
    """Manila's gates and edges with next to no errors, so that noisy values can be held against exact ones."""
    gates = tuple(dataclasses.replace(g, error=None if g.error is None else 1e-9) for g in MANILA.gates)
    properties = tuple(dataclasses.replace(p, readout_error=0.0, t1=None, t2=None) for p in MANILA.properties)
    return dataclasses.replace(MANILA, gates=gates, properties=properties)


def loaded(measurement: object) -> CircuitTemplate:
    circuit, weights = ring_ansatz(3, 1)
    return CircuitTemplate(circuit, (), weights, True, True, measurement)  # type: ignore[arg-type]


def inputs(template: CircuitTemplate, batch: int = 3) -> dict[str, torch.Tensor]:
    states = nn.functional.normalize(torch.randn(batch, 8, dtype=torch.float64), dim=-1)
    return {"weights": torch.linspace(-2, 3, len(template.weights), dtype=torch.float64), "amplitudes": states}


MAKERS = {
    "shots": lambda shots: ShotsExecutor(shots, seed=1),
    "noisy": lambda shots: NoisyExecutor(silent(), shots, seed=1),
    "noisy by Aer": lambda shots: NoisyExecutor(silent(), shots, seed=1, simulation="density_matrix"),
    "trajectories": lambda shots: NoisyExecutor(silent(), shots, seed=1, simulation="trajectories"),
    "AerBackend": lambda shots: PytketExecutor(AerBackend(), shots, seed=1),
    "AerBackend, compiled": lambda shots: PytketExecutor(AerBackend(), shots, seed=1, target=MANILA),
}


METHODS = {
    "noisy": "transfer matrices",
    "noisy by Aer": "Aer, density_matrix",
    "trajectories": "Aer, statevector",
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("measurement", [Probabilities(), Expectations((*one_and_two_body(3), ()))], ids=["P", "E"])
def test_samples_agree_with_the_exact_state(name: str, measurement: object) -> None:
    template = loaded(measurement)
    given = inputs(template)
    exact = simulate(lower(template), template.measurement, **given)
    shots = 500 if name == "trajectories" else 4000
    executor = MAKERS[name](shots)
    values = sampled(executor, template, **given)
    run = executor.history[-1]
    settings = 1 if isinstance(measurement, Probabilities) else 3
    assert (run.circuits, run.submissions, run.shots) == (3 * settings, 1, shots)
    assert values.shape == exact.shape
    if isinstance(executor, NoisyExecutor):
        assert run.method == f"{METHODS[name]}, 3 qubits"
    off = (values - exact).square().mean().sqrt()
    assert 0.5 * run.standard_error < off < 2 * run.standard_error


def test_standard_errors_are_what_repetition_shows() -> None:
    template = loaded(Expectations(one_and_two_body(3)))
    executor = ShotsExecutor(50, seed=3)
    angles = np.random.default_rng(0).uniform(-3, 3, (1, len(executor.prepare(template).angles.constants)))
    estimate = executor.run([Job(template, np.repeat(angles, 2000, 0))])[0]
    scatter, stated = estimate.values.std(0), np.sqrt((estimate.standard_errors**2).mean(0))
    assert np.all(np.abs(scatter / stated - 1) < 0.15)


def test_nothing_looks_certain_after_few_shots() -> None:
    template = CircuitTemplate(Circuit(1), (), (), measurement=Expectations(single_z(1)))
    estimate = ShotsExecutor(4).run([Job(template, np.zeros((1, 0)))])[0]
    assert estimate.values[0, 0] == 1
    assert estimate.standard_errors[0, 0] == pytest.approx(0.5)


def test_noise_in_the_pauli_basis_is_aers() -> None:
    template = loaded(Expectations(one_and_two_body(3)))
    ours, aers = NoisyExecutor(MANILA, None), NoisyExecutor(MANILA, 100_000, seed=0, simulation="density_matrix")
    given = inputs(template)
    exact, drawn = sampled(ours, template, **given), sampled(aers, template, **given)
    assert (exact - drawn).square().mean().sqrt() < 1.5 * aers.history[-1].standard_error
    ideal = simulate(lower(template), template.measurement, **given)
    assert (exact - ideal).square().mean().sqrt() > 10 * aers.history[-1].standard_error


def test_angles_that_share_a_gate_with_an_offset_and_variable_two_qubit_gates() -> None:
    a, b = Symbol("a"), Symbol("b")
    circuit = Circuit(2).Ry(2 * a / pi + 0.3, 0).ZZPhase((b - a) / pi, 0, 1).Rx(-a / pi, 1).Rx(0.2, 0)
    template = CircuitTemplate(circuit, ("a",), ("b",), measurement=Expectations(one_and_two_body(2)))
    given = {"data": torch.rand(4, 1).double(), "weights": torch.rand(1).double()}
    exact = simulate(lower(template), template.measurement, **given)
    for executor in (ShotsExecutor(None), NoisyExecutor(silent(), None)):
        torch.testing.assert_close(sampled(executor, template, **given), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("known", [("Rz", "SX"), ("PhasedX",), ("Rx", "Rz"), ("Rx", "Ry")])
def test_settings_are_turned_by_native_gates(known: tuple[str, ...]) -> None:
    gates = frozenset(getattr(OpType, name) for name in known)
    paulis = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}
    for axis, pauli in paulis.items():
        turned = Circuit(1)
        for gate in turn(axis, 0, gates):
            turned.add_gate(gate.kind, list(gate.parameters), [0])
        unitary = turned.get_unitary()
        np.testing.assert_allclose(unitary.conj().T @ paulis["Z"] @ unitary, pauli, atol=1e-12)
    flipped = Circuit(1)
    for gate in flip(0, gates):
        flipped.add_gate(gate.kind, list(gate.parameters), [0])
    assert abs(flipped.get_statevector()[1]) == pytest.approx(1)
    with pytest.raises(ExecutionError, match="no gates to measure X"):
        turn("X", 0, frozenset({OpType.Rz}))


def test_folded_circuits_are_the_same_unitary() -> None:
    circuit = Circuit(2).Ry(Symbol("w") / pi, 0).add_gate(OpType.ECR, [0, 1]).CX(1, 0).add_gate(OpType.ZZMax, [0, 1])
    circuit.ZZPhase(Symbol("w") / pi, 0, 1).CZ(0, 1)
    source, names = separate_angles(circuit, ("w",))
    made = AngleCircuit(source, names, 0, 1, 0, True, (0, 1), Probabilities())
    angles = np.array([0.3, 0.7])
    bound = [native(made, (), (), fold).bound(angles) for fold in (1, 5)]
    assert bound[1].n_2qb_gates() == 5 * bound[0].n_2qb_gates()
    np.testing.assert_allclose(bound[1].get_unitary(), bound[0].get_unitary(), atol=1e-9)
    placed = native(made, (), (), 3).parametrised((1, 0), 2)
    matrix = Operator(
        placed.assign_parameters(angles[: placed.num_parameters])
    ).data  # Qiskit counts from the other end
    assert abs(np.trace(matrix.conj().T @ bound[0].get_unitary()) / 4) == pytest.approx(1)


def test_a_hybrid_is_noisy_as_its_own_target_is() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    kernels = {"reuploading_head": {"qubits": 3, "uploads": 1}}
    hybrid = qcascade.compile(model, torch.randn(4, 5), target=MANILA, kernels=kernels, include="2")
    assert len(hybrid.kernels) == 1, str(hybrid.plan)
    x = torch.randn(4, 5)
    exact = hybrid(x)
    noisy = hybrid.use("noisy", shots=2000, seed=0, compile_seeds=1)(x)
    assert [(run.executor, run.target) for run in hybrid.last_run] == [("noisy", "ibm_manila")] * 2
    noisy.sum().backward()
    assert all(p.grad is not None for p in hybrid.parameters())
    assert not torch.equal(noisy, exact)
    saved = pickle.loads(pickle.dumps(hybrid))
    assert saved(x).shape == exact.shape


def test_the_runtime_client_runs_locally() -> None:
    template = loaded(Expectations(one_and_two_body(3)))
    given = inputs(template, 2)
    executor = RuntimeExecutor(FakeManilaV2(), 4000, seed=5)
    values = sampled(executor, template, **given)
    run = executor.history[-1]
    assert (run.circuits, run.submissions, run.shots, run.method) == (6, 1, 4000, "SamplerV2")
    exact = simulate(lower(template), template.measurement, **given)
    flat, wanted = (values - values.mean()).flatten(), (exact - exact.mean()).flatten()
    assert flat @ wanted / (flat.norm() * wanted.norm()) > 0.9  # noisy, but the right values in the right places


def test_a_backend_with_noise_runs_native_gates_or_nothing() -> None:
    template = loaded(Probabilities())
    backend = AerBackend(NoiseModel.from_backend(FakeManilaV2()))
    given = inputs(template)
    values = sampled(PytketExecutor(backend, 4000, seed=1, target=MANILA), template, **given)
    exact = simulate(lower(template), template.measurement, **given)
    assert (values - exact).abs().max() > 0.02  # there is noise
    foreign = Target("foreign", "no calibration", 5, tuple(_renamed(MANILA)))
    with pytest.raises(ExecutionError, match="no noise for"):
        sampled(PytketExecutor(backend, 100, target=foreign), template, **given)


def _renamed(target: Target) -> list[Gate]:
    """The same places with gates that Manila does not have."""
    names = {"sx": "r", "cx": "cz", "rz": "rz"}
    return [Gate(names[gate.name], gate.qubits) for gate in target.gates if gate.name in names]


class Slow(AerBackend):
    """Answers later than anyone waits."""

    def get_result(self, handle: object, **options: object) -> BackendResult:
        time.sleep(2)
        return super().get_result(handle, **options)


class Broken(AerBackend):
    """Takes no jobs."""

    def process_circuits(self, *args: object, **options: object) -> list[object]:
        raise RuntimeError("the fridge is warm")


class Half(AerBackend):
    """Loses all results but the first two."""

    def get_result(self, handle: object, **options: object) -> BackendResult:
        self.asked: dict[object, int] = {**getattr(self, "asked", {})}
        if self.asked.setdefault(handle, len(self.asked)) > 1:
            raise RuntimeError("lost")
        return super().get_result(handle, **options)


class Frugal(AerBackend):
    """Runs half the shots."""

    def process_circuits(self, circuits: object, n_shots: object = None, **options: object) -> list[object]:
        return super().process_circuits(circuits, n_shots // 2, **options)


class Confused(AerBackend):
    """Runs a circuit of its own."""

    def process_circuits(self, circuits: list[Circuit], n_shots: object = None, **options: object) -> list[object]:
        return super().process_circuits([Circuit(5, 5).H(0).measure_all() for _ in circuits], n_shots, **options)


def test_backends_that_misbehave() -> None:
    template = loaded(Probabilities())
    given = inputs(template)
    with pytest.raises(BackendError, match=r"deadline of 0.3 s") as late:
        sampled(PytketExecutor(Slow(), 100, deadline=0.3), template, **given)
    assert len(late.value.handles) == 3
    with pytest.raises(BackendError, match=r"Broken raised RuntimeError: the fridge is warm"):
        sampled(PytketExecutor(Broken(), 100), template, **given)
    with pytest.raises(BackendError, match=r"lost.*2 of 3 results") as lost:
        sampled(PytketExecutor(Half(), 100), template, **given)
    assert len(lost.value.results) == 2
    assert len(lost.value.handles) == 3
    with pytest.raises(BackendError, match="result of bits"):
        sampled(PytketExecutor(Confused(), 100), template, **given)
    frugal = PytketExecutor(Frugal(), 100)
    sampled(frugal, template, **given)
    assert frugal.history[-1].shots == 50
    assert frugal.history[-1].notes == ("fewer shots than the 100 asked for",)


def test_bad_options_are_one_clear_error() -> None:
    for shots in (0, -5, 1.5, True, None):
        with pytest.raises(ExecutionError, match="shots"):
            PytketExecutor(AerBackend(), shots)  # type: ignore[arg-type]
    for shots in (0, -5, "many", 2**53 + 1, 10**20):
        with pytest.raises(ExecutionError, match="at least 1"):
            make_executor("shots", shots=shots)
    with pytest.raises(ExecutionError, match="'statevector', 'shots', 'noisy'"):
        make_executor("annealer")
    with pytest.raises(ExecutionError, match="no option colour"):
        make_executor("shots", colour=1)
    with pytest.raises(ExecutionError, match="takes no options"):
        make_executor("statevector", shots=1)
    with pytest.raises(ExecutionError, match="no options"):
        make_executor(ShotsExecutor(10), shots=1)
    with pytest.raises(ExecutionError, match="shift, spsa"):
        make_executor("shots", gradients="adjoint")
    with pytest.raises(ExecutionError, match=r"no noise to simulate.*use\('shots'\)"):
        make_executor("noisy", target="ideal")
    with pytest.raises(ExecutionError, match="needs the target"):
        make_executor("noisy")
    with pytest.raises(ExecutionError, match="which target"):
        make_executor("noisy", target="nowhere")
    with pytest.raises(ExecutionError, match="deadline=0"):
        PytketExecutor(AerBackend(), deadline=0)
    with pytest.raises(ExecutionError, match="no pytket Backend"):
        PytketExecutor(FakeManilaV2())
    with pytest.raises(ExecutionError, match="describe its gates"):
        RuntimeExecutor(object())


def test_a_circuit_wider_than_the_target() -> None:
    circuit, weights = ring_ansatz(6, 1)
    template = CircuitTemplate(circuit, (), weights, measurement=Expectations(single_z(6)))
    for executor in (
        NoisyExecutor(MANILA, 10),
        RuntimeExecutor(FakeManilaV2(), 10),
        PytketExecutor(AerBackend(), 10, target=MANILA),
    ):
        with pytest.raises(ExecutionError, match=r"6 qubits and .* 5 that can be used"):
            sampled(executor, template, weights=torch.zeros(len(weights)))


def test_shapes_that_do_not_fit() -> None:
    template, executor = loaded(Probabilities()), ShotsExecutor(10)
    given = inputs(template)
    with pytest.raises(ExecutionError, match="`weights` is missing"):
        sampled(executor, template, amplitudes=given["amplitudes"])
    with pytest.raises(ExecutionError, match="`amplitudes` are missing"):
        sampled(executor, template, weights=given["weights"])
    with pytest.raises(ExecutionError, match=r"\[batch, 8\]"):
        sampled(executor, template, weights=given["weights"], amplitudes=torch.ones(2, 4))
    with pytest.raises(ExecutionError, match="not finite"):
        sampled(executor, template, weights=given["weights"] * torch.nan, amplitudes=given["amplitudes"])
    assert sampled(executor, template, weights=given["weights"], amplitudes=given["amplitudes"][:0]).shape == (1, 0, 8)


def test_a_hybrid_uses_what_it_is_told() -> None:
    model = bert(num_hidden_layers=1).eval()  # the head is all that is asked
    hybrid = qcascade.compile(model, text_inputs(), kernels={"reuploading_head": {"qubits": 3}})
    x = text_inputs()
    with torch.no_grad():
        exact = hybrid(**x).logits
        assert hybrid.last_run == ()
        assert hybrid.use("shots", shots=100, seed=0) is hybrid
        rough = hybrid(**x).logits
        forward = hybrid.last_run
        fine = hybrid.use("shots", shots=100_000, seed=0)(**x).logits
        torch.testing.assert_close(hybrid.use("statevector")(**x).logits, exact)
    assert not torch.equal(rough, exact)
    assert (fine - exact).abs().max() < (rough - exact).abs().max() + 1e-3
    assert {run.purpose for run in forward} == {"values"}
    assert all(run.shots == 100 and run.standard_error > 0 for run in forward)
    hybrid.use("shots", shots=20, seed=1)
    hybrid(**x).logits.sum().backward()
    assert [run.purpose for run in hybrid.last_run] == ["values", "values", "gradients", "gradients"]
    assert len(forward) == 2
    with pytest.raises(ExecutionError, match="no noise to simulate"):
        hybrid.use("noisy")
    copied, saved = copy.deepcopy(hybrid), pickle.loads(pickle.dumps(hybrid))
    for other in (copied, saved):
        assert all(kernel.executor.shots == 20 for kernel in other.kernels.values())
        assert other(**x).logits.shape == exact.shape
        assert len(other.last_run) == 2
    assert hybrid.state_dict().keys() == hybrid.use("statevector").state_dict().keys()


def test_live_backends_are_not_saved_and_say_so() -> None:
    layer = qcascade.QuantumLayer(Circuit(1).Ry(Symbol("w"), 0), []).use(PytketExecutor(AerBackend(), 10))
    assert isinstance(copy.deepcopy(layer).executor, Executor)
    with pytest.raises(ExecutionError, match="cannot be saved"):
        pickle.dumps(layer)


def test_torch_cannot_export_samples() -> None:
    layer = qcascade.QuantumLayer(Circuit(1).Ry(Symbol("w"), 0), []).use("shots", shots=10)
    with pytest.raises(ExecutionError, match=r"use\('statevector'\) first"):
        torch.func.vmap(lambda w: torch.func.functional_call(layer, {"weights": w}))(torch.rand(3, 1))


def test_evaluation_of_the_embedding_is_never_stale() -> None:
    kernel = qcascade.kernels.RandomCircuitEmbedding(20, 8, qubits=3, layers=2).eval()
    ids = torch.tensor([[1, 2, 2, 5]])
    with torch.no_grad():
        exact = kernel(ids)
        kernel.use("shots", shots=50, seed=0)
        first, second = kernel(ids), kernel(ids)
        assert not torch.equal(first, exact)
        assert not torch.equal(first, second)
        torch.testing.assert_close(first[0, 1], first[0, 2])  # one token, one run
        assert kernel.executor.history[-1].circuits == 9  # three tokens, three settings
        torch.testing.assert_close(kernel.use("statevector")(ids), exact)
