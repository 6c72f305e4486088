"""QuantumLayer against pytket, and its refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pytket.circuit import Circuit, Qubit
from pytket.pauli import Pauli, QubitPauliString
from pytket.utils import QubitPauliOperator
from sympy import Symbol, symbols
from torch import nn

import qcascade
from qcascade.errors import CircuitError, ExecutionError
from qcascade.targets import Target


def two_registers() -> Circuit:
    a, b, c, d = symbols("a b c d")
    circuit = Circuit()
    left, right = circuit.add_q_register("l", 2), circuit.add_q_register("r", 1)
    circuit.Ry(c, left[0]).CX(left[0], right[0]).Rx(a + 2 * b, left[1]).CRz(d, left[1], right[0]).SWAP(left[0], left[1])
    circuit.Ry(a, right[0])
    circuit.replace_SWAPs()
    return circuit


def test_values_are_pytkets() -> None:
    circuit = two_registers()
    left = [Qubit("l", 0), Qubit("l", 1)]
    string = QubitPauliString(left, [Pauli.X, Pauli.Y])
    total = QubitPauliOperator({string: 0.5, QubitPauliString(Qubit("r", 0), Pauli.Z): -2.0})
    layer = qcascade.QuantumLayer(circuit, ["d", "a"], ["ZIX", string, total]).double()
    assert layer.weight_names == ("c", "b")
    x = torch.rand(3, 2, dtype=torch.float64)
    values = layer(x).detach().numpy()
    for row, got in zip(x.tolist(), values, strict=True):
        bound = circuit.copy()
        numbers = dict(zip(("d", "a", "c", "b"), [*row, *layer.weights.tolist()], strict=True))
        bound.symbol_substitution({Symbol(name): value for name, value in numbers.items()})
        state = bound.get_statevector()
        word = QubitPauliString([*left, Qubit("r", 0)], [Pauli.Z, Pauli.I, Pauli.X])
        order = bound.qubits
        wanted = [word.state_expectation(state, order), string.state_expectation(state, order)]
        wanted.append(0.5 * wanted[1] - 2 * QubitPauliString(Qubit("r", 0), Pauli.Z).state_expectation(state, order))
        assert np.abs(got - np.array(wanted).real).max() < 1e-10


def test_default_observables_and_probabilities() -> None:
    circuit = two_registers()
    layer = qcascade.QuantumLayer(circuit, ["a"])
    chance = qcascade.QuantumLayer(circuit, ["a"], measure="probabilities")
    with torch.no_grad():
        chance.weights.copy_(layer.weights)
    x = torch.rand(5, 1)
    index = torch.arange(8)
    signs = torch.stack([1 - 2.0 * (index >> (2 - q) & 1) for q in range(3)], -1)
    torch.testing.assert_close(layer(x), chance(x) @ signs)
    assert layer(x).shape == (5, 3)


def test_initial_states() -> None:
    layer = qcascade.QuantumLayer(
        Circuit(2).CX(0, 1).Ry(Symbol("w"), 0), [], measure="probabilities", initial_state=True
    )
    states = nn.functional.normalize(torch.randn(4, 4, dtype=torch.complex64), dim=-1).requires_grad_()
    torch.testing.assert_close(layer(None, states).sum(-1), torch.ones(4))
    layer(None, states)[:, 0].sum().backward()
    assert states.grad.abs().sum() > 0


def test_angles_that_are_not_affine_keep_the_shape() -> None:
    x, w = symbols("x w")
    layer = qcascade.QuantumLayer(Circuit(2).Ry(w * x, 0).CX(0, 1), ["x"], ["ZI", "XX"]).double()
    values = layer(torch.tensor([[0.3], [0.8], [-0.1]], dtype=torch.float64))
    assert values.shape == (3, 2)
    angle = torch.pi * layer.weights * torch.tensor([0.3, 0.8, -0.1], dtype=torch.float64)
    torch.testing.assert_close(values[:, 0], angle.cos())  # ⟨Z⟩ after RY
    torch.testing.assert_close(values[:, 1], angle.sin())  # ⟨XX⟩ of cos|00⟩ + sin|11⟩ at half the angle


@pytest.mark.parametrize(
    "executor", [{}, {"executor": "shots", "shots": 50, "seed": 1}, {"executor": "noisy", "shots": None}]
)
def test_barriers_change_nothing(executor: dict[str, Any], torino: Target) -> None:
    target = {"target": torino} if executor.get("executor") == "noisy" else {}
    x = torch.rand(4, 1)
    values = []
    for barriers in (False, True):
        circuit = Circuit(3).H(0).CX(0, 1).Rx(Symbol("a"), 1)
        if barriers:
            circuit.add_barrier([0, 1, 2])
        circuit.ISWAP(0.3, 1, 2).Ry(Symbol("b"), 2)
        if barriers:
            circuit.add_barrier([1])
        layer = qcascade.QuantumLayer(circuit, ["a"]).use(**executor, **target)
        nn.init.constant_(layer.weights, 0.4)
        values.append(layer(x))
    assert torch.equal(*values)


def test_it_trains() -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 2)
    wanted = (x.sum(1) > 1).float() * 2 - 1
    circuit = Circuit(2)
    for layer in range(3):
        for q in range(2):
            circuit.Ry(Symbol(f"x{q}"), q).Rz(Symbol(f"a{layer}{q}"), q).Ry(Symbol(f"b{layer}{q}"), q)
        circuit.CX(0, 1)
    module = qcascade.QuantumLayer(circuit, ["x0", "x1"], ["ZI"])
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (module(x)[:, 0] - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_bad_input_is_one_clear_error() -> None:
    circuit = two_registers()
    with pytest.raises(CircuitError, match="inputs z are no symbols"):
        qcascade.QuantumLayer(circuit, ["z"])
    with pytest.raises(CircuitError, match="named twice"):
        qcascade.QuantumLayer(circuit, ["a", "a"])
    with pytest.raises(CircuitError, match="3 letters"):
        qcascade.QuantumLayer(circuit, ["a"], ["ZZ"])
    with pytest.raises(CircuitError, match="not real"):
        qcascade.QuantumLayer(circuit, ["a"], [QubitPauliOperator({QubitPauliString(Qubit("l", 0), Pauli.Z): 1j})])
    with pytest.raises(CircuitError, match="does not have"):
        qcascade.QuantumLayer(circuit, ["a"], [QubitPauliString(Qubit("q", 7), Pauli.Z)])
    with pytest.raises(CircuitError, match="measure="):
        qcascade.QuantumLayer(circuit, ["a"], measure="samples")
    with pytest.raises(CircuitError, match="remove measurements"):
        qcascade.QuantumLayer(Circuit(1, 1).Ry(Symbol("a"), 0).Measure(0, 0), ["a"])
    layer = qcascade.QuantumLayer(circuit, ["a"])
    with pytest.raises(ExecutionError, match=r"floats \[batch, 1\]"):
        layer(torch.rand(3, 2))
    with pytest.raises(ExecutionError, match="x is missing"):
        layer()
    with pytest.raises(ExecutionError, match="initial_state=True"):
        layer(torch.rand(3, 1), torch.rand(3, 8))
    for seed in (-1, 0.5, True):
        with pytest.raises(ExecutionError, match=f"seed={seed}; a whole number"):
            layer.use("shots", seed=seed)
    with pytest.raises(CircuitError, match="circuit is str; pass a pytket Circuit"):
        qcascade.QuantumLayer("OPENQASM 2.0;", [])  # type: ignore[arg-type]
    with pytest.raises(CircuitError, match="circuit is str; pass a pytket Circuit"):
        qcascade.route("OPENQASM 2.0;", "ibm_torino")  # type: ignore[arg-type]
    with pytest.raises(ExecutionError, match="'annealer' is unknown"):
        layer.use("annealer")
