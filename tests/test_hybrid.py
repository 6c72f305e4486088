"""The hybrid as users use it: training, saving, moving, bad calls, distillation."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from conftest import bert, text_inputs
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

import qcascade
from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel
from qcascade.compiler import compile_captured, make_request
from qcascade.errors import CaptureError, ExecutionError
from qcascade.hybrid import HybridModule
from qcascade.kernels import QuantumKernel


@pytest.fixture(scope="module")
def captured() -> CapturedModel:
    torch.manual_seed(0)
    return capture(bert())


@pytest.fixture(scope="module")
def compiled(captured: CapturedModel) -> HybridModule:
    return compile_captured(copy.deepcopy(captured), make_request(seed=1)).eval()


@pytest.fixture
def hybrid(compiled: HybridModule) -> HybridModule:
    """Each test's own: copies are the same and apart, as is tested below."""
    return copy.deepcopy(compiled).train()


def test_classical_parameters_keep_names_and_values(hybrid: HybridModule) -> None:
    torch.manual_seed(0)
    original = bert().state_dict()
    ours = hybrid.state_dict()
    same = [k for k in ours if ".quantum." not in k and not k.startswith("classifier")]
    assert all(torch.equal(ours[k], original[k]) for k in same)
    gone = set(original) - set(ours)
    assert all(".attention.self." in k or ".attention.output.dense" in k or k.startswith("classifier") for k in gone)
    assert set(hybrid.kernels) == {"bert.encoder.layer.0.attention", "bert.encoder.layer.1.attention", "classifier"}
    assert "bert.encoder.layer.0.attention.quantum.angles" in ours


def test_graph_calls_kernels_and_not_what_they_replaced(hybrid: HybridModule) -> None:
    assert hybrid.code.count(".quantum(") == 3
    assert "scaled_dot_product_attention" not in hybrid.code


