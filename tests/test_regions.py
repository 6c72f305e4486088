"""Every family: what the finders find, against the models' own computation; hybrids that are the model, and that train."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from conftest import CLASSIFIERS, gpt2, llama, text_inputs
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel
from qcascade.compiler import compile_captured, make_request
from qcascade.errors import ExecutionError
from qcascade.kernels import AmplitudeAttentionPooling
from qcascade.kernels.attention import key_mask
from qcascade.passes.base import Match, find_regions
from qcascade.passes.extract_region import extract_region
from qcascade.passes.graph_walk import Evaluator
from qcascade.passes.pipeline import FIND
from qcascade.passes.rewrite_regions import extract_weights


class Attend(nn.Module):
    """nn.MultiheadAttention as users call it."""

    def __init__(self, weights: bool = False, batch_first: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=batch_first)
        self.weights = weights

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        y, w = self.attention(x, x, x, key_padding_mask=padding)
        return (y, w) if self.weights else y


class Written(nn.Module):
    """Attention written out, with interleaved q, k, v rows and a mask that names what to leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 3 * 12), nn.Linear(12, 12, bias=False)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, 3).unbind(-1)  # [B, n, H, E], features interleaved
        q, k, v = (t.permute(0, 2, 1, 3) for t in (q, k, v))
        scores = (q @ k.transpose(-1, -2) / 2).masked_fill(padding[:, None, None], -torch.inf)
        y = torch.matmul(scores.softmax(-1), v)
        return self.out(y.transpose(1, 2).reshape(x.shape))


PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
ENCODER = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
PLAIN: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "mha": (Attend(), (torch.randn(2, 5, 16),)),
    "mha masked": (Attend(), (torch.randn(2, 5, 16), PADDING)),
    "mha sequence first": (Attend(batch_first=False), (torch.randn(5, 2, 16),)),
    "encoder layer": (ENCODER, (torch.randn(2, 5, 16), None, PADDING)),  # type: ignore[dict-item]
    "written": (Written(), (torch.randn(2, 5, 12), PADDING)),
}


LAYERS = {"bert": 2, "bert written out": 2, "roberta": 2}


def found(model: nn.Module, inputs: object = None) -> tuple[CapturedModel, tuple[Match, ...]]:
    captured = capture(model, inputs)
    return captured, find_regions(FIND, captured.eval_graph, captured)


@cache
def family(name: str) -> tuple[nn.Module, CapturedModel]:
    """A real model, captured once for all tests; what changes the capture takes a copy."""
    with torch.random.fork_rng():  # what a test draws does not depend on which test was first
        torch.manual_seed(0)
        model = {**CLASSIFIERS, "gpt2": gpt2, "llama": llama}[name]().eval()
        return model, capture(model)


def found_in_family(name: str) -> tuple[CapturedModel, tuple[Match, ...]]:
    captured = copy.deepcopy(family(name)[1])
    return captured, find_regions(FIND, captured.eval_graph, captured)


def attentions(matches: tuple[Match, ...]) -> list[Match]:
    return [m for m in matches if m.pattern == "attention"]


