"""Each kernel against pytket's statevector, and the laws its definition implies."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerStateBackend
from sympy import Symbol
from torch import Tensor

from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.errors import ExecutionError, PlanError
from qcascade.facts import AttentionFacts, EmbeddingFacts, HeadFacts, LinearFacts
from qcascade.kernels import (
    KERNELS,
    AmplitudeAdapter,
    AmplitudeAttentionPooling,
    RandomCircuitEmbedding,
    ReuploadingHead,
)


def bound(template: CircuitTemplate, values: Mapping[str, float]) -> Circuit:
    circuit = template.circuit.copy()
    circuit.symbol_substitution({Symbol(k): v for k, v in values.items()})
    return circuit


def final_state(
    template: CircuitTemplate, values: Mapping[str, float], start: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    return np.asarray(bound(template, values).get_unitary() @ start)


def z_values(state: NDArray[np.complex128]) -> list[float]:
    qubits = int(math.log2(len(state)))
    chance = np.abs(state.reshape([2] * qubits)) ** 2
    return [float((chance.take(0, q) - chance.take(1, q)).sum()) for q in range(qubits)]


def angles_of(template: CircuitTemplate, weights: Tensor) -> dict[str, float]:
    return dict(zip(template.weights, weights.tolist(), strict=True))


@pytest.mark.parametrize("local_width", [0, 3])
def test_attention_agrees_with_pytket(local_width: int) -> None:
    kernel = AmplitudeAttentionPooling(6, 2, 16, slots=3, layers=2, local_width=local_width).double()
    torch.nn.init.normal_(kernel.angles)
    x = torch.randn(2, 11, 6, dtype=torch.float64)
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1, 7:] = False
    got = kernel(x, mask)
    template = kernel.templates()["mixer"]
    wanted = torch.zeros_like(got)
    for b in range(2):
        value = kernel.value(x[b])
        heads = torch.zeros(11, 2, 3, dtype=torch.float64)
        beta = torch.einsum("nd,hrd->nhr", x[b], kernel.mix.view(2, 3, 6)).softmax(-1)
        for h in range(2):
            for r in range(3):
                s = h * 3 + r
                score = (x[b] @ kernel.score[s] / math.sqrt(3)).masked_fill(~mask[b], -torch.inf)
                amplitude = (score.softmax(0).sqrt() * torch.exp(1j * (x[b] @ kernel.phase[s]))).detach().numpy()
                state = final_state(template, angles_of(template, kernel.angles[s]), np.pad(amplitude, (0, 5)))
                chance = torch.tensor(np.abs(state[:11]) ** 2) * mask[b]
                context = (chance / chance.sum()) @ value[:, 3 * h : 3 * h + 3]
                heads[:, h] += beta[:, h, r : r + 1] * context
        y = heads.flatten(1)
        if kernel.local is not None:
            padded = torch.nn.functional.pad((value * mask[b, :, None]).T, (1, 1))
            y = y + sum(kernel.local[:, 0, k, None] * padded[:, k : k + 11] for k in range(3)).T  # type: ignore[union-attr]
        wanted[b] = kernel.output(y)
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 20))
def test_attention_at_zero_angles_is_masked_softmax_pooling(batch: int, length: int, longest: int) -> None:
    longest = max(length, longest)
    kernel = AmplitudeAttentionPooling(8, 2, longest, slots=2)
    x, mask = torch.randn(batch, length, 8), torch.rand(batch, length) < 0.7
    mask[:, 0] = True
    score = torch.einsum("bnd,sd->bsn", x, kernel.score) / 2
    wanted = score.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
    torch.testing.assert_close(kernel.pooling_probabilities(x, mask).flatten(1, 2), wanted, atol=1e-6, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(0, 4), st.sampled_from([0, 3]))
def test_attention_does_not_depend_on_padding_or_batch_mates(length: int, more: int, local_width: int) -> None:
    kernel = AmplitudeAttentionPooling(8, 2, 16, local_width=local_width).double()
    torch.nn.init.normal_(kernel.angles)
    x = torch.randn(20, length + more, 8, dtype=torch.float64)
    mask = torch.zeros(20, length + more, dtype=torch.bool)
    mask[:, :length] = True
    alone = kernel(x[:1, :length])
    torch.testing.assert_close(kernel(x, mask)[:1, :length], alone)
    torch.testing.assert_close(kernel(x[:2], mask[:2])[:1, :length], alone)


def test_attention_takes_masks_as_attention_does() -> None:
    kernel, x = AmplitudeAttentionPooling(8, 2, 16), torch.randn(3, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    wanted = kernel(x, mask.bool())
    square = mask.bool()[:, None, None].expand(3, 1, 5, 5)
    additive = torch.zeros(3, 1, 1, 5).masked_fill(~mask.bool()[:, None, None], torch.finfo(torch.float32).min)
    by_head = mask.bool().repeat_interleave(2, 0)[:, None].expand(6, 5, 5)
    by_thousands = (1.0 - mask)[:, None, None] * -10000
    for form in (mask, square, square.clone(), additive, by_thousands, by_head):
        torch.testing.assert_close(kernel(x, form), wanted)


BIAS = torch.zeros(3, 1, 5, 5)
BIAS[1, 0, 2, 3] = -4.0
BY_HEAD = torch.ones(3, 2, 1, 5, dtype=torch.bool)
BY_HEAD[2, 1, 0, 4] = False


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(3, 1, 5, 5).tril().bool(), "differs from query to query"),
        (torch.zeros(3, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf), "differs from query to query"),
        (BY_HEAD, "from head to head"),
        (BY_HEAD.flatten(0, 1), "from head to head"),
        (BIAS, "holds a bias"),
        (torch.tensor([[0.0, 0, 0, 0, 1]] * 3), "holds a bias"),
    ],
)
def test_attention_refuses_masks_that_are_no_choice_of_keys(mask: Tensor, message: str) -> None:
    kernel = AmplitudeAttentionPooling(8, 2, 16)
    with pytest.raises(ExecutionError, match=f"{message}.*Compile with example_inputs that hold such a mask"):
        kernel(torch.randn(3, 5, 8), mask)


@pytest.mark.parametrize("local_width", [0, 3])
def test_attention_without_any_key_is_attention_to_all(local_width: int) -> None:
    """As a softmax of scores is that are all lowered alike; -inf would be NaN, in every gradient of the batch."""
    kernel, x = AmplitudeAttentionPooling(8, 2, 16, local_width=local_width), torch.randn(3, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    y = kernel(x, (1.0 - mask)[:, None, None] * torch.finfo(torch.float32).min)
    torch.testing.assert_close(y[2:], kernel(x[2:]))
    torch.testing.assert_close(y[:2], kernel(x[:2], mask[:2]))
    y[:2].sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in kernel.parameters())


def test_embedding_agrees_with_aer() -> None:
    kernel = RandomCircuitEmbedding(7, 5, qubits=4, layers=2).double()
    template = kernel.templates()["token"]
    features = kernel.circuit_features(torch.arange(7))
    assert isinstance(template.measurement, Expectations)
    backend = AerStateBackend()
    for token in range(3):
        circuit = bound(template, dict(zip(template.data, kernel.angles[token].tolist(), strict=True)))
        state = backend.run_circuit(backend.get_compiled_circuit(circuit, 0)).get_state()
        matrices = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}
        for value, pauli in zip(features[token].tolist(), template.measurement.paulis, strict=True):
            operator, axes = np.eye(1), dict(pauli)
            for qubit in range(4):
                operator = np.kron(operator, matrices[axes[qubit]] if qubit in axes else np.eye(2))
            assert abs(value - (state.conj() @ operator @ state).real) < 1e-6


def test_embedding_of_padding_is_zero_and_evaluation_is_cached() -> None:
    kernel = RandomCircuitEmbedding(50, 8, qubits=4, padding_index=0)
    ids = torch.tensor([[0, 3, 3], [7, 0, 49]])
    trained = kernel(ids)
    assert torch.equal(trained[0, 0], torch.zeros(8))
    assert torch.equal(trained[0, 1], trained[0, 2])
    kernel.eval()
    with torch.no_grad():
        torch.testing.assert_close(kernel(ids), trained, atol=1e-5, rtol=1e-4)
        kernel.angles.add_(0.5)
        assert not torch.allclose(kernel(ids), trained, atol=1e-3)  # the cache noticed


def test_embeddings_kept_under_autocast_serve_plain_calls() -> None:
    kernel = RandomCircuitEmbedding(50, 8, qubits=4).eval()
    ids = torch.tensor([[0, 3, 3], [7, 0, 49]])
    with torch.no_grad():
        wanted = copy.deepcopy(kernel)(ids)
        with torch.autocast("cpu", torch.bfloat16):
            assert kernel(ids).dtype == torch.float32  # as nn.Embedding gives
        assert torch.equal(kernel(ids), wanted)


def test_compositional_angles_cover_the_vocabulary() -> None:
    kernel = RandomCircuitEmbedding(1000, 8, qubits=4, angles="compositional", base=10)
    assert kernel.angles.shape[0] == 30
    assert len(kernel.token_angles(torch.arange(1000)).unique(dim=0)) == 1000


def test_head_agrees_with_pytket() -> None:
    head = ReuploadingHead(10, 3, qubits=5, uploads=2, blocks=2, offsets=2, measured=3).double()
    x = torch.randn(2, 10, dtype=torch.float64)
    encoder, main = head.templates()["encoder"], head.templates()["reuploader"]
    for b in range(2):
        start = np.pad((x[b] / x[b].norm()).numpy(), (0, 6))
        values: list[float] = []
        for angles in head.encoder_angles:
            values += z_values(final_state(encoder, angles_of(encoder, angles), start))
        symbols = {name: math.pi * v for name, v in zip(main.data, values, strict=False)}
        ground = np.eye(1, 32)[0]
        state = final_state(main, {**symbols, **angles_of(main, head.angles)}, ground)
        wanted = head.readout(torch.tensor(z_values(state)[:3], dtype=torch.float64))
        torch.testing.assert_close(head(x)[b], wanted, atol=1e-10, rtol=1e-10)


def test_adapter_agrees_with_pytket_and_starts_as_nothing() -> None:
    adapter = AmplitudeAdapter(6, 4, layers=2, alpha=0.5).double()
    x, y = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    assert torch.equal(adapter(x, y), y)
    torch.nn.init.normal_(adapter.up.weight)
    template = adapter.templates()["adapter"]
    row = x[1, 2]
    state = final_state(template, angles_of(template, adapter.angles), np.pad((row / row.norm()).numpy(), (0, 2)))
    change = adapter.up(torch.tensor(z_values(state), dtype=torch.float64)) * row.norm() / math.sqrt(6)
    torch.testing.assert_close(adapter(x, y)[1, 2], y[1, 2] + 0.5 * change, atol=1e-10, rtol=1e-10)


CASES = {
    "amplitude_attention_pooling": (lambda: AmplitudeAttentionPooling(4, 2, 8, slots=2), (torch.randn(2, 3, 4),)),
    "random_circuit_embedding": (lambda: RandomCircuitEmbedding(9, 4, qubits=3), (torch.tensor([[1, 2], [2, 8]]),)),
    "reuploading_head": (lambda: ReuploadingHead(5, 2, qubits=3), (torch.randn(2, 5),)),
    "amplitude_adapter": (lambda: AmplitudeAdapter(5, 4), (torch.randn(2, 5), torch.randn(2, 4))),
}


@pytest.mark.parametrize("name", [name for name in CASES if name != "random_circuit_embedding"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_shows(name: str, bad: float) -> None:
    make, (x, *rest) = CASES[name]
    kernel, x = make(), x.clone()
    for weight in kernel.parameters():
        torch.nn.init.normal_(weight)
    x[1].view(-1)[2] = bad
    out = kernel(x, *rest).flatten(1)
    assert not out[1].isfinite().any()
    assert out[0].isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_an_empty_batch_gives_an_empty_result(name: str) -> None:
    make, inputs = CASES[name]
    kernel = make()
    for mode in (True, False):
        kernel.train(mode)
        with torch.set_grad_enabled(mode):
            assert kernel(*(t[:0] for t in inputs)).shape == (0, *kernel(*inputs).shape[1:])


@pytest.mark.parametrize("name", CASES)
def test_gradients_against_finite_differences(name: str) -> None:
    make, inputs = CASES[name]
    kernel = make().double()
    if name == "amplitude_adapter":
        torch.nn.init.normal_(kernel.up.weight)  # type: ignore[union-attr]
    given = [t.double() if t.is_floating_point() else t for t in inputs]
    parameters = dict(kernel.named_parameters())

    def run(*values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(kernel, dict(zip(parameters, values, strict=True)), tuple(given))
        return result

    assert torch.autograd.gradcheck(run, tuple(parameters.values()), atol=1e-5)


FACTS = {
    "amplitude_attention_pooling": AttentionFacts(8, 2, 4, 3, 5, 16),
    "random_circuit_embedding": EmbeddingFacts(500, 64, 3, 5, padding_index=0),
    "reuploading_head": HeadFacts(8, 3, 4),
    "amplitude_adapter": LinearFacts(8, 3, 4),
}


def test_every_kernel_is_registered() -> None:
    assert set(KERNELS.names()) == set(FACTS) == set(CASES)


def test_attention_warm_start_copies_values_and_output() -> None:
    names = ("value.weight", "output.weight")
    weights = {name: torch.randn(8, 8) for name in names}
    kernel = AmplitudeAttentionPooling.from_region(
        FACTS["amplitude_attention_pooling"], weights, {"local_width": 3}, seed=0
    )
    assert torch.equal(kernel.value.weight, weights["value.weight"])
    assert torch.equal(kernel.output.weight, weights["output.weight"])
    assert kernel.output.bias.abs().max() == 0
    assert kernel.max_length == 16


def test_embedding_warm_start_keeps_the_table() -> None:
    """A table of rank 24 must come through 96 angles almost whole; a table of full rank in part."""
    table = torch.randn(500, 24) @ torch.randn(24, 64)
    kernel = RandomCircuitEmbedding.from_region(FACTS["random_circuit_embedding"], {"weight": table}, {}, seed=0)
    with torch.no_grad():
        got = kernel.eval()(torch.arange(1, 500))
    wanted = table[1:]
    cosine = torch.nn.functional.cosine_similarity(got - got.mean(0), wanted - wanted.mean(0), dim=-1)
    assert cosine.mean() > 0.9


def test_embedding_warm_start_of_a_table_in_low_precision() -> None:
    table = torch.randn(500, 24) @ torch.randn(24, 64)
    kernel, wanted = (
        RandomCircuitEmbedding.from_region(FACTS["random_circuit_embedding"], {"weight": weight}, {}, seed=0).eval()
        for weight in (table.bfloat16(), table.bfloat16().float())
    )
    tokens = torch.arange(1, 500)
    with torch.no_grad():
        assert kernel(tokens).dtype == torch.bfloat16
        cosine = torch.nn.functional.cosine_similarity(kernel(tokens).float(), wanted(tokens), dim=-1)
    assert cosine.mean() > 0.9


def test_head_warm_start_has_the_linear_layers_mean_logits() -> None:
    facts, weights = FACTS["reuploading_head"], {"weight": torch.randn(3, 8), "bias": 5 * torch.randn(3)}
    head = ReuploadingHead.from_region(facts, weights, {"qubits": 6}, seed=0)
    torch.testing.assert_close(head(torch.randn(4000, 8)).mean(0), weights["bias"], atol=0.3, rtol=0)


@pytest.mark.parametrize("name", FACTS)
def test_the_same_seed_gives_the_same_kernel(name: str) -> None:
    first, second = (KERNELS.get(name).blank(FACTS[name], {}, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", FACTS)
def test_workload_names_templates_as_built(name: str) -> None:
    kernel = KERNELS.get(name)
    built = kernel.blank(FACTS[name], {}, seed=0).templates()
    used = [u.template for u in kernel.workload(FACTS[name], {}, seed=0).circuits]
    assert sorted(t.qubits for t in used) == sorted(t.qubits for t in built.values())
    assert {str(t.circuit) for t in used} == {str(t.circuit) for t in built.values()}


@pytest.mark.parametrize(
    ("name", "facts", "reason"),
    [
        ("amplitude_attention_pooling", AttentionFacts(8, 2, 4, 3, 5, 16, causal=True), "causal"),
        ("amplitude_attention_pooling", AttentionFacts(8, 2, 4, 3, 5, 16, rotary=True), "rotary"),
        ("amplitude_attention_pooling", AttentionFacts(8, 2, 4, 3, 5, 2**15), "15 qubits"),
        ("random_circuit_embedding", EmbeddingFacts(500, 128, 3, 5, tied_to="lm_head"), "tied to lm_head"),
        ("random_circuit_embedding", EmbeddingFacts(50, 16, 3, 5), "800 entries"),
        ("reuploading_head", HeadFacts(2**17, 3, 4), "17 qubits"),
        ("amplitude_adapter", LinearFacts(2**17, 3, 4), "17 qubits"),
    ],
)
def test_refusals_give_the_number(name: str, facts: object, reason: str) -> None:
    assert reason in str(KERNELS.get(name).refuse(facts, {}))  # type: ignore[arg-type]


def test_bad_arguments_and_inputs_are_clear() -> None:
    with pytest.raises(PlanError, match="odd"):
        AmplitudeAttentionPooling(8, 2, 16, local_width=2)
    with pytest.raises(PlanError, match="not a multiple"):
        AmplitudeAttentionPooling(8, 3, 16)
    with pytest.raises(PlanError, match="'token' or 'compositional'"):
        RandomCircuitEmbedding(9, 4, angles="other")
    with pytest.raises(ExecutionError, match="at most 16"):
        AmplitudeAttentionPooling(8, 2, 16)(torch.zeros(1, 17, 8))
    with pytest.raises(ExecutionError, match="floats"):
        AmplitudeAttentionPooling(8, 2, 16)(torch.zeros(1, 3, 8, dtype=torch.long))
    with pytest.raises(ExecutionError, match="integer token ids"):
        RandomCircuitEmbedding(9, 4, qubits=3)(torch.zeros(2, 2))
    with pytest.raises(ExecutionError, match=r"\[..., 5\]"):
        ReuploadingHead(5, 2, qubits=3)(torch.zeros(2, 6))
    with pytest.raises(PlanError, match="no option slot; it has slots"):
        AmplitudeAttentionPooling.settings({"slot": 3})