def test_a_hook_that_does_not_run_says_so_once(hybrid: HybridModule) -> None:
    ran: list[str] = []
    hybrid.register_forward_hook(lambda *_: ran.append("hybrid"))
    hybrid.kernels["classifier"].register_forward_hook(lambda *_: ran.append("kernel"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hybrid(**text_inputs())
    hybrid.get_submodule("bert.pooler.dense").register_forward_hook(lambda *_: ran.append("dense"))
    with pytest.warns(UserWarning, match="hooks of a module inside a hybrid do not run"):
        hybrid(**text_inputs())
    assert ran == ["kernel", "hybrid"] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        copy.deepcopy(hybrid)(**text_inputs())


def test_hooks_that_a_model_had_run_with_the_graph_and_are_not_warned_of() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    x = torch.randn(3, 4)
    hybrid = qcascade.compile(model, x, kernels=[])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert torch.equal(hybrid(x), model(x))


def test_a_module_in_another_mode_than_the_hybrid_says_so_once() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), torch.randn(4, 8) + 3
    model[1].eval()
    hybrid = qcascade.compile(model, x, kernels=[])
    assert hybrid.training and not hybrid.get_submodule("1").training and not model[1].training
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        copy.deepcopy(hybrid).train()(x)
        copy.deepcopy(hybrid).eval()(x)
    with pytest.warns(
        UserWarning, match="1 is in evaluation mode, inside a hybrid in training mode, and runs in training mode"
    ):
        hybrid(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hybrid(x)
    other = qcascade.compile(model, x, kernels=[]).eval()
    other.get_submodule("1").train()
    with pytest.warns(UserWarning, match="1 is in training mode, inside a hybrid in evaluation mode"):
        other(x)


def test_a_kernel_may_be_in_a_mode_of_its_own(hybrid: HybridModule) -> None:
    hybrid.kernels["classifier"].eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hybrid(**text_inputs())


class Lora(nn.Module):
    """A low-rank adapter around a linear layer, as adapter libraries put them in."""

    def __init__(self, base: nn.Linear, *, shows: bool) -> None:
        super().__init__()
        self.base, self.shows = base, shows
        self.a, self.b = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def __getattr__(self, name: str) -> object:
        if name in ("weight", "bias") and self.shows:
            return getattr(self.base, name)
        return super().__getattr__(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.base(x) + self.b(self.a(x)))


def test_a_module_put_in_a_hybrid_in_place_of_another_says_that_it_is_not_called() -> None:
    model, x = (
        nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4), nn.Linear(4, 2)),
        torch.randn(3, 4),
    )
    hybrid = qcascade.compile(model, x, kernels=[])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        before = hybrid(x)
        setattr(hybrid, "2", nn.Linear(4, 2))  # of the same class: its parameters are used
        register_parametrization(hybrid[1], "weight", nn.Tanh())
        expected = hybrid(x)
        assert not torch.allclose(before, expected)
        for other in (copy.deepcopy(hybrid), copy.copy(hybrid)):
            assert torch.equal(other(x), expected)
    hybrid[0][0] = Lora(hybrid[0][0], shows=True)
    nn.init.ones_(hybrid[0][0].b.weight)
    with pytest.warns(UserWarning, match=r"0\.0 is a Lora now and was a Linear"):
        assert torch.equal(hybrid(x), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hybrid(x)
    hybrid[0].append(nn.Tanh())
    with pytest.warns(UserWarning, match=r"0\.2, a Tanh, was not there"):
        assert torch.equal(hybrid(x), expected)
    del hybrid[0]._modules["1"]
    with pytest.warns(UserWarning, match=r"0\.1 is gone and was a ReLU"):
        assert torch.equal(hybrid(x), expected)
    kept = hybrid[2]
    setattr(hybrid, "2", Lora(kept, shows=False))
    with pytest.raises(ExecutionError, match=r"2 is a Lora now: the graph of this hybrid needs 2\.weight, 2\.bias"):
        hybrid(x)
    setattr(hybrid, "2", kept)
    assert torch.equal(hybrid(x), expected)


def test_another_module_in_the_place_of_a_kernel_is_called(hybrid: HybridModule) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Identity()

        def forward(self, x: Tensor, *others: Tensor) -> Tensor:
            return cast(Tensor, self.inside(torch.full((len(x), 2), 3.0)))

    hybrid.classifier.quantum = Constant()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert (hybrid(**text_inputs()).logits == 3).all()


class Listed(nn.Module):
    """Modules in a list, a dictionary and a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"first": nn.Linear(16, 16), "body": nn.ModuleList([nn.Linear(16, 16)])})
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.parts["body"][0](self.parts["first"](x))))


def test_lists_of_modules_are_indexed_as_before() -> None:
    model, x = Listed(), torch.randn(3, 16)
    hybrid = qcascade.compile(model, x)
    for made in (hybrid, pickle.loads(pickle.dumps(hybrid)), copy.deepcopy(hybrid)):
        parts, head = made.parts, made.head
        head.add_module("quantum", made.kernels["head.2"])  # as where a region is the sequence's own
        assert list(parts) == ["first", "body"] and torch.equal(parts["first"].weight, model.parts["first"].weight)
        assert len(parts["body"]) == 1 and torch.equal(parts["body"][-1].weight, model.parts["body"][0].weight)
        assert len(head) == 3 and len(list(head)) == 3 and len(head[1:]) == 2
        assert isinstance(head[1], nn.ReLU) and not isinstance(head[-1], QuantumKernel)
        with pytest.raises(ExecutionError, match="only holds parameters"):
            head(x)


def test_a_sequential_is_indexed_as_before(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(3, 16)
    hybrid = qcascade.compile(model, x, kernels=[])
    stored = qcascade.load(qcascade.export(hybrid, tmp_path / "bundle")).to_torch()
    for made in (hybrid, pickle.loads(pickle.dumps(hybrid)), copy.deepcopy(hybrid), copy.copy(hybrid), stored):
        assert len(made) == 3 and [type(m) for m in made] == [type(m) for m in model]
        assert torch.equal(made[-1].weight, model[-1].weight) and len(made[:2]) == 2
        assert torch.equal(made(x), model(x))


def test_a_hybrid_is_not_compiled_again() -> None:
    x = torch.randn(4, 8)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    hybrid = qcascade.compile(model, x)
    assert list(hybrid.kernels) == ["2"]
    for again, place in ((hybrid, r"2\.quantum"), (nn.Sequential(hybrid, nn.Linear(4, 2)), r"0\.2\.quantum")):
        for make in (qcascade.compile, qcascade.plan):
            with pytest.raises(
                CaptureError, match=f"{place} is a quantum kernel already.* Compile the whole classical model"
            ):
                make(again, x, kernels=[])
    assert qcascade.compile(qcascade.compile(model, x, kernels=[]), x, kernels=[])(x).shape == (4, 4)


def test_attention_region_becomes_its_kernel() -> None:
    """The hybrid equals the original with the kernel put in by hand."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True).eval()
    x = torch.randn(2, 6, 16)
    hybrid = qcascade.compile(layer, x).eval()
    kernel = hybrid.kernels["self_attn"]
    y = x + kernel(layer.norm1(x))
    wanted = y + layer.linear2(layer.linear1(layer.norm2(y)).relu())
    torch.testing.assert_close(hybrid(x), wanted)


def test_adapter_is_added_and_its_projection_frozen() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    hybrid = qcascade.compile(model, kernels=["amplitude_adapter"])
    x = torch.randn(4, 8)
    torch.testing.assert_close(hybrid(x), model(x))
    assert {n for n, p in hybrid.named_parameters() if not p.requires_grad} == {"0.weight", "0.bias"}
    nn.init.normal_(hybrid.kernels["0"].up.weight)  # type: ignore[arg-type,union-attr]
    assert not torch.allclose(hybrid(x), model(x))


def test_adapter_beside_a_projection_whose_weight_is_a_buffer() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w", torch.randn(16, 8))
            self.head = nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(nn.functional.linear(x, self.get_buffer("w")).relu())

    model, x = Fixed(), torch.randn(4, 8)
    hybrid = qcascade.compile(model, x, kernels=["amplitude_adapter"])
    assert set(hybrid.kernels) == {"w"}
    torch.testing.assert_close(hybrid(x), model(x))


def test_copies_and_saved_ones_are_the_same_and_apart(compiled: HybridModule, captured: CapturedModel) -> None:
    hybrid = compiled
    inputs = text_inputs()
    wanted = hybrid(**inputs).logits
    buffer = io.BytesIO()
    torch.save(hybrid, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(hybrid), pickle.loads(pickle.dumps(hybrid)), torch.load(buffer, weights_only=False)]
    for made in copies:
        assert torch.equal(made(**inputs).logits, wanted)
        assert list(made.state_dict()) == list(hybrid.state_dict())
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.zero_()
        assert not torch.equal(made(**inputs).logits, wanted)
    assert torch.equal(hybrid(**inputs).logits, wanted)
    fresh = compile_captured(copy.deepcopy(captured), make_request(seed=2)).eval()
    for parameter in fresh.parameters():
        nn.init.normal_(parameter)
    fresh.load_state_dict(hybrid.state_dict())
    assert torch.equal(fresh(**inputs).logits, wanted)


def test_precision_and_device_moves(hybrid: HybridModule) -> None:
    inputs = text_inputs()
    single = hybrid.eval()(**inputs).logits
    double = hybrid.double()(**inputs).logits
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, atol=1e-5, rtol=1e-4)
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    moved = qcascade.compile(model, torch.randn(2, 6, 16)).to("meta")
    assert moved(torch.randn(3, 4, 16, device="meta")).shape == (3, 4, 16)
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    moved = qcascade.compile(nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 2)), tokens, kernels=[]).to("meta")
    assert moved(tokens.to("meta")).shape == (2, 6, 2)


