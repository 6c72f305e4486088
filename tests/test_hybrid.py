"""The hybrid as users use it: training, saving, moving, bad calls, distillation."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from conftest import bert, text_inputs
from torch import nn

import qcascade
from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel
from qcascade.compiler import compile_captured, make_request
from qcascade.errors import CaptureError, ExecutionError
from qcascade.hybrid import HybridModule


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


def test_calls_by_position_by_name_and_without_the_mask(hybrid: HybridModule) -> None:
    hybrid.eval()
    ids = text_inputs()["input_ids"]
    wanted = hybrid(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    for got in (hybrid(ids, torch.ones_like(ids)), hybrid(ids), hybrid(input_ids=ids.int())):
        assert torch.equal(got.logits, wanted)


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
