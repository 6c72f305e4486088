"""The engine against pytket's statevector, Aer, its own reference, shift rules and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit, OpType, Qubit
from pytket.extensions.qiskit import AerStateBackend
from pytket.pauli import Pauli, QubitPauliString
from sympy import Symbol, pi

from qcascade.circuits.observables import measurement_settings, one_and_two_body, single_z
from qcascade.circuits.template import CircuitTemplate, Expectations, Measurement, Probabilities
from qcascade.engine import compiled, evolve, expectations, lower, probabilities, reference, simulate, unitary_columns
from qcascade.engine.text import measurement_of
from qcascade.errors import CircuitError, ExecutionError

ONE = (OpType.Rx, OpType.Ry, OpType.Rz, OpType.U1)
THREE_ANGLES = (OpType.TK1, OpType.U3)
FIXED = (
    OpType.H, OpType.X, OpType.Y, OpType.Z, OpType.S, OpType.Sdg, OpType.T, OpType.Tdg, OpType.SX, OpType.SXdg,
    OpType.V, OpType.Vdg,
)  # fmt: skip
TWO = (OpType.CX, OpType.CZ, OpType.SWAP, OpType.CY, OpType.CH, OpType.ECR, OpType.ZZMax, OpType.CV)
TWO_ANGLED = (OpType.CU1, OpType.CRz, OpType.ZZPhase, OpType.XXPhase, OpType.YYPhase, OpType.CRy)
WIDTHS = {**dict.fromkeys(TWO + TWO_ANGLED + (OpType.TK2,), 2), OpType.CCX: 3, OpType.CSWAP: 3}
PARAMETERS = {**dict.fromkeys(ONE + TWO_ANGLED, 1), OpType.PhasedX: 2, **dict.fromkeys((*THREE_ANGLES, OpType.TK2), 3)}


@st.composite
def circuits(draw: st.DrawFn, most: int = 8) -> Circuit:
    """Random circuits on one to eight qubits, over two registers where there are enough, permutations included."""
    qubits = draw(st.integers(1, most))
    circuit = Circuit()
    for i in range(qubits):
        circuit.add_qubit(Qubit("a" if i < 2 else "b", i if i < 2 else i - 2))
    kinds = (*ONE, *THREE_ANGLES, OpType.PhasedX, *FIXED, *WIDTHS)
    fitting = [kind for kind in kinds if WIDTHS.get(kind, 1) <= qubits]
    for _ in range(draw(st.integers(0, 20))):
        kind = draw(st.sampled_from(fitting))
        angles = [draw(st.floats(-2, 2)) for _ in range(PARAMETERS.get(kind, 0))]
        circuit.add_gate(kind, angles, list(draw(st.permutations(circuit.qubits))[: WIDTHS.get(kind, 1)]))
    if draw(st.booleans()):
        circuit.replace_SWAPs()
    return circuit


@pytest.fixture(params=["narrow", "wide"])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both schedules, whatever the batch."""
    monkeypatch.setattr(compiled, "WIDE_QUBITS", 3 if request.param == "wide" else 99)
    monkeypatch.setattr(compiled, "NARROWEST_WIDE", 99)
    compiled.simulation.cache_clear()
    return str(request.param)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(circuits())
def test_agrees_with_pytket(lanes: str, circuit: Circuit) -> None:
    program = lower(CircuitTemplate(circuit, data=(), weights=()))
    state = evolve(program, weights=torch.zeros(1, 0, dtype=torch.float64))[0, 0].numpy()
    assert np.abs(state - circuit.get_statevector()).max() < 1e-10
    assert abs(np.linalg.norm(state) - 1) < 1e-12