class Blocks(nn.Module):
    """Blocks of no_grad and autocast, one in the other, that name a device and a precision."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(4, 4)
        self.register_buffer("rates", torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            steps = torch.arange(x.shape[1], device=x.device).to(self.rates.dtype)
            with torch.autocast(device_type="cpu", enabled=False):
                waves = (steps[:, None] * self.rates.to(x.device)).sin() + torch.ones(1, device=x.device)
        return cast(Tensor, self.scale(x + waves))


def test_blocks_of_no_grad_move_and_are_cast_too(tmp_path: Path) -> None:
    model, x = Blocks(), torch.randn(2, 6, 4)
    hybrid = qcascade.compile(model, x, kernels=[])
    assert hybrid.plan.capture.method == "export" and "wrap_with_set_grad_enabled" in hybrid.code
    stored = qcascade.load(qcascade.export(hybrid, tmp_path / "bundle")).to_torch()
    for made in (hybrid, copy.deepcopy(hybrid), pickle.loads(pickle.dumps(hybrid)), stored):
        y = torch.randn(3, 5, 4)
        torch.testing.assert_close(made(y), model(y))
        with pytest.warns(UserWarning, match="Cast the model before"):
            made.double()
        torch.testing.assert_close(made(y.double()).float(), model(y), atol=1e-5, rtol=1e-5)
        assert made.to("meta")(torch.empty(3, 5, 4, dtype=torch.float64, device="meta")).shape == (3, 5, 4)


class Own(nn.Module):
    """A root with parameters of its own; `reads`: captured module by module."""

    def __init__(self, reads: bool = False) -> None:
        super().__init__()
        self.embedding, self.reads = nn.Embedding(2000, 64), reads
        self.weight, self.shift = nn.Parameter(torch.randn(64, 4)), nn.Parameter(torch.randn(4))

    def forward(self, ids: Tensor) -> Tensor:
        y = self.embedding(ids).mean(1) @ self.weight.relu()
        return y + self.shift if not self.reads or y.sum() < 1e9 else y


SMALL = {"random_circuit_embedding": {"qubits": 3, "layers": 1}}


def replica_of(model: nn.Module, change: float) -> nn.Module:
    """As torch.nn.parallel.replicate makes it, with parameters times a number."""
    modules = list(model.modules())
    made = {module: module._replicate_for_data_parallel() for module in modules}
    for module, replica in made.items():
        replica._former_parameters = {}
        for name, child in module._modules.items():
            setattr(replica, name, None if child is None else made[child])
        for name, parameter in module._parameters.items():
            if parameter is not None:
                replica._former_parameters[name] = changed = parameter * change
                setattr(replica, name, changed)
    return made[model]


@pytest.mark.parametrize("reads", [False, True])
def test_replicas_compute_with_weights_of_their_own(reads: bool) -> None:
    ids = torch.arange(20).reshape(4, 5)
    hybrid = qcascade.compile(Own(reads), ids, kernels=SMALL).eval()
    assert (hybrid.plan.capture.method, set(hybrid.kernels)) == ("modules" if reads else "export", {"embedding"})
    doubled = copy.deepcopy(hybrid)
    with torch.no_grad():
        for parameter in doubled.parameters():
            parameter.mul_(2)
        kept = hybrid(ids)
        torch.testing.assert_close(replica_of(hybrid, 2)(ids), doubled(ids))
        assert torch.equal(hybrid(ids), kept)
    replica_of(hybrid, 2)(ids).sum().backward()
    assert all(p.grad is not None for p in hybrid.parameters())


def test_parameters_of_the_root_can_be_parametrized() -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    model, ids = Own().eval(), torch.arange(20).reshape(4, 5)
    hybrid = qcascade.compile(model, ids, kernels=[]).eval()
    for module in (model, hybrid):
        register_parametrization(module, "weight", Twice())
    for made in (hybrid, copy.deepcopy(hybrid)):
        assert torch.equal(made(ids), model(ids))


class Normal(nn.Module):
    """Computes in the precision of its weights, and where told so in single precision first."""

    def __init__(self, single: bool) -> None:
        super().__init__()
        self.linear, self.single = nn.Linear(8, 2), single

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.float().tanh().to(self.linear.weight.dtype) if self.single else x.tanh())


def test_a_cast_that_the_graph_cannot_follow_says_so_once() -> None:
    x = torch.randn(4, 8)
    hybrid = qcascade.compile(Normal(single=True), x, kernels=[])
    with pytest.warns(
        UserWarning, match=r"names torch.float32 in 2 of its calls .*qcascade.compile\(model.to\(torch.float64\)\)"
    ):
        hybrid.double()
    model = Normal(single=True).bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hybrid.to("cpu").float()
        qcascade.compile(Normal(single=False), x, kernels=[]).double()
        made = qcascade.compile(model, x.bfloat16(), kernels=[])
    assert torch.equal(made(x.bfloat16()), model(x.bfloat16()))


class Nested(nn.Module):
    def forward(self, x: dict[str, Tensor], scale: float | Tensor = 1.0) -> Tensor:
        return (x["a"] - x["b"]) * scale


def test_nested_arguments_in_another_order() -> None:
    model, a, b = Nested(), torch.randn(4, 3), torch.randn(4, 3)
    hybrid = qcascade.compile(model, ({"a": a, "b": b},), kernels=[])
    assert torch.equal(hybrid({"b": b, "a": a}), a - b)
    for other in ({"b": b}, {"b": b, "a": a, "c": a}, {"b": b, "a": [a]}, [a, b]):
        with pytest.raises(ExecutionError, match="nested otherwise"):
            hybrid(other)


@pytest.mark.parametrize("scale", [torch.randn(4, 3), torch.tensor(1.0), np.ones((4, 3))])
def test_tensors_where_a_plain_value_was_are_refused(scale: object) -> None:
    x = {"a": torch.randn(4, 3), "b": torch.randn(4, 3)}
    with pytest.raises(ExecutionError, match="'scale' was not part of the example"):
        qcascade.compile(Nested(), (x,), kernels=[])(x, scale)
    with pytest.raises(ExecutionError, match=r"captured with 1\.0"):
        qcascade.compile(Nested(), (x, 1.0), kernels=[])(x, scale)


def test_calls_by_position_by_name_and_without_the_mask(hybrid: HybridModule) -> None:
    hybrid.eval()
    ids = text_inputs()["input_ids"]
    wanted = hybrid(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    for got in (hybrid(ids, torch.ones_like(ids)), hybrid(ids), hybrid(input_ids=ids.int())):
        assert torch.equal(got.logits, wanted)


class Blanks(nn.Module):
    """A mask under Hugging Face's name that says what to leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        y = self.table(input_ids)
        if attention_mask is not None:
            y = y.masked_fill(attention_mask.bool()[..., None], 0)
        return self.head(y)


