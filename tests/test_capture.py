"""Capture and the hybrid without kernels: it must be the original in everything."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import bert
from torch import nn

import qcascade
from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel
from qcascade.errors import CaptureError


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = nn.Conv2d(3, 4, 3)  # a child with the name of one of the hybrid's own attributes
        self.norm, self.kernels = nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.register_buffer("scale", torch.full((1,), 2.0), persistent=False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(self.plan(x)).relu().mean((2, 3)) * self.scale
        return {"logits": self.kernels(y), "pooled": y}


def test_modes_buffers_and_names_that_clash() -> None:
    model = ConvNet()
    before = copy.deepcopy(model.state_dict())
    hybrid = qcascade.compile(model, torch.randn(4, 3, 8, 8), kernels=[])
    assert list(hybrid.state_dict()) == list(before)
    x = torch.randn(5, 3, 8, 8)
    for mode in (True, False, True):
        model.train(mode), hybrid.train(mode)
        torch.testing.assert_close(hybrid(x), model(x))
    for key, value in model.state_dict().items():  # running statistics moved alike
        torch.testing.assert_close(hybrid.state_dict()[key], value)
    assert not torch.equal(before["norm.running_mean"], model.state_dict()["norm.running_mean"])
    assert hybrid.plan.capture.method == "export"


def test_dropout_only_in_training() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 2))
    hybrid = qcascade.compile(model, kernels=[])
    x = torch.randn(4, 8)
    assert not torch.equal(hybrid(x), hybrid(x))
    hybrid.eval()
    assert torch.equal(hybrid(x), hybrid(x))
    torch.manual_seed(5)
    expected = model(x)
    torch.manual_seed(5)
    assert torch.equal(hybrid.train()(x), expected)


def test_the_original_is_untouched_and_random_state_too() -> None:
    model = bert(num_hidden_layers=1)
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    qcascade.compile(model)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training is False or model.training is True
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.fixture(scope="module")
def captured() -> CapturedModel:
    return capture(bert())


def test_batch_and_length_are_free_and_bounded(captured: CapturedModel) -> None:
    specs = {s.name: s for s in captured.inputs}
    assert specs["input_ids"].shape == (None, None)
    assert specs["input_ids"].maximum[1] == 512
    assert specs["input_ids"].ids_below == 99


def test_every_node_has_provenance(captured: CapturedModel) -> None:
    graph = captured.eval_graph.graph
    linears = [n for n in graph.nodes if n.target is torch.ops.aten.linear.default]
    assert len(linears) == 14
    assert all("nn_module_stack" in n.meta for n in linears)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Bilinear(2, 3, 4), None, "input1"),
        (nn.ReLU(), None, "input"),
        (nn.Linear(2, 2), 5, "give a tensor, a tuple"),
        (nn.Linear(2, 2), {"x": torch.zeros(1, 2)}, "do not fit"),
        (nn.Linear(2, 2), torch.zeros(2, 3), "could not be captured"),
        ("model", None, "torch.nn.Module"),
    ],
)
def test_what_cannot_be_captured_says_why(model: nn.Module, inputs: object, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        capture(model, inputs)


def test_data_dependent_code_keeps_running() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    hybrid = qcascade.compile(Branch(), torch.randn(2, 2))
    assert hybrid.plan.capture.method == "modules"
    x = -torch.ones(3, 2)
    assert torch.equal(hybrid(x), -x)
