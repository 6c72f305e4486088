"""Every rung of the ladder: what takes a model down, what is said, and that the hybrid is still the model."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import random
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ladder_models import (
    Buffers,
    Checkpointed,
    Clipped,
    Counting,
    Custom,
    Fixed,
    Functions,
    Hidden,
    Loop,
    PackedSequences,
    Recurrent,
    Refusing,
    Reversed,
    Seeded,
    Shrinking,
    Structures,
    Teacher,
    Tied,
    Writes,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils import _pytree as pytree

import qcascade
from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel, CapturedModules
from qcascade.errors import BundleError, CaptureError, ExecutionError
from qcascade.hybrid import HybridModule
from qcascade.module_hybrid import ModuleHybrid, Part


def outcome(model: nn.Module, inputs: dict[str, Any], training: bool) -> tuple[list[Any], dict[str, Tensor]]:
    """Results and gradients of a loss on all of them."""
    model.train(training)
    torch.manual_seed(4)
    results = pytree.tree_leaves(model(**pytree.tree_map(lambda t: t.clone(), inputs)))
    tensors = [t for t in results if isinstance(t, Tensor)]
    torch.stack([t.square().sum() for t in tensors if t.requires_grad]).sum().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return [r.detach() if isinstance(r, Tensor) else r for r in results], found


def assert_same(model: nn.Module, hybrid: HybridModule, *calls: dict[str, Any]) -> None:
    assert list(hybrid.state_dict()) == list(model.state_dict())
    for inputs in calls:
        for training in (False, True):
            wanted, got = outcome(model, inputs, training), outcome(hybrid, inputs, training)
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(hybrid.state_dict(), model.state_dict(), rtol=1e-6, atol=1e-7)


def assert_copies(hybrid: HybridModule, inputs: dict[str, Any]) -> None:
    """Copied and pickled hybrids compute the same and share nothing."""
    hybrid.eval()
    buffer = io.BytesIO()
    torch.save(hybrid, buffer)
    buffer.seek(0)
    made = [copy.deepcopy(hybrid), pickle.loads(pickle.dumps(hybrid)), torch.load(buffer, weights_only=False)]

    def results(made: nn.Module) -> list[Any]:
        return pytree.tree_leaves(copy.deepcopy(made)(**copy.deepcopy(inputs)))

    wanted = results(hybrid)
    for other in made:
        assert isinstance(other, HybridModule)
        torch.testing.assert_close(results(other), wanted)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
    torch.testing.assert_close(results(hybrid), wanted)


def floats(*shape: int) -> dict[str, Any]:
    return {"x": torch.randn(*shape)}


def tokens(*shape: int) -> dict[str, Any]:
    return {"ids": torch.randint(0, 2000, shape)}


CASES = {
    "custom autograd function": (Custom, floats(2, 5, 16), floats(3, 7, 16), "modules"),
    "reentrant checkpoint": (Checkpointed, floats(2, 4), floats(5, 4), "modules"),
    "python while": (Loop, tokens(2, 8), tokens(3, 5), "modules"),
    "attribute that counts": (Counting, floats(2, 4), floats(5, 4), "modules"),
    "list that counts": (partial(Hidden, [0]), floats(2, 4), floats(5, 4), "modules"),
    "entry that counts": (partial(Hidden, {0: 0}), floats(2, 4), floats(5, 4), "modules"),
    "field that counts": (partial(Hidden, SimpleNamespace(calls=0)), floats(2, 4), floats(5, 4), "modules"),
    "hook on a tensor": (Reversed, floats(2, 4), floats(5, 4), "modules"),
    "generator of its own": (Seeded, floats(2, 4), floats(5, 4), "modules"),
    "tied by code": (Tied, tokens(2, 8), tokens(3, 5), "modules"),
    "no stand-ins": (Refusing, floats(2, 8, 32), floats(3, 5, 32), "symbolic_trace"),
    "no gradients, no stand-ins": (Fixed, floats(2, 4), floats(5, 4), "modules"),
    "count, no stand-ins": (partial(Fixed, counts=True), floats(2, 4), floats(5, 4), "modules"),
    "parameters replaced": (Teacher, floats(2, 4), floats(5, 4), "modules"),
    "parameters clipped": (Clipped, floats(2, 4), floats(5, 4), "modules"),
    "parameters written to": (Shrinking, floats(2, 4), floats(5, 4), "export"),
    "buffers": (Buffers, floats(4, 4), floats(6, 4), "export"),
    "structures": (
        Structures,
        {"x": {"a": torch.randn(2, 4)}, "pair": (torch.randn(2, 4), torch.randn(2, 4))},
        {"x": {"a": torch.randn(3, 4)}, "pair": (torch.randn(3, 4), torch.randn(3, 4))},
        "export",
    ),
    "functions of its own": (Functions, floats(2, 5, 8), floats(3, 7, 8), "export"),
    "recurrent": (Recurrent, floats(2, 6, 4), floats(3, 9, 4), "export"),
    "packed": (
        PackedSequences,
        {"ids": torch.tensor([[3, 4, 0], [5, 6, 7]])},
        {"ids": torch.tensor([[3, 4, 8, 5, 0, 0], [5, 6, 7, 1, 2, 3], [9, 0, 0, 0, 0, 0]])},
        "modules",
    ),
    "writes to its input": (Writes, floats(2, 4), floats(5, 4), "export"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_hybrid_without_kernels_is_the_model(name: str) -> None:
    kind, example, other, rung = CASES[name]
    model = kind()
    before, state = copy.deepcopy(model.state_dict()), dict(model.__dict__)
    given = copy.deepcopy(example)
    hybrid = qcascade.compile(model, example, kernels=[])
    assert hybrid.plan.capture.method == rung
    torch.testing.assert_close(model.state_dict(), before)
    torch.testing.assert_close(hybrid.state_dict(), before)
    assert {k: v for k, v in model.__dict__.items() if not k.startswith("_")} == {
        k: v for k, v in state.items() if not k.startswith("_")
    }
    torch.testing.assert_close(example, given)
    assert_same(model, hybrid, example, other)
    assert_copies(hybrid, other)


def test_a_step_down_is_a_visible_line(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.WARNING, "qcascade"):
        made = qcascade.plan(Loop(), tokens(2, 8), kernels=[])
    lines = [r.getMessage() for r in caplog.records if r.name == "qcascade"]
    assert len(lines) == 2
    assert lines[0].startswith("export did not capture the model (GuardOnDataDependentSymNode")
    assert lines[1].startswith("symbolic_trace did not capture the model (TypeError")
    assert all(line in made.capture.notes for line in lines)
    assert "def forward" not in capfd.readouterr().err  # torch prints half a graph by itself


def test_a_custom_backward_is_kept() -> None:
    """Export would drop the sevenfold gradient; the notes name the function and its module."""
    model = Custom()
    hybrid = qcascade.compile(model, floats(2, 5, 16), kernels=["amplitude_attention_pooling"])
    assert isinstance(hybrid, ModuleHybrid)
    assert any("seven: it runs the torch.autograd.Function Double" in n for n in hybrid.plan.capture.notes)
    assert list(hybrid.kernels) == ["layer.self_attn"]
    assert "layer.self_attn.quantum.angles" in hybrid.state_dict()
    x = torch.randn(2, 5, 16)
    hybrid.eval()
    (straight,) = torch.autograd.grad(hybrid.head(hybrid.layer(x).mean(1)).sum(), hybrid.layer.linear1.weight)
    hybrid(x).sum().backward()
    torch.testing.assert_close(hybrid.layer.linear1.weight.grad, 7 * straight)


def test_backward_hooks_that_a_model_had_run() -> None:
    def threefold(module: nn.Module, into: Any, out: Any) -> Any:
        return tuple(None if g is None else 3 * g for g in into)

    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)))
    model[1].register_full_backward_hook(threefold)
    model[2][0].register_full_backward_hook(threefold)
    hybrid = qcascade.compile(model, floats(2, 4)["x"], kernels=[])
    assert any("2.0: it has backward hooks, which a graph would drop" in n for n in hybrid.plan.capture.notes)
    x = torch.randn(5, 4)
    for each in (model, hybrid):
        each(x).sum().backward()
    assert torch.equal(hybrid.get_parameter("0.weight").grad, model[0].weight.grad)  # type: ignore[arg-type]


class Skipping(nn.Module):
    """Depth drawn by Python or NumPy."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.layer, self.draw = nn.Linear(4, 4), draw

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training and self.draw() < 0.5 else self.layer(x)