def test_a_mask_of_unknown_meaning_is_not_made_up(tmp_path: Path) -> None:
    ids = torch.randint(0, 20, (2, 5))
    hybrid = qcascade.compile(Blanks(), (ids, torch.zeros(2, 5, dtype=torch.long)), kernels=[])
    qcascade.export(hybrid, tmp_path / "blanks.qcb")
    bundle = qcascade.load(tmp_path / "blanks.qcb")
    for made in (hybrid, bundle, bundle.to_torch()):
        with pytest.raises(ExecutionError, match="'attention_mask' is missing"):
            made(input_ids=ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": torch.zeros(3, 11)}, "integer values"),
        ({"input_ids": torch.zeros(11, dtype=torch.long)}, "has shape"),
        ({"input_ids": torch.full((3, 11), 99)}, "ids from 0 to 98"),
        ({"input_ids": torch.full((3, 11), 2**40)}, "token id 1099511627776"),
        ({"input_ids": torch.full((3, 11), -1)}, "token id -1"),
        ({"input_ids": torch.zeros(3, 600, dtype=torch.long)}, "at most 512"),
        ({"input_ids": torch.zeros(2, 11, dtype=torch.long)}, "give one batch size"),
        ({"input_ids": [[1, 2]]}, "must be a tensor"),
        ({"token_type_ids": torch.zeros(3, 11, dtype=torch.long)}, "not part of the example"),
        ({"nonsense": 3}, "not part of the example"),
    ],
)
def test_bad_calls_are_one_clear_error(compiled: HybridModule, change: dict[str, object], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        compiled(**{**text_inputs(), **change})


def test_noise_needs_a_target_that_has_some(hybrid: HybridModule) -> None:
    assert hybrid.use("statevector") is hybrid
    with pytest.raises(ExecutionError, match="'ideal' has no noise to simulate"):
        hybrid.use("noisy", shots=1024)


def test_distilling_aligns_kernels_with_their_regions() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    hybrid = qcascade.compile(model, torch.randn(2, 8, 16))
    before = {n: p.clone() for n, p in hybrid.named_parameters()}
    report = qcascade.distill(hybrid, [torch.randn(16, 8, 16) for _ in range(150)], steps=120)
    assert report.steps == 120
    assert report.after["self_attn"] < 0.5 * report.before["self_attn"]
    for name, parameter in hybrid.named_parameters():
        assert (name.startswith("self_attn.quantum.")) == (not torch.equal(parameter, before[name])), name
    assert hybrid.training


def test_a_perfect_pupil_has_no_error() -> None:
    """Where the region is itself pooling (queries and keys silenced), zero scores make the kernel exact."""
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    with torch.no_grad():
        model.self_attn.in_proj_weight[:32] = 0
        model.self_attn.in_proj_bias[:32] = 0
    hybrid = qcascade.compile(model, torch.randn(2, 8, 16))
    nn.init.zeros_(hybrid.kernels["self_attn"].score)  # type: ignore[arg-type]
    report = qcascade.distill(hybrid, [torch.randn(16, 8, 16)])
    assert report.before["self_attn"] < 1e-10


def test_what_cannot_be_distilled_says_why(hybrid: HybridModule) -> None:
    with pytest.raises(ExecutionError, match="holds no replaced regions"):
        qcascade.distill(pickle.loads(pickle.dumps(hybrid)), [text_inputs()])
    with pytest.raises(ExecutionError, match="batches is empty"):
        qcascade.distill(hybrid, [])
    with pytest.raises(ExecutionError, match="steps=0; at least 1"):
        qcascade.distill(hybrid, [text_inputs()], steps=0)
    with pytest.raises(ExecutionError, match="Linear is no hybrid"):
        qcascade.distill(nn.Linear(2, 2), [])  # type: ignore[arg-type]
