"""Gradients on samples against adjoint gradients: equal without shot noise, within four standard errors with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit
from sympy import Symbol, pi, symbols
from torch import Tensor, nn

import qcascade
from qcascade.circuits.angles import angle_circuit
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.engine import lower, simulate
from qcascade.errors import ExecutionError
from qcascade.executors import NoisyExecutor, ShotsExecutor, gradient_circuits, sampled
from qcascade.kernels import (
    AmplitudeAdapter,
    AmplitudeAttentionPooling,
    QuantumKernel,
    RandomCircuitEmbedding,
    ReuploadingHead,
)
from qcascade.targets import Gate, QubitProperties, Target

LINE = Target(
    "line",
    "six qubits in a line",
    6,
    tuple(Gate(n, (q,), 1e-3, 3e-8) for q in range(6) for n in ("sx", "x"))
    + tuple(Gate("rz", (q,), 0.0, 0.0) for q in range(6))
    + tuple(Gate("cz", (q, q + 1), 1e-2, 7e-8) for q in range(5)),
    (QubitProperties(0.02, 1e-6, 1e-4, 1e-4),) * 6,
)


class Normalised(nn.Module):
    """A layer that starts from what comes from a classical one."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = symbols("a b c")
        circuit = Circuit(2).Ry(a, 0).CX(0, 1).Rz(b * 0.5 + 0.1, 1).Rx(a + b, 0).CRy(c, 0, 1)
        self.layer = qcascade.QuantumLayer(circuit, ["a"], ["ZI", "XY"], initial_state=True)
        self.before = nn.Linear(3, 8)

    def use(self, *args: object, **options: object) -> None:
        self.layer.use(*args, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        states = nn.functional.normalize(torch.view_as_complex(self.before(x).unflatten(-1, (4, 2))), dim=-1)
        return self.layer(x[:, :1], states)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "attention": (
        lambda: AmplitudeAttentionPooling(4, 1, 8, slots=2, layers=1),
        lambda: (torch.randn(2, 6, 4), torch.tensor([[True] * 6, [True] * 4 + [False] * 2])),
    ),
    "embedding": (
        lambda: RandomCircuitEmbedding(9, 4, qubits=3, layers=1),
        lambda: (torch.tensor([[1, 2, 2], [4, 5, 1]]),),
    ),
    "compositional embedding": (
        lambda: RandomCircuitEmbedding(9, 4, qubits=3, layers=1, angles="compositional", base=3),
        lambda: (torch.tensor([1, 2, 8]),),
    ),
    "head": (lambda: ReuploadingHead(7, 2, qubits=3, uploads=1), lambda: (torch.randn(3, 7),)),
    "adapter": (lambda: AmplitudeAdapter(6, 3), lambda: (torch.randn(3, 6), torch.randn(3, 3))),
    "layer": (Normalised, lambda: (torch.randn(3, 3),)),
}