@settings(max_examples=25, deadline=None)
@given(circuits())
def test_agrees_with_aer(circuit: Circuit) -> None:
    program = lower(CircuitTemplate(circuit, data=(), weights=()))
    state = evolve(program, weights=torch.zeros(1, 0, dtype=torch.float64))[0, 0].numpy()
    backend = AerStateBackend()
    other = backend.run_circuit(backend.get_compiled_circuit(circuit, 0)).get_state()
    assert abs(abs(np.vdot(other, state)) - 1) < 1e-10


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(circuits(5))
def test_compiled_agrees_with_the_reference(lanes: str, circuit: Circuit) -> None:
    """Loaded amplitudes, Pauli strings on all axes, and the amplitudes' gradients, of whatever circuit."""
    program, batch = lower(CircuitTemplate(circuit, (), (), amplitudes=True)), 3
    amplitudes = torch.randn(batch, 2**program.qubits, dtype=torch.complex128).requires_grad_()
    measured = Expectations(one_and_two_body(program.qubits))
    ours = simulate(program, measured, amplitudes=amplitudes)
    empty = torch.zeros(1, batch, 0, dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64)
    theirs = reference.simulate(program, measured, *empty, amplitudes[None])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    cotangent = torch.randn(ours.shape, dtype=torch.float64)
    found, wanted = (torch.autograd.grad(out, amplitudes, cotangent)[0] for out in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def random_template(amplitudes: bool = False) -> CircuitTemplate:
    circuit = Circuit(5)
    for qubit in range(5):
        circuit.Ry(Symbol(f"x{qubit}") / pi, qubit).Rz(Symbol("w0") * 0.5 + 0.1, qubit)
    circuit.CX(0, 3).CU1(Symbol("w1") - Symbol("x0"), 1, 2).SWAP(2, 4).ZZPhase(Symbol("w2"), 3, 4).H(2)
    return CircuitTemplate(circuit, tuple(f"x{i}" for i in range(5)), ("w0", "w1", "w2"), amplitudes=amplitudes)


def test_batches_of_data_and_weight_sets() -> None:
    template = random_template()
    program = lower(template)
    data, weights = torch.randn(4, 5, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    states = evolve(program, data=data, weights=weights)
    assert states.shape == (3, 4, 32)
    for s in range(3):
        for b in range(4):
            circuit = template.circuit.copy()
            values = [*data[b].tolist(), *weights[s].tolist()]
            circuit.symbol_substitution(dict(zip(map(Symbol, template.data + template.weights), values, strict=True)))
            assert np.abs(states[s, b].numpy() - circuit.get_statevector()).max() < 1e-10


def test_amplitudes_and_columns_are_the_unitary() -> None:
    template = CircuitTemplate(Circuit(3).H(0).CX(0, 2).Ry(Symbol("w"), 1).CZ(1, 2), (), ("w",), amplitudes=True)
    weights = torch.tensor([[0.3]], dtype=torch.float64)
    circuit = template.circuit.copy()
    circuit.symbol_substitution({Symbol("w"): 0.3})
    columns = unitary_columns(lower(template), weights, 5)[0].numpy()
    assert np.abs(columns - circuit.get_unitary()[:, :5]).max() < 1e-10


MEASURED = (Expectations((((0, "Z"),), ((1, "X"), (3, "X")), ((2, "Y"),), ((0, "Z"), (4, "Y")))), Probabilities(), None)


@pytest.mark.parametrize("measured", MEASURED, ids=["expectations", "probabilities", "states"])
@pytest.mark.parametrize("loaded", [False, True], ids=["ground", "loaded"])
def test_gradients_for_data_weights_and_amplitudes(lanes: str, measured: Measurement | None, loaded: bool) -> None:
    program = lower(random_template(amplitudes=loaded))

    def values(data: torch.Tensor, weights: torch.Tensor, amplitudes: torch.Tensor | None = None) -> torch.Tensor:
        out = simulate(program, measured, data=data, weights=weights, amplitudes=amplitudes)
        return torch.view_as_real(out) if out.is_complex() else out

    inputs = [torch.randn(2, 5).double(), torch.randn(2, 3).double()]
    if loaded:
        inputs.append(torch.nn.functional.normalize(torch.randn(2, 32, dtype=torch.complex128), dim=-1))
    assert torch.autograd.gradcheck(values, [t.requires_grad_() for t in inputs])


def test_adjoint_agrees_with_the_shift_rule() -> None:
    """d⟨P⟩/dθ = (f(θ + π/2) − f(θ − π/2))/2 for rotations by θ (Mitarai et al. 2018)."""
    template = hardware_efficient(4, 2)
    program, weights = lower(template), torch.randn(len(template.weights), dtype=torch.float64)
    data = torch.randn(3, 4, dtype=torch.float64)

    def total(w: torch.Tensor) -> torch.Tensor:
        return expectations(program, single_z(4), data=data, weights=w).sum((1, 2))

    gradient = torch.autograd.functional.jacobian(lambda w: total(w).sum(), weights)
    shifts = torch.eye(len(weights), dtype=torch.float64) * (np.pi / 2)
    torch.testing.assert_close(gradient, (total(weights + shifts) - total(weights - shifts)) / 2, rtol=0, atol=1e-12)


def hardware_efficient(qubits: int, layers: int) -> CircuitTemplate:
    circuit, weights = Circuit(qubits), list[str]()
    for layer in range(layers):
        for q in range(qubits):
            circuit.Ry(Symbol(f"x{q}") / pi, q)
        for q in range(qubits):
            for gate in (circuit.Ry, circuit.Rz):
                weights.append(f"w{layer}_{len(weights)}")
                gate(Symbol(weights[-1]) / pi, q)
        for q in range(qubits):
            circuit.CX(q, (q + 1) % qubits)
    return CircuitTemplate(circuit, tuple(f"x{q}" for q in range(qubits)), tuple(weights))


@pytest.mark.parametrize(("qubits", "batch"), [(4, 19), (9, 11), (13, 3), (14, 5)])
def test_threads_and_batches_change_nothing(qubits: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_SERIAL", 0)  # threads for any work
    template = hardware_efficient(qubits, 2)
    program, before = lower(template), torch.get_num_threads()
    data, weights = torch.randn(batch, qubits), torch.randn(len(template.weights))

    def run(threads: int, parts: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        x, w = data.clone().requires_grad_(), weights.clone().requires_grad_()
        outs = [expectations(program, single_z(qubits), data=part, weights=w)[0] for part in x.chunk(parts)]
        out = torch.cat(outs)
        out.sin().sum().backward()
        return [out.detach(), x.grad, w.grad]

    try:
        one, again, four, split = run(1, 1), run(1, 1), run(4, 1), run(2, 3)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    for other in (four, split):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * max(1.0, float(a.abs().max())))


def test_wide_circuits_agree_with_aer() -> None:
    """Fourteen qubits and more run lane by qubit, in sweeps of chunks and strided blocks."""
    template = hardware_efficient(15, 2)
    data, weights = torch.randn(2, 15, dtype=torch.float64), torch.randn(len(template.weights), dtype=torch.float64)
    states = evolve(lower(template), data=data, weights=weights)[0]
    circuit, backend = template.circuit.copy(), AerStateBackend()
    values = [*data[1].tolist(), *weights.tolist()]
    circuit.symbol_substitution(dict(zip(map(Symbol, template.data + template.weights), values, strict=True)))
    other = backend.run_circuit(backend.get_compiled_circuit(circuit, 0)).get_state()
    assert abs(abs(np.vdot(other, states[1].numpy())) - 1) < 1e-10


def test_wide_gradients_agree_with_narrow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    template = hardware_efficient(12, 2)
    program, found = lower(template), []
    data, weights = torch.randn(2, 12, dtype=torch.float64), torch.randn(len(template.weights), dtype=torch.float64)
    for threshold in (99, 3):
        monkeypatch.setattr(compiled, "WIDE_QUBITS", threshold)
        monkeypatch.setattr(compiled, "NARROWEST_WIDE", 99)
        compiled.simulation.cache_clear()
        x, w = data.clone().requires_grad_(), weights.clone().requires_grad_()
        expectations(program, one_and_two_body(12)[::7], data=x, weights=w).sin().sum().backward()
        found.append((x.grad, w.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


def test_angles_that_are_not_affine() -> None:
    x, w = Symbol("x"), Symbol("w")
    program = lower(CircuitTemplate(Circuit(1).Ry(w * x**2, 0).Rz(x, 0).Rx(w, 0), ("x",), ("w",)))
    data, weight = torch.tensor([[0.7], [-0.2]], dtype=torch.float64), torch.tensor([1.3], dtype=torch.float64)
    for value, state in zip(data[:, 0].tolist(), evolve(program, data=data, weights=weight)[0], strict=True):
        wanted = Circuit(1).Ry(1.3 * value**2, 0).Rz(value, 0).Rx(1.3, 0).get_statevector()
        assert np.abs(state.numpy() - wanted).max() < 1e-12
    inputs = [data.requires_grad_(), weight.requires_grad_()]
    assert torch.autograd.gradcheck(lambda d, w: expectations(program, single_z(1), data=d, weights=w), inputs)


def test_final_states_simulated_again_where_they_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    program, found = lower(random_template()), []
    data, weights = torch.randn(9, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    for limit in (2**28, 0):
        monkeypatch.setattr(compiled, "KEPT_BYTES", limit)
        x = data.clone().requires_grad_()
        probabilities(program, data=x, weights=weights).square().sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)


def test_another_number_of_threads_between_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """With eight examples a thread more makes lanes qubits, with final states of the same size."""
    monkeypatch.setattr(compiled, "_SERIAL", 0)
    program, found = lower(hardware_efficient(6, 1)), []
    data, weights = torch.randn(8, 6, dtype=torch.float64), torch.randn(len(program.weights), dtype=torch.float64)
    before = torch.get_num_threads()
    for threads in ((1, 1), (4, 1), (1, 4)):
        x = data.clone().requires_grad_()
        torch.set_num_threads(threads[0])
        out = expectations(program, single_z(6), data=x, weights=weights)
        torch.set_num_threads(threads[1])
        out.sin().sum().backward()
        found.append(x.grad)
    torch.set_num_threads(before)
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[2], found[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("words", [("Z0", "Z1Z3", "Z4"), ("Z0", "X1", "Y2Z3")])
def test_phases_before_a_measurement_and_rotations_after_one_another(lanes: str, words: tuple[str, ...]) -> None:
    """Gradients of angles that a measurement along Z cannot tell are zero, and of all others the reference's."""
    circuit = Circuit(5)
    for q in range(5):
        circuit.Ry(Symbol("x"), q).Ry(Symbol(f"w{q}"), q).Rz(Symbol("x") * 0.3, q)
    circuit.CX(0, 4).CX(3, 1)
    for q in range(5):
        circuit.Rx(Symbol(f"w{q}") + 0.2, q).Rz(Symbol("v"), q).Rz(Symbol("x"), q)
    circuit.CZ(0, 1).CX(4, 2).CX(2, 0)
    names = tuple(f"w{q}" for q in range(5))
    program, measured = lower(CircuitTemplate(circuit, ("x",), (*names, "v"))), measurement_of(" ".join(words))
    inputs = torch.randn(1, 9, 1, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    found = []
    for ours in (True, False):
        d, w = (t.clone().requires_grad_() for t in inputs)
        out = (
            simulate(program, measured, data=d, weights=w)
            if ours
            else reference.simulate(program, measured, d, w, None)
        )
        found.append((out.detach(), *torch.autograd.grad(out.sin().sum(), (d, w))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)
    assert "X1" in words or found[0][2][0, -1].abs() < 1e-15


def test_more_memory_than_there_is_is_refused_before_it_is_taken() -> None:
    wide = lower(CircuitTemplate(Circuit(28).H(0), (), ()))
    with pytest.raises(ExecutionError, match=r"needs \d+\.\d GiB and \d+\.\d GiB is free"):
        evolve(wide, amplitudes=torch.zeros(1, 1).expand(64, 2**28))
    what = compiled.simulation(lower(hardware_efficient(20, 1)), Expectations(single_z(20)))
    needed, state = what.memory(4, 4, loaded=False, training=True), 2**20 * 8
    assert needed["states"] <= 6 * state * torch.get_num_threads()
    assert needed["kept"] <= 4 * state


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_angles_that_are_no_numbers_show(bad: float) -> None:
    data = torch.zeros(9, 5)
    data[4, 0] = bad
    values = expectations(lower(random_template()), single_z(5), data=data, weights=torch.zeros(3))[0]
    assert values[4].isnan().any()
    assert values[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()
    unseen = lower(CircuitTemplate(Circuit(1).Ry(0.3, 0).Rz(Symbol("x"), 0), ("x",), ()))
    values = expectations(unseen, single_z(1), data=torch.tensor([[0.1], [bad]]))[0]
    assert values.isnan().flatten().tolist() == [False, True]


def test_expectations_agree_with_pytket() -> None:
    circuit = Circuit(4).H(0).CX(0, 1).Ry(0.3, 2).Rx(0.7, 3).CX(2, 3).S(1).CZ(1, 2)
    program = lower(CircuitTemplate(circuit, (), ()))
    strings = (*one_and_two_body(4), ((0, "X"), (1, "Y"), (3, "Z")), ())
    got = expectations(program, strings, weights=torch.zeros(1, 0, dtype=torch.float64))[0, 0].numpy()
    for value, string in zip(got, strings, strict=True):
        pauli = QubitPauliString([Qubit(q) for q, _ in string], [getattr(Pauli, a) for _, a in string])
        assert abs(value - pauli.state_expectation(circuit.get_statevector()).real) < 1e-12
    assert len(measurement_settings(one_and_two_body(4))) == 3


def test_probabilities_sum_to_one_in_single_precision() -> None:
    chance = probabilities(lower(random_template()), data=torch.randn(7, 5), weights=torch.randn(3))
    torch.testing.assert_close(chance.sum(-1), torch.ones(1, 7))


def test_no_layers_no_batch_no_strings() -> None:
    weights = torch.randn(3, requires_grad=True)
    data = torch.randn(0, 5, requires_grad=True)
    out = expectations(lower(random_template()), single_z(5), data=data, weights=weights)
    out.sum().backward()
    assert out.shape == (1, 0, 5)
    assert data.grad.shape == (0, 5)
    assert weights.grad.eq(0).all()
    assert expectations(lower(random_template()), (), data=torch.randn(2, 5), weights=torch.randn(3)).shape == (1, 2, 0)
    amplitudes = torch.nn.functional.normalize(torch.randn(2, 8), dim=-1)
    kept = probabilities(lower(CircuitTemplate(Circuit(3), (), (), amplitudes=True)), amplitudes=amplitudes)
    torch.testing.assert_close(kept[0], amplitudes.square())


def test_empty_circuit_and_empty_batch() -> None:
    assert probabilities(lower(CircuitTemplate(Circuit(2), (), ())))[0, 0].tolist() == [1, 0, 0, 0]
    assert evolve(lower(random_template()), data=torch.randn(0, 5), weights=torch.randn(3)).shape == (1, 0, 32)


def test_refusals_are_clear() -> None:
    with pytest.raises(CircuitError, match="remove measurements"):
        lower(CircuitTemplate(Circuit(1, 1).Measure(0, 0), (), ()))
    with pytest.raises(CircuitError, match="neither"):
        CircuitTemplate(Circuit(1).Ry(Symbol("x"), 0), (), ())
    with pytest.raises(ExecutionError, match="5 symbols there"):
        evolve(lower(random_template()), data=torch.randn(2, 4), weights=torch.randn(3))