@pytest.mark.parametrize("draw", [lambda: random.random(), lambda: np.random.rand()], ids=["python", "numpy"])
def test_what_python_draws_is_drawn_at_every_call(draw: Any) -> None:
    model, states = nn.Sequential(nn.Linear(4, 4), Skipping(draw)), (random.getstate(), np.random.get_state()[1])
    hybrid = qcascade.compile(model, torch.randn(2, 4), kernels=[])
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert any("(1: it draws from the random numbers of Python or NumPy" in n for n in hybrid.plan.capture.notes)
    x, results = torch.randn(3, 4), []
    for made in (model, hybrid):
        random.seed(3)
        np.random.seed(3)
        results.append(torch.stack([made(x) for _ in range(12)]))
    assert torch.equal(*results)
    assert len(results[0].unique(dim=0)) == 2


def test_scripted_modules_inside_a_model_stay_as_they_are() -> None:
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 4)), nn.Linear(4, 2))
    hybrid = qcascade.compile(model, torch.randn(2, 4), kernels=[])
    assert_same(model, hybrid, {"input": torch.randn(3, 4)})


def test_functions_in_a_graph_that_cannot_be_called_by_name_step_down() -> None:
    class Local(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return 5 * grad

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return Local.apply(self.layer(x))  # type: ignore[no-any-return]

    model = Model()
    hybrid = qcascade.compile(model, torch.randn(2, 4), kernels=[])
    assert hybrid.plan.capture.method == "modules"
    assert_same(model, hybrid, floats(3, 4))


def test_a_bundle_with_functions_of_a_graph_has_no_way_back_and_says_so(tmp_path: Path) -> None:
    hybrid = qcascade.compile(Functions(), floats(2, 5, 8), kernels=[])
    with pytest.warns(UserWarning, match="has no way back into torch"):
        qcascade.export(hybrid, tmp_path / "model.qcascade")


def test_recurrent_layers_are_not_written_as_onnx_of_one_length(tmp_path: Path) -> None:
    hybrid = qcascade.compile(nn.GRU(4, 3), floats(5, 2, 4)["x"], kernels=[])
    with pytest.raises(BundleError, match=r"runs aten.gru.input, which torch writes as ONNX for one sequence length"):
        qcascade.export(hybrid, tmp_path / "model.qcascade")


def test_module_by_module_offloads_trains_and_distils() -> None:
    model = Loop()
    hybrid = qcascade.compile(model, tokens(2, 8))
    assert set(hybrid.kernels) == {"embed", "layer.self_attn", "head"}
    assert hybrid.plan["layer.self_attn"].module == "layer.self_attn"
    inputs = tokens(6, 8)
    wanted = torch.tensor([0, 1, 2, 0, 1, 2])
    report = qcascade.distill(hybrid, [inputs] * 2)
    assert set(report.after) == set(hybrid.kernels)
    optimizer = torch.optim.Adam(hybrid.eval().parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(hybrid(**inputs)["logits"], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert_copies(hybrid, inputs)
    assert "quantum" in hybrid.code
    hybrid.use("shots", shots=64)(**inputs)
    assert hybrid.last_run
    with pytest.raises(ExecutionError, match="ids from 0 to 1999"):
        hybrid(torch.full((2, 8), 2000))


def test_hooks_run_where_the_models_own_code_does_and_are_warned_of_in_parts() -> None:
    hybrid, ran = qcascade.compile(Loop(), tokens(2, 8)), list[str]()
    parts = [module for module in hybrid.modules() if isinstance(module, Part)]
    parts[0].register_forward_hook(lambda *_: ran.append("part"))
    kernel = hybrid.get_submodule("layer.self_attn.quantum")
    kernel.register_forward_hook(lambda *_: ran.append("kernel"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hybrid(**tokens(2, 8))
    assert set(ran) == {"part", "kernel"}
    hybrid.get_submodule("layer.linear1").register_forward_hook(lambda *_: ran.append("inside"))
    with pytest.warns(UserWarning, match="hooks of a module inside a hybrid do not run"):
        hybrid(**tokens(2, 8))
    assert "inside" not in ran


@pytest.mark.parametrize("counts", [False, True])
def test_a_train_that_freezes_modules_freezes_them_in_the_hybrid(counts: bool) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.calls = nn.Linear(4, 8), nn.BatchNorm1d(8), 0

        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            self.calls += counts
            return self.norm(self.first(x))  # type: ignore[no-any-return]

    model, x = Frozen(), torch.randn(5, 4) + 3
    hybrid = qcascade.compile(model, torch.randn(2, 4), kernels=[]).train()
    assert hybrid.plan.capture.method == ("modules" if counts else "export")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.testing.assert_close(hybrid(x), model.train()(x))
    assert hybrid.get_buffer("norm.running_mean").eq(0).all()


def test_modes_of_modules_inside_parts_are_warned_of() -> None:
    hybrid = qcascade.compile(Loop(), tokens(2, 8)).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hybrid(**tokens(2, 8))
    hybrid.get_submodule("layer.dropout").eval()
    with pytest.warns(UserWarning, match=r"layer\.dropout is in evaluation mode, inside a hybrid in training mode"):
        hybrid(**tokens(2, 8))


def test_modules_put_into_parts_are_warned_of() -> None:
    hybrid = qcascade.compile(Loop(), tokens(2, 8)).train()
    copied = copy.deepcopy(hybrid)
    copied.layer.dropout = nn.Identity()
    with pytest.warns(UserWarning, match=r"layer\.dropout is a Identity now and was a Dropout"):
        copied(**tokens(2, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hybrid(**tokens(2, 8))


def test_a_table_that_other_code_uses_is_refused_with_where() -> None:
    made = qcascade.plan(Tied(), tokens(2, 8))
    assert made["embed"].verdict == "kept"
    assert made["embed"].reason == "its weights are also used by Tied"


def test_calls_that_are_not_alike_stay_as_they_are() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return self.layer(y[:, None]) if y.sum() < 1e9 else self.other(y)

    notes = qcascade.plan(Two(), torch.randn(2, 4)).capture.notes
    assert any("layer (Linear) stays as it is: its 2 calls are not alike" in n for n in notes)


def test_symbolic_trace_finds_attention_written_in_functions() -> None:
    hybrid = qcascade.compile(Refusing(), floats(2, 8, 32))
    assert list(hybrid.kernels) == ["attention"]
    hybrid(torch.randn(3, 6, 32))["y"].sum().backward()
    assert all(p.grad is not None for p in hybrid.parameters())


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_modules_are_unwrapped_and_said_so(wrap: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    hybrid = qcascade.compile(wrap(model), torch.randn(2, 4), kernels=[])
    assert list(hybrid.state_dict()) == list(model.state_dict())
    assert any("was unwrapped" in n for n in hybrid.plan.capture.notes)
    x = torch.randn(3, 4)
    assert torch.equal(hybrid(x), model(x))


def test_distributed_modules_are_unwrapped(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.Linear(4, 2)
        hybrid = qcascade.compile(nn.parallel.DistributedDataParallel(model), torch.randn(2, 4), kernels=[])
    finally:
        torch.distributed.destroy_process_group()
    assert list(hybrid.state_dict()) == ["weight", "bias"]
    assert any(n.startswith("DistributedDataParallel was unwrapped") for n in hybrid.plan.capture.notes)


def test_modules_without_parameters_and_single_layers() -> None:
    hybrid = qcascade.compile(nn.Sequential(nn.ReLU(), nn.Softmax(-1)), torch.randn(2, 4))
    x = torch.randn(3, 4)
    assert torch.equal(hybrid(x), x.relu().softmax(-1))
    table = qcascade.compile(nn.Embedding(2000, 128))
    assert table(torch.randint(0, 2000, (2, 5))).shape == (2, 5, 128)


def test_an_exported_program_is_a_model(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(2000, 128), nn.Dropout(), nn.Flatten(), nn.Linear(1024, 3)).eval()
    example = torch.randint(0, 2000, (2, 8))
    program = torch.export.export(model, (example,), dynamic_shapes=((torch.export.Dim.AUTO, None),))
    for given in (program, program.module()):
        hybrid = qcascade.compile(given, None if given is program else example, kernels=[])
        assert list(hybrid.state_dict()) == list(model.state_dict())
        other = torch.randint(0, 2000, (5, 8))
        for training in (False, True):
            assert torch.equal(hybrid.train(training)(other), model(other))
    assert any("one mode" in n for n in qcascade.plan(program).capture.notes)
    hybrid = qcascade.compile(program)
    assert set(hybrid.kernels) == {"0", "3"}
    hybrid(other).sum().backward()


def test_exported_files_from_the_command_line(tmp_path: Path) -> None:
    from qcascade.commands.model import load_model

    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    file = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(model, (torch.randn(2, 16),)), file)
    assert qcascade.plan(load_model(str(file))).summary.regions == 2
    with pytest.raises(CaptureError, match="there is no file"):
        load_model(str(tmp_path / "absent.pt2"))
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    with pytest.raises(CaptureError, match=r"bad\.pt2 cannot be loaded") as caught:
        load_model(str(tmp_path / "bad.pt2"))
    assert caught.value.__cause__ is not None


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError("seven by nothing")


class Elsewhere(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to("cuda")


class NoTensor(nn.Module):
    def forward(self, x: Tensor) -> dict[str, int]:
        return {"rows": x.shape[0]}


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo: Any) -> None:
        raise TypeError("only one of me")


@pytest.mark.parametrize(
    ("model", "message", "cause"),
    [
        (
            Fails(),
            "its own forward fails .* ZeroDivisionError: seven by nothing .*tried: the forward",
            ZeroDivisionError,
        ),
        (nn.Linear(3, 2), "its own forward fails .* RuntimeError: mat1 and mat2", RuntimeError),
        (NoTensor(), "returns dict without any tensor", None),
        (Uncopyable(), "copying it failed with TypeError: only one of me", TypeError),
        (nn.Linear(4, 2, device="meta"), "weight is on the meta device, .*to_empty", None),
        (torch.jit.script(nn.Linear(4, 2)), "TorchScript, .*pass the module that it was made from", None),
    ],
)
def test_models_that_do_not_run_say_why(model: nn.Module, message: str, cause: type[Exception] | None) -> None:
    with pytest.raises(CaptureError, match=message) as caught:
        qcascade.compile(model, torch.randn(2, 4))
    assert caught.value.__cause__ is None if cause is None else isinstance(caught.value.__cause__, cause)


@dataclass
class Answer:
    logits: Tensor


class GivesDataclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.linear(x))


def test_a_dataclass_that_torch_does_not_know_says_what_to_do() -> None:
    model, x = GivesDataclass(), torch.randn(3, 4)
    with pytest.raises(CaptureError, match=r"the dataclass Answer.*torch.export.register_dataclass\(Answer\)"):
        qcascade.compile(model, x)
    torch.export.register_dataclass(Answer)
    assert torch.equal(qcascade.compile(model, x, kernels=[])(x).logits, model(x).logits)


def test_models_that_keep_results_of_computations_are_copied() -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(4, 16)
    prune.l1_unstructured(model[0], "weight", 0.5)  # keeps weight_orig * mask
    hybrid = qcascade.compile(model, (x,), kernels=[])
    for trained in (model, hybrid):
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            trained(x).square().sum().backward()
            optimizer.step()
    assert torch.equal(hybrid(x), model(x))


def test_sparse_inputs() -> None:
    model, x = nn.Linear(4, 2), torch.eye(4).to_sparse()
    hybrid = qcascade.compile(model, (x,), kernels=[])
    torch.testing.assert_close(hybrid(x), model(x))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device that is here is no bad input")
def test_a_device_that_is_not_here() -> None:
    with pytest.raises(CaptureError, match="on a device that is here") as caught:
        qcascade.compile(Elsewhere(), torch.randn(2, 4))
    assert isinstance(caught.value.__cause__, (AssertionError, RuntimeError))


def test_a_model_that_only_evaluates() -> None:
    class NoTraining(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("not for training")
            return self.layer(x)

    hybrid = qcascade.compile(NoTraining(), torch.randn(2, 4), kernels=[])
    assert hybrid.eval()(torch.randn(3, 4)).shape == (3, 2)
    with pytest.raises(ExecutionError, match=r"only evaluates: training mode was not captured.*not for training"):
        hybrid.train()(torch.randn(3, 4))


def test_what_capture_returns() -> None:
    whole, parts = capture(nn.Linear(4, 2)), capture(Tied(), tokens(2, 8))
    assert isinstance(whole, CapturedModel)
    assert isinstance(parts, CapturedModules)
    assert [p.path for p in parts.parts] == ["embed", "mix"]
    assert [p.final for p in parts.parts] == [False, False]


def test_caches_of_keys_and_values_step_down() -> None:
    """A cache is no tensor: the model's own forward takes it, and gives the same as without one."""
    from conftest import llama

    model = llama().eval()
    ids = torch.randint(0, 99, (2, 6))
    hybrid = qcascade.compile(model, {"input_ids": ids, "use_cache": True}, kernels=[]).eval()
    first, whole = hybrid(input_ids=ids, use_cache=True), model(input_ids=ids, use_cache=True)
    torch.testing.assert_close(first.logits, whole.logits)
    torch.testing.assert_close(
        pytree.tree_leaves(first.past_key_values.layers[0].keys),
        pytree.tree_leaves(whole.past_key_values.layers[0].keys),
    )
