"""A hybrid out of its own document and tensors is the same hybrid: values, modes, outputs, gradients, ties, bytes."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from conftest import bert, gpt2, text_inputs
from pytket.circuit import Circuit
from sympy import symbols
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import qcascade
from qcascade.bundle.hybrid_json import hybrid_json, hybrid_of
from qcascade.bundle.plan_json import plan_of
from qcascade.bundle.weights import layout, stored_tensors, write_weights
from qcascade.errors import BundleError, ExecutionError
from qcascade.hybrid import HybridModule


class Everything(nn.Module):
    """Ties, buffers of both kinds, constants, blocks without gradient and under autocast, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.second.weight = self.first.weight
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.register_buffer("scale", torch.full((8,), 0.5), persistent=False)
        self.names = nn.ModuleDict({"a-b": nn.Linear(8, 8, bias=False)})
        self.shift = torch.arange(8.0)

    def forward(self, x: Tensor, flag: bool = True, *, factor: float = 2.0) -> dict[str, Any]:
        with torch.no_grad():
            still = self.first(x) * self.scale + torch.rand(8)
            bounded = still * torch.tensor([float("inf")]).clamp(max=3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            wide = self.second(x) @ torch.ones(8, 8)
        y = self.drop(self.norm(wide.float() * self.shift + self.names["a-b"](x)))
        logits = (self.head(y + bounded * factor)).masked_fill(torch.isnan(x[:, :3]), -torch.inf)
        return {"logits": logits, "rest": [y, (x, still)]}


class Layered(nn.Module):
    """A model with a circuit of its own."""

    def __init__(self) -> None:
        super().__init__()
        x, a, b = symbols("x a b")
        circuit = Circuit(3).Ry(x, 0).CX(0, 1).Rz(a, 1).CZ(1, 2).Ry(b * x, 2).SWAP(0, 2)
        self.circuit, self.out = (
            qcascade.QuantumLayer(circuit, inputs=["x"], observables=["ZIZ", "XYI"]),
            nn.Linear(2, 8),
        )
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.out(self.circuit(x))))


SMALL = {
    "amplitude_attention_pooling": {"slots": 2, "layers": 1, "max_length": 16, "local_width": 3},
    "random_circuit_embedding": {"qubits": 2, "layers": 1, "rotations": 1},
    "reuploading_head": {"qubits": 2, "offsets": 1, "uploads": 1},
}


def _bert() -> tuple[HybridModule, dict[str, Any]]:
    return qcascade.compile(bert(vocab_size=400), kernels=SMALL, seed=3), text_inputs()


def _everything() -> tuple[HybridModule, dict[str, Any]]:
    hybrid = qcascade.compile(Everything(), (torch.randn(4, 8),), kernels=["amplitude_adapter"])
    return hybrid, {"x": torch.randn(4, 8)}


def _layered() -> tuple[HybridModule, dict[str, Any]]:
    return qcascade.compile(Layered(), (torch.randn(4, 1),), kernels={"reuploading_head": SMALL["reuploading_head"]}), {
        "x": torch.rand(5, 1)
    }


MODELS: dict[str, Callable[[], tuple[HybridModule, dict[str, Any]]]] = {
    "bert": _bert,
    "everything": _everything,
    "layered": _layered,
}


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[HybridModule, dict[str, Any]]]:
    return {name: make() for name, make in MODELS.items()}


def loaded(hybrid: HybridModule) -> HybridModule:
    """The hybrid out of its document and the bytes of its weights."""
    from safetensors.torch import load

    stored, stream = stored_tensors(hybrid), io.BytesIO()
    write_weights(stream.write, layout(stored.tensors), stored.tensors)
    return hybrid_of(hybrid_json(hybrid), load(stream.getvalue()))


