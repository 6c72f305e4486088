"""The engine's torch operators under everything that torch does to modules: gradients stay, or an error is raised."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from pytket.circuit import Circuit
from sympy import Symbol, pi
from torch import Tensor, nn

import qcascade
from qcascade.engine import simulate
from qcascade.engine.text import measurement_of, program_of


def layer(initial_state: bool = False, measure: str = "expectation") -> qcascade.QuantumLayer:
    torch.manual_seed(0)
    circuit = Circuit(3)
    for q in range(3):
        circuit.Ry(Symbol(f"x{q}") / pi, q).Rz(Symbol(f"w{q}"), q)
    circuit.CX(0, 1).ZZPhase(Symbol("w3"), 1, 2).Rx(Symbol("w4"), 2).CX(2, 0)
    return qcascade.QuantumLayer(
        circuit, ["x0", "x1", "x2"], ["ZII", "XXI", "IYZ"] if measure == "expectation" else None, measure, initial_state
    )


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    """A checkable gradient: of Σ sin(out) with respect to input and weights."""
    x = x.clone().requires_grad_()
    weights = [p for p in module.parameters() if p.requires_grad]
    return list(torch.autograd.grad(module(x).sin().sum(), [x, *weights]))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("measure", ["expectation", "probabilities"])
def test_export_keeps_gradients(measure: str, x: Tensor) -> None:
    module = layer(measure=measure)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(module, (x,), strict=False, dynamic_shapes=({0: batch},))
    exported = program.module()
    assert "qcascade.simulate" in str(program.graph)
    for n in (4, 7):
        torch.testing.assert_close(exported(x[:1].expand(n, 3)), module(x[:1].expand(n, 3)))
    torch.testing.assert_close(gradients(exported, x), gradients(module, x))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    torch.testing.assert_close(gradients(torch.export.load(file).module(), x), gradients(module, x))


def test_compile_keeps_gradients(x: Tensor) -> None:
    module = layer()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))
    torch.testing.assert_close(gradients(compiled, x), gradients(module, x))


def test_vmap_and_functional_gradients(x: Tensor) -> None:
    module = layer()
    many = torch.stack((x, x.flip(0), 2 * x))
    mapped = torch.func.vmap(module)(many)
    torch.testing.assert_close(mapped, torch.stack([module(part) for part in many]))
    weights = dict(module.named_parameters())

    def loss(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        return torch.func.functional_call(module, parameters, (example[None],)).sin().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)["weights"]
    torch.testing.assert_close(each.sum(0), gradients(module, x)[1])
    for gradient, example in zip(each, x, strict=True):
        torch.testing.assert_close(gradient, gradients(module, example[None])[1])
    twice = torch.func.jacrev(torch.func.jacrev(lambda w: torch.func.functional_call(module, {"weights": w}, (x,))))
    with pytest.raises(qcascade.ExecutionError, match="plain eager mode"):
        twice(module.weights)


def test_autocast_stays_in_its_own_precision(x: Tensor) -> None:
    module = layer()
    plain = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x), plain, rtol=0, atol=0)
        half = module(x.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, module(x.bfloat16().float()), rtol=0, atol=0)


def test_copies_and_pickles_train_alike(x: Tensor) -> None:
    module = layer()
    wanted = gradients(module, x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(gradients(other, x), wanted, rtol=0, atol=0)
        assert list(other.state_dict()) == ["weights"]


def test_second_derivatives_are_right_in_eager_mode_and_raise_elsewhere(x: Tensor) -> None:
    module = layer(initial_state=True).double()
    amplitudes = nn.functional.normalize(torch.randn(2, 8, dtype=torch.complex128), dim=-1)
    inputs = [x[:2].double().requires_grad_(), module.weights, amplitudes.requires_grad_()]
    weights = module.weights.detach()

    def values(data: Tensor, w: Tensor, a: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"weights": w}, (data, a))

    inputs[1] = weights.requires_grad_()
    assert torch.autograd.gradgradcheck(values, inputs)
    exported = torch.export.export(layer(), (x,), strict=False).module()
    data = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(exported(data).sum(), data, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), data)


def test_backward_twice_over_one_graph(x: Tensor) -> None:
    module = layer()
    loss = module(x).sin().sum()
    first = torch.autograd.grad(loss, module.weights, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, module.weights)[0], first, rtol=0, atol=0)


def test_a_changed_input_is_noticed(x: Tensor) -> None:
    module = layer()
    out = module(x).sum()
    with torch.no_grad():
        module.weights.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_text_and_back_is_the_same_program(x: Tensor) -> None:
    module = layer()
    measurement = module.template.measurement
    program = program_of(module._program.text)
    assert program.text == module._program.text
    assert measurement_of(measurement.text) == measurement
    found = simulate(program, measurement, data=x, weights=module.weights, squeeze=True)
    torch.testing.assert_close(found, module(x), rtol=0, atol=0)


class Tokens(nn.Module):
    """An embedding, an encoder layer and a head, all of which become kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(500, 32)
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(32, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(ids)).mean(1))


def test_whole_hybrids_keep_their_gradients() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 500, (3, 8))
    kernels = {
        "amplitude_attention_pooling": {},
        "random_circuit_embedding": {"qubits": 4, "layers": 2},
        "reuploading_head": {},
    }
    hybrid = qcascade.compile(Tokens(), ids, kernels=kernels)
    assert len(hybrid.kernels) == 3

    def found(module: nn.Module) -> dict[str, Tensor]:
        parameters = dict(module.named_parameters())
        gradients = torch.autograd.grad(module(ids).sin().sum(), list(parameters.values()))
        return {name.removeprefix("_orig_mod."): g for name, g in zip(parameters, gradients, strict=True)}

    wanted = found(hybrid)
    assert all(gradient.abs().sum() > 0 for name, gradient in wanted.items() if "quantum" in name)
    torch.testing.assert_close(found(torch.compile(hybrid, fullgraph=True, backend="aot_eager")), wanted)
    torch.testing.assert_close(found(torch.export.export(hybrid, (ids,), strict=False).module()), wanted)
    torch.testing.assert_close(found(copy.deepcopy(hybrid)), wanted, rtol=0, atol=0)
    torch.testing.assert_close(found(pickle.loads(pickle.dumps(hybrid))), wanted, rtol=0, atol=0)
    many = torch.stack((ids, ids.flip(1)))
    torch.testing.assert_close(torch.func.vmap(hybrid)(many), torch.stack([hybrid(part) for part in many]))


def test_examples_that_do_not_match_are_refused_inside_compiled_graphs_too(x: Tensor) -> None:
    module = layer(initial_state=True)
    states = nn.functional.normalize(torch.randn(4, 8, dtype=torch.complex64), dim=-1)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(x, states), module(x, states))
    with pytest.raises(Exception, match="4 examples and amplitudes 3"):
        compiled(x, states[:3])
