"""Linear layers with columns more: the same function, for every way in which one layer's columns come about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import qcascade
from qcascade.bundle import row_parts


class Layers(nn.Module):
    """Layers that are 1,024 or 2,048 wide or not, between activations that carry a constant (GELU, ReLU) or do not (tanh)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1024, 2048), nn.Linear(2048, 24)
        self.bare, self.back = nn.Linear(24, 1024, bias=False), nn.Linear(1024, 1024, bias=False)
        self.last, self.side = nn.Linear(1024, 5), nn.Linear(1024, 24)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        narrow = self.second(nn.functional.gelu(self.first(x)))  # its columns made by `first`
        rectified = torch.relu(self.bare(narrow))  # made by `bare`, which has no bias and narrow rows itself
        shared = torch.tanh(self.back(rectified))  # appended, once for two layers
        used_twice = torch.relu(self.back(shared))  # also a result: appended
        return narrow, self.side(shared), self.last(shared), self.last(used_twice), used_twice


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[qcascade.HybridModule, Path]:
    torch.manual_seed(0)
    hybrid = qcascade.compile(Layers(), (torch.zeros(2, 3, 1024),), kernels=[]).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_parts, "NODES", 0)  # so that all products stand in the graph
        return hybrid, qcascade.export(hybrid, tmp_path_factory.mktemp("wide") / "x")


def test_longer_rows_compute_the_same(exported: tuple[qcascade.HybridModule, Path]) -> None:
    hybrid, path = exported
    model = onnx.load(path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    session = onnxruntime.InferenceSession(path / "model.onnx")
    for shape in ((1, 1, 1024), (3, 7, 1024)):
        x = torch.randn(*shape)
        with torch.no_grad():
            wanted = hybrid(x)
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        for one, other in zip(wanted, found, strict=True):
            np.testing.assert_allclose(one.numpy(), other, atol=1e-5)


def test_only_what_needs_columns_gets_them_and_no_bias_is_added_apart(
    exported: tuple[qcascade.HybridModule, Path],
) -> None:
    model = onnx.load(exported[1] / "model.onnx", load_external_data=False)
    made = {name: node for node in model.graph.node for name in node.output}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) == 8
    appended = {node.input[0] for node in products if made.get(node.input[0]) and made[node.input[0]].op_type == "Pad"}
    assert len(appended) == 3  # to x, to `shared`, to `used_twice`
    assert sum(node.op_type in ("Add", "Sum") for node in model.graph.node) == 1  # of `bare`, for the columns of `back`