def _silence_scores(model: nn.Module) -> None:
    """Zero queries and keys, so that attention is the mean over valid positions."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("query", "key", "q_lin", "k_lin", "q_proj", "k_proj")):
                parameter.zero_()
            elif "in_proj" in name:
                parameter[: 2 * len(parameter) // 3] = 0
            elif "qkv" in name:
                parameter.view(12, 3, -1)[:, :2] = 0


@pytest.mark.parametrize("name", [*CLASSIFIERS, *PLAIN])
def test_attention_is_what_its_match_says(name: str) -> None:
    """With queries and keys silenced, the region must be W_O · mean of valid W_V x + b, from the match's weights alone."""
    captured, matches = found_in_family(name) if name in CLASSIFIERS else found(PLAIN[name][0].eval(), PLAIN[name][1])
    _silence_scores(captured.model)
    regions = attentions(matches)
    assert len(regions) == LAYERS.get(name, 1)
    for match in regions:
        assert match.refusal is None
        evaluate = Evaluator(captured.eval_graph, captured)
        given = [evaluate(n) for n in match.inputs if n is not None]
        region = extract_region(captured.eval_graph, match)(*given)
        torch.testing.assert_close(region, evaluate(match.output))
        weights = extract_weights(captured.model, match)
        x = given[0].transpose(0, 1) if match.sequence_first else given[0]
        valid = torch.ones(x.shape[:2], dtype=torch.bool)
        if match.inputs[1] is not None:
            mask = given[1].logical_not() if match.mask_excludes else given[1]
            rows = key_mask(mask)
            valid = rows[:: max(1, rows.shape[0] // x.shape[0])].expand(x.shape[:2])
        value = F.linear(x, weights["value.weight"], weights.get("value.bias"))
        mean = (value * valid[..., None]).sum(1, keepdim=True) / valid.sum(1)[:, None, None]
        wanted = F.linear(mean, weights["output.weight"], weights.get("output.bias")).expand_as(x)
        wanted = wanted.transpose(0, 1) if match.sequence_first else wanted
        torch.testing.assert_close(region, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_both_modes_find_the_same_regions(name: str) -> None:
    captured, matches = found_in_family(name)
    assert captured.train_graph is not None
    trained = find_regions(FIND, captured.train_graph, captured)
    assert [m.name for m in trained] == [m.name for m in matches]
    if name != "vit":  # whose default has no attention dropout
        assert {m.facts.dropout for m in attentions(trained)} == {0.1}  # type: ignore[union-attr]
        assert {m.facts.dropout for m in attentions(matches)} == {0.0}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["bert written out", "vit"])  # test_equality and the zoo have more, at other sizes
def test_without_kernels_nothing_changes(name: str) -> None:
    model, captured = family(name)
    hybrid = compile_captured(copy.deepcopy(captured), make_request(kernels=[])).eval()
    inputs = {"pixel_values": torch.randn(3, 3, 32, 32)} if name == "vit" else text_inputs()
    assert list(hybrid.state_dict()) == list(model.state_dict())
    expected, got = model(**inputs), hybrid(**inputs)
    assert type(got) is type(expected)
    torch.testing.assert_close(got.logits, expected.logits)
    expected.logits.square().sum().backward()
    got.logits.square().sum().backward()
    ours = dict(hybrid.named_parameters())
    for path, parameter in model.named_parameters():
        if parameter.grad is None:
            assert ours[path].grad is None, path
        else:
            torch.testing.assert_close(ours[path].grad, parameter.grad)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_family_runs_and_trains(name: str) -> None:
    model, captured = family(name)
    hybrid = compile_captured(copy.deepcopy(captured), make_request()).train()
    assert sum(isinstance(k, AmplitudeAttentionPooling) for k in hybrid.kernels.values()) == LAYERS.get(name, 1)
    inputs = {"pixel_values": torch.randn(5, 3, 32, 32)} if name == "vit" else text_inputs(5, 23)
    target = torch.tensor([0, 1, 0, 1, 1])
    hybrid(**inputs).logits.sum().backward()
    hybrid.eval()  # no dropout: the loss must fall
    optimizer = torch.optim.AdamW(hybrid.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        loss = nn.functional.cross_entropy(hybrid(**inputs).logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    unused = {n for n, p in hybrid.named_parameters() if p.grad is None}
    originals = dict(model.named_parameters())
    assert all(n in originals and ".quantum." not in n for n in unused)


def test_names_patterns_and_facts_of_bert() -> None:
    _, matches = found_in_family("bert")
    names = {m.name: m for m in matches}
    facts = names["bert.encoder.layer.1.attention"].facts
    assert (facts.features, facts.heads, facts.head_dim, facts.max_length, facts.masked) == (32, 2, 16, 512, True)  # type: ignore[union-attr]
    assert names["bert.embeddings.word_embeddings"].refusal is None
    assert "computed" in str(names["bert.embeddings.position_embeddings"].refusal)
    assert names["classifier"].pattern == "head"
    assert names["bert.pooler.dense"].pattern == "linear"
    assert sum(m.pattern == "linear" for m in matches) == 13


def test_roberta_knows_its_longest_sequence() -> None:
    _, matches = found_in_family("roberta")
    assert attentions(matches)[0].facts.max_length == 510  # type: ignore[union-attr]  # 512 rows, two of them for padding


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_causal_attention_is_recognised(name: str) -> None:
    _, matches = found_in_family(name)
    region = attentions(matches)[0]
    assert region.facts.causal  # type: ignore[union-attr]
    assert region.facts.rotary is (name == "llama")  # type: ignore[union-attr]


def test_tied_embedding_names_its_partner() -> None:
    _, matches = found_in_family("gpt2")
    table = next(m for m in matches if m.name == "transformer.wte")
    assert table.facts.tied_to == "lm_head"  # type: ignore[union-attr]


class ByConstant(nn.Module):
    """A linear layer whose matrix, or whose bias alone, is no tensor of the model."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2, bias=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.first(x), self.last.weight, BIAS) if self.bias else self.first(x) @ CONSTANT


CONSTANT, BIAS = torch.randn(8, 2), torch.randn(2)


@pytest.mark.parametrize("bias", [False, True])
def test_constants_of_the_code_are_no_layers(bias: bool) -> None:
    model, x = ByConstant(bias), torch.randn(4, 8)
    captured, matches = found(model, x)
    assert [m.name for m in matches] == ["first"]
    assert torch.equal(compile_captured(captured, make_request())(x), model(x))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.Sequential(nn.Linear(8, 8, dtype=torch.cfloat), nn.Linear(8, 2, dtype=torch.cfloat)), (4, 8)),
        (nn.Embedding.from_pretrained(torch.randn(2000, 64, dtype=torch.cfloat)), torch.tensor([[1, 2], [3, 4]])),
    ],
)
def test_layers_of_complex_numbers_stay(model: nn.Module, inputs: tuple[int, ...] | Tensor) -> None:
    x = inputs if isinstance(inputs, Tensor) else torch.randn(*inputs, dtype=torch.cfloat)
    captured, matches = found(model, x)
    assert matches
    assert all("complex64" in str(m.refusal) for m in matches)
    assert torch.equal(compile_captured(captured, make_request())(x), model(x))


class Cross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.attention(x, memory, memory, need_weights=False)[0]


class Projected(nn.Module):
    """Attention with separate projections, a second input for keys and values, and a bias on its scores."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.bias = nn.Parameter(torch.randn(1, 2, 5, 5)) if bias else None

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        other = x if memory is None else memory
        q, k, v = (
            f(t).unflatten(-1, (2, 4)).transpose(1, 2) for f, t in ((self.q, x), (self.k, other), (self.v, other))
        )
        return self.o(F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias).transpose(1, 2).flatten(2))


class ByConstantValues(Projected):
    """Its values are projected by a tensor that is none of the model."""

    def __init__(self) -> None:
        super().__init__()
        del self.v

    def v(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, SQUARE)


SQUARE = torch.randn(8, 8)


class Masked(Projected):
    """Attention whose queries or mask are made in some way."""

    def __init__(self, made: str, width: int = 8) -> None:
        super().__init__()
        self.made, self.o, self.table = made, nn.Linear(8, width), nn.Parameter(torch.zeros(1, 2, 5, 5))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        (batch, length), asking = x.shape[:2], x
        causal = torch.ones(length, length).tril().bool()
        mask = None
        if self.made == "in place":
            mask = torch.ones(batch, 1, length, length, dtype=torch.bool)
            mask[:, 0] = causal
        elif self.made == "in place without gradients":
            mask = torch.ones(batch, 1, length, length, dtype=torch.bool)
            with torch.no_grad():
                mask[:, 0] = causal
        elif self.made == "padding in place":
            assert keep is not None
            mask = torch.zeros(batch, 1, 1, length)
            mask[:, 0, 0].masked_fill_(keep == 0, -1e9)
        elif self.made == "additive":
            assert keep is not None
            mask = (1 - keep)[:, None, None] * -10000.0
        elif self.made == "learned":
            mask = self.table
        elif self.made == "given":
            mask = keep
        elif self.made == "one token":
            asking = x.select(1, 0)
        elif self.made == "by head":
            assert keep is not None
            q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2).flatten(0, 1) for f in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
            return self.o(y.unflatten(0, (batch, 2)).transpose(1, 2).flatten(2))
        q, k, v = (
            f(t).reshape(batch, -1, 2, 4).transpose(1, 2) for f, t in ((self.q, asking), (self.k, x), (self.v, x))
        )
        return self.o(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("made", ["in place", "in place without gradients"])
def test_masks_written_in_place_are_judged_as_attention_reads_them(made: str) -> None:
    captured, matches = found(Masked(made), (torch.randn(2, 5, 8),))
    match = attentions(matches)[0]
    assert match.facts.causal  # type: ignore[union-attr]
    mask = match.inputs[1]
    assert mask is not None
    evaluate = Evaluator(captured.eval_graph, captured)
    assert evaluate(mask).all()  # before it is written
    for _ in range(2):
        assert torch.equal(evaluate(mask, match.output)[1, 0], torch.ones(5, 5).tril().bool())


def test_evaluating_leaves_what_is_written_in_place_alone() -> None:
    captured, matches = found(Masked("given"), (torch.randn(2, 5, 8), torch.ones(2, 1, 5, 5, dtype=torch.bool)))
    graph = captured.eval_graph.graph
    keep = next(n for n in graph.nodes if n.op == "placeholder" and n.name == "keep")
    match = attentions(matches)[0]
    with graph.inserting_after(keep):
        view = graph.call_function(torch.ops.aten.select.int, (keep, 1, 0))
    with graph.inserting_after(view):
        graph.call_function(torch.ops.aten.zero_.default, (view,))
    captured.eval_graph.recompile()
    assert not Evaluator(captured.eval_graph, captured)(keep, match.output).any()
    assert captured.example_kwargs["keep"].all()


BY_HEAD = torch.ones(6, 1, 5, dtype=torch.bool)
BY_HEAD[1, 0, 4] = False
KEEP = torch.tensor([[1.0] * 5, [1.0] * 3 + [0.0] * 2])


@pytest.mark.parametrize("made", ["additive", "padding in place"])
@pytest.mark.parametrize("example", [torch.ones(2, 5), KEEP])
def test_padding_changes_nothing_whatever_the_example_held(made: str, example: Tensor) -> None:
    hybrid = compile_captured(found(Masked(made).eval(), (torch.randn(2, 5, 8), example))[0], make_request()).eval()
    assert any(isinstance(kernel, AmplitudeAttentionPooling) for kernel in hybrid.kernels.values())
    x = torch.randn(2, 5, 8)
    other = torch.where(KEEP[..., None] == 0, 100 * torch.randn(2, 5, 8), x)
    torch.testing.assert_close(hybrid(x, KEEP)[KEEP == 1], hybrid(other, KEEP)[KEEP == 1])


def test_a_mask_that_is_causal_only_later_is_one_clear_error() -> None:
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    hybrid = compile_captured(found(Masked("given"), (torch.randn(2, 5, 8), mask))[0], make_request())
    hybrid(torch.randn(2, 5, 8), mask)
    with pytest.raises(ExecutionError, match="differs from query to query"):
        hybrid(torch.randn(2, 5, 8), mask.tril())


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        (Attend(weights=True), (torch.randn(2, 5, 16),), "used outside"),
        (Cross(), (torch.randn(2, 5, 16), torch.randn(2, 7, 16)), "do not come from one input"),
        (Projected(), (torch.randn(2, 5, 8), torch.randn(2, 7, 8)), "cross-attention: queries"),
        (Projected(bias=True), (torch.randn(2, 5, 8),), "additive bias"),
        (ByConstantValues(), (torch.randn(2, 5, 8),), "constants of the code"),
        (Masked("learned"), (torch.randn(2, 5, 8),), r"additive bias on its scores that is learned (table; zero"),
        (Masked("one token"), (torch.randn(2, 5, 8),), "different positions of one"),
        (Masked("by head"), (torch.randn(3, 5, 8), BY_HEAD), "from head to head"),
        (Masked("plain", 6), (torch.randn(2, 5, 8),), "its output has the shape [2, 5, 6]"),
    ],
)
def test_attention_that_cannot_be_replaced_says_why(model: nn.Module, inputs: object, reason: str) -> None:
    _, matches = found(model, inputs)
    assert reason in str(attentions(matches)[0].refusal)
