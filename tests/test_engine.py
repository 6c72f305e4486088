"""The engine against pytket's statevector and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit, OpType, Qubit
from pytket.pauli import Pauli, QubitPauliString
from sympy import Symbol, pi

from qcascade.circuits.observables import measurement_settings, one_and_two_body
from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import evolve, expectations, lower, probabilities, unitary_columns
from qcascade.errors import CircuitError, ExecutionError

ONE = (OpType.Rx, OpType.Ry, OpType.Rz, OpType.U1)
FIXED = (OpType.H, OpType.X, OpType.Y, OpType.Z, OpType.S, OpType.Sdg, OpType.T, OpType.Tdg, OpType.SX, OpType.V)
TWO = (OpType.CX, OpType.CZ, OpType.SWAP, OpType.CY, OpType.CH)
TWO_ANGLED = (OpType.CU1, OpType.CRz, OpType.ZZPhase, OpType.XXPhase, OpType.CRy)


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    """Random circuits on one to five qubits, over two registers where there are enough, permutations included."""
    qubits = draw(st.integers(1, 5))
    circuit = Circuit()
    for i in range(qubits):
        circuit.add_qubit(Qubit("a" if i < 2 else "b", i if i < 2 else i - 2))
    wires = circuit.qubits
    for _ in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(ONE + FIXED + (TWO + TWO_ANGLED if qubits > 1 else ())))
        angles = [draw(st.floats(-2, 2))] if kind in ONE + TWO_ANGLED else []
        places = draw(st.permutations(wires))[: 2 if kind in TWO + TWO_ANGLED else 1]
        circuit.add_gate(kind, angles, list(places))
    if draw(st.booleans()):
        circuit.replace_SWAPs()
    return circuit


@settings(max_examples=60, deadline=None)
@given(circuits())
def test_agrees_with_pytket(circuit: Circuit) -> None:
    program = lower(CircuitTemplate(circuit, data=(), weights=()))
    state = evolve(program, weights=torch.zeros(1, 0, dtype=torch.float64))[0, 0].numpy()
    assert np.abs(state - circuit.get_statevector()).max() < 1e-10
    assert abs(np.linalg.norm(state) - 1) < 1e-12


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


def test_gradients_for_data_weights_and_amplitudes() -> None:
    program = lower(random_template(amplitudes=True))
    paulis = (((0, "Z"),), ((1, "X"), (3, "X")), ((2, "Y"),))

    def values(data: torch.Tensor, weights: torch.Tensor, amplitudes: torch.Tensor) -> torch.Tensor:
        return expectations(program, paulis, data=data, weights=weights, amplitudes=amplitudes)

    inputs = (torch.randn(2, 5), torch.randn(2, 3), torch.nn.functional.normalize(torch.randn(2, 32), dim=-1))
    assert torch.autograd.gradcheck(values, [t.double().requires_grad_() for t in inputs])


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