@pytest.mark.parametrize("name", MODELS)
def test_same_values_outputs_and_gradients(name: str, pairs: dict[str, tuple[HybridModule, dict[str, Any]]]) -> None:
    hybrid, inputs = pairs[name]
    hybrid = copy.deepcopy(hybrid)
    again = loaded(hybrid)
    assert list(again.state_dict()) == list(hybrid.state_dict())
    assert again.plan == hybrid.plan
    assert [(n, type(k), k.arguments()) for n, k in again.kernels.items()] == [
        (n, type(k), k.arguments()) for n, k in hybrid.kernels.items()
    ]
    for training in (False, True):
        results = []
        for module in (hybrid, again):
            module.train(training)
            module.zero_grad()
            torch.manual_seed(5)
            leaves, structure = pytree.tree_flatten(module(**inputs))
            sum(leaf.float().square().sum() for leaf in leaves if leaf.requires_grad).backward()
            results.append((leaves, structure, {n: p.grad for n, p in module.named_parameters()}))
        (ours, form, gradients), (theirs, other_form, others) = results
        assert form == other_form
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert list(gradients) == list(others)
        assert all(g is others[n] if g is None else torch.equal(g, others[n]) for n, g in gradients.items())
    assert all(
        torch.equal(a, b) for a, b in zip(hybrid.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_same_document_again(name: str, pairs: dict[str, tuple[HybridModule, dict[str, Any]]]) -> None:
    hybrid, _ = pairs[name]
    document, again = hybrid_json(hybrid), loaded(hybrid)
    assert hybrid_json(again) == document
    assert again._state.evaluation.source == hybrid._state.evaluation.source
    assert layout(stored_tensors(again).tensors) == layout(stored_tensors(hybrid).tensors)
    stream = io.BytesIO()
    torch.save(again, stream)
    stream.seek(0)
    for other in (copy.deepcopy(again), copy.deepcopy(hybrid), torch.load(stream, weights_only=False)):
        assert hybrid_json(other) == document


def test_a_saved_hybrid_has_its_graphs_and_computes_what_it_did(
    pairs: dict[str, tuple[HybridModule, dict[str, Any]]],
) -> None:
    hybrid, inputs = pairs["everything"]
    again = pickle.loads(pickle.dumps(hybrid))
    assert hybrid_json(again) == hybrid_json(hybrid)
    assert again._state.evaluation.dimensions == (("d0", 8),)
    results = []
    for module in (hybrid, again, pickle.loads(pickle.dumps(again))):
        torch.manual_seed(1)  # the random numbers of the no_grad block are drawn at every call
        results.append([module.eval()(**inputs)["rest"][1][1] for _ in range(2)])
    assert not torch.equal(results[0][0], results[0][1])
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_ties_modes_and_frozen_weights_stay(pairs: dict[str, tuple[HybridModule, dict[str, Any]]]) -> None:
    hybrid = copy.deepcopy(pairs["everything"][0]).train()
    hybrid.get_submodule("norm").eval()
    hybrid.get_submodule("head.quantum.up").eval()
    hybrid.get_parameter("norm.weight").requires_grad_(False)
    again = loaded(hybrid)
    assert again.get_parameter("second.weight") is again.get_parameter("first.weight")
    assert not again.get_parameter("head.weight").requires_grad  # frozen by its adapter
    modes = {path: part.training for path, part in again.named_modules()}
    assert modes == {path: part.training for path, part in hybrid.named_modules()}
    assert not modes["norm"]
    assert modes["drop"]
    assert {n: p.requires_grad for n, p in again.named_parameters()} == {
        n: p.requires_grad for n, p in hybrid.named_parameters()
    }
    assert "scale" not in again.state_dict()
    assert isinstance(again.get_submodule("norm"), nn.BatchNorm1d)
    assert str(again.get_submodule("norm")) == str(hybrid.get_submodule("norm"))


def test_what_is_loaded_trains_runs_on_samples_and_says_what_it_cannot(
    pairs: dict[str, tuple[HybridModule, dict[str, Any]]],
) -> None:
    hybrid, inputs = pairs["bert"]
    again = loaded(hybrid).train()
    before = {n: p.clone() for n, p in hybrid.named_parameters()}
    optimizer = torch.optim.SGD(again.parameters(), 0.1)
    again(**inputs).logits.sum().backward()
    optimizer.step()
    changed = [n for n, p in again.named_parameters() if not torch.equal(p, before[n])]
    assert any(".quantum." in n for n in changed)
    assert all(torch.equal(p, before[n]) for n, p in hybrid.named_parameters())
    assert type(again.config) is type(hybrid.config)
    assert again.config.id2label == hybrid.config.id2label
    with torch.no_grad():
        again.eval().use("shots", shots=64, seed=1)(**inputs)
    assert again.last_run
    with pytest.raises(ExecutionError, match="replaced"):
        qcascade.distill(again, [inputs])


@pytest.mark.parametrize("make", [gpt2])
def test_causal_models_without_kernels(make: Callable[[], nn.Module]) -> None:
    hybrid = qcascade.compile(make())
    again = loaded(hybrid)
    assert hybrid_json(again) == hybrid_json(hybrid)
    inputs = {**text_inputs(), "use_cache": False}
    assert torch.equal(again.eval()(**inputs).logits, hybrid.eval()(**inputs).logits)


def test_what_has_no_form_is_refused_when_it_is_written() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("a'b", nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.get_submodule("a'b")(x)

    with pytest.raises(BundleError, match="letters, digits"):
        hybrid_json(qcascade.compile(Named(), (torch.zeros(2, 4),)))
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    hybrid = qcascade.compile(model, (torch.zeros(2, 8),), kernels=["amplitude_adapter"], include="0")
    next(iter(hybrid.kernels.values())).up = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(BundleError, match="as its constructor makes them"):
        hybrid_json(hybrid)


def test_another_output_class_becomes_a_dict_and_is_noted() -> None:
    class Own(dict[str, Any]):
        pass

    pytree.register_pytree_node(Own, lambda o: (list(o.values()), list(o)), lambda v, k: Own(zip(k, v, strict=True)))

    class Gives(nn.Linear):
        def forward(self, input: Tensor) -> Own:
            return Own(y=super().forward(input))

    notes: list[str] = []
    hybrid = qcascade.compile(Gives(4, 2), (torch.zeros(2, 4),))
    document = hybrid_json(hybrid, notes.append)
    again = hybrid_of(document, dict(stored_tensors(hybrid).tensors))
    assert type(again(torch.ones(1, 4))) is dict
    assert "Own" in notes[0]
    assert hybrid_json(again) == document


def test_a_circuit_of_the_models_own_runs_in_onnxruntime(
    pairs: dict[str, tuple[HybridModule, dict[str, Any]]], tmp_path: Path
) -> None:
    hybrid = copy.deepcopy(pairs["layered"][0]).eval()
    folder = qcascade.export(hybrid, tmp_path / "bundle")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert {node.domain for node in model.graph.node} == {"", "qcascade"}
    bundle = qcascade.load(folder)
    for batch in (1, 6):
        x = torch.rand(batch, 1)
        with torch.no_grad():
            torch.testing.assert_close(next(iter(bundle(x=x).values())), hybrid(x), atol=1e-5, rtol=0)
    assert torch.equal(bundle.to_torch().eval()(x), hybrid(x))


def test_plans_come_back() -> None:
    plan = qcascade.plan(
        nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)),
        (torch.zeros(2, 8),),
        kernels=["amplitude_adapter"],
        target="line-8",
    )
    assert plan_of(plan.to_dict()) == plan
    for change in ({"schema_version": 99}, {"model": 3}, {"regions": None}, {"more": 1}):
        with pytest.raises(BundleError):
            plan_of({**plan.to_dict(), **change})