def case(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    make, draw = CASES[name]
    module = make().double()
    for parameter in module.parameters():
        if not parameter.detach().any():  # zero starts would hide what comes after them
            nn.init.normal_(parameter)
    inputs = tuple(x.double().requires_grad_() if x.is_floating_point() else x for x in draw())
    return module, inputs


def gradient(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """All gradients in one vector, of a fixed combination of the outputs."""
    values = module(*inputs)
    combined = (values * torch.linspace(-1, 1, values.numel(), dtype=values.dtype).view(values.shape)).sum()
    wanted = [*module.parameters(), *(x for x in inputs if x.is_floating_point())]
    return torch.cat([g.flatten() for g in torch.autograd.grad(combined, wanted)])


@pytest.mark.parametrize("name", CASES)
def test_shift_rules_without_shot_noise_are_adjoint_gradients(name: str) -> None:
    module, inputs = case(name)
    exact, values = gradient(module, inputs), module(*inputs)
    module.use("shots", shots=None)
    torch.testing.assert_close(module(*inputs), values, atol=1e-9, rtol=0)
    torch.testing.assert_close(gradient(module, inputs), exact, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_gradients_on_samples_are_within_four_standard_errors(name: str) -> None:
    module, inputs = case(name)
    exact = gradient(module, inputs)
    module.use("shots", shots=20_000, seed=7)
    drawn = torch.stack([gradient(module, inputs) for _ in range(64)])
    error = drawn.std(0) / len(drawn) ** 0.5
    # some entries do not depend on samples: they agree to rounding
    assert torch.all((drawn.mean(0) - exact).abs() <= 4 * error + 1e-9)
    assert error.max() > 0


@pytest.mark.parametrize("name", ["head", "layer"])
def test_simultaneous_perturbation_points_the_same_way(name: str) -> None:
    module, inputs = case(name)
    exact = gradient(module, inputs)
    module.use("shots", shots=None, gradients="spsa", spsa_step=0.01, spsa_samples=4000, seed=0)
    found = gradient(module, inputs)
    assert nn.functional.cosine_similarity(found, exact, dim=0) > 0.99


def test_simultaneous_perturbation_runs_two_circuits_an_example_and_sample() -> None:
    module, inputs = case("adapter")
    module.use("shots", shots=100, gradients="spsa", spsa_samples=3, seed=0)
    gradient(module, inputs)
    executor = module.executor
    assert [(run.purpose, run.circuits, run.submissions) for run in executor.history] == [
        ("values", 3, 1),
        ("gradients", 18, 1),
    ]


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_random_circuits(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [Symbol(n) for n in ("x", "y", "u", "v")]
    circuit = Circuit(3)
    for _ in range(10):
        kind, place = random.integers(6), [int(q) for q in random.permutation(3)]
        angle = names[random.integers(4)] * float(random.normal()) + float(random.normal())
        if kind == 0:
            circuit.CX(place[0], place[1])
        elif kind == 1:
            circuit.CRz(angle, place[0], place[1])
        elif kind == 2:
            circuit.ZZPhase(angle, place[0], place[1])
        elif kind == 3:
            circuit.TK1(0.3, angle, names[random.integers(4)], place[0])
        else:
            (circuit.Rx if kind == 4 else circuit.Ry)(angle, place[0])
    template = CircuitTemplate(
        circuit, ("x", "y"), ("u", "v"), measurement=Expectations((((0, "X"), (2, "Y")), ((1, "Z"),)))
    )
    generator = torch.Generator().manual_seed(seed)
    data, weights = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in ((2, 2), (3, 2))
    )
    mix = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    exact = torch.autograd.grad(
        (simulate(lower(template), template.measurement, data=data, weights=weights) * mix).sum(), (data, weights)
    )
    found = torch.autograd.grad(
        (sampled(ShotsExecutor(None), template, data=data, weights=weights) * mix).sum(), (data, weights)
    )
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def test_compiled_circuits_have_exact_shift_rules_under_noise() -> None:
    kernel = AmplitudeAdapter(6, 3).double()
    nn.init.normal_(kernel.up.weight)
    x, y = torch.randn(2, 6, dtype=torch.float64, requires_grad=True), torch.zeros(2, 3, dtype=torch.float64)
    kernel.use(NoisyExecutor(LINE, None))
    direction = torch.randn_like(kernel.angles)
    start = kernel.angles.detach().clone()
    (slope,) = torch.autograd.grad(kernel(x, y).sum(), kernel.angles)
    values = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            kernel.angles.copy_(start + step * direction)
            values.append(kernel(x, y).sum())
    assert abs((values[0] - values[1]) / 2e-4 - slope @ direction) < 1e-6


@pytest.mark.parametrize(
    "wanted", [(True, True, True), (False, True, True), (True, False, False), (False, False, True)]
)
def test_counts_are_what_runs(wanted: tuple[bool, bool, bool]) -> None:
    circuit, w = Circuit(2), [Symbol(f"w{k}") / pi for k in range(3)]
    circuit.Ry(Symbol("x") / pi, 0).CU1(w[0], 0, 1).Rx(w[1], 1).CX(0, 1).Rz(w[2] + Symbol("x"), 1)
    template = CircuitTemplate(
        circuit, ("x",), ("w0", "w1", "w2"), True, True, Expectations((((0, "Z"),), ((0, "X"),)))
    )
    states = nn.functional.normalize(torch.randn(5, 4), dim=-1)
    parts = [t.requires_grad_(need) for t, need in zip((torch.rand(5, 1), torch.rand(3), states), wanted, strict=True)]
    for executor in (ShotsExecutor(10, seed=0), NoisyExecutor(LINE, 10, seed=0)):
        values = sampled(executor, template, data=parts[0], weights=parts[1], amplitudes=parts[2])
        values.sum().backward()
        data, weights, amplitudes = wanted
        counted = gradient_circuits(executor.prepare(template), data=data, weights=weights, amplitudes=amplitudes)
        assert executor.history[-1].circuits == 5 * counted
        assert executor.history[-1].submissions == 1
    assert counted == gradient_circuits(executor.prepare(template), data=data, weights=weights, amplitudes=amplitudes)
    assert gradient_circuits(angle_circuit(template), gradients="spsa", spsa_samples=2) == 8


def test_no_gradient_no_circuits_and_no_second_derivative() -> None:
    layer = qcascade.QuantumLayer(Circuit(1).Ry(Symbol("w"), 0), []).use("shots", shots=10, seed=0)
    with torch.no_grad():
        layer()
    value = layer()
    with pytest.raises(ExecutionError, match="no second derivatives"):
        torch.autograd.grad(value.sum(), layer.weights, create_graph=True)
    value.sum().backward()
    assert [run.purpose for run in layer.executor.history] == ["values", "values", "gradients"]


def test_training_on_samples_learns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), ReuploadingHead(4, 2, qubits=2, uploads=1, offsets=1))
    x = torch.randn(64, 4)
    labels = (x[:, 0] + x[:, 1] > 0).long()
    kernel = model[1]
    assert isinstance(kernel, QuantumKernel)
    kernel.use("shots", shots=200, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
