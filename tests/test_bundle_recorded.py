"""Tensor code written down as an ONNX function: the same results, at other sizes too, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor

from qcascade.bundle.recorded import DOMAIN, record

SPECS = [(torch.float32, ((2, 3), 4)), (torch.float32, (4,))]


def everything(x: Tensor, w: Tensor) -> list[Tensor]:
    """Every operator of the table, on [B, 4] and [4]."""
    index = torch.arange(4, dtype=torch.float32)
    turned = torch.stack((x.cos(), -x.sin()), -1)[..., 1].unsqueeze(1) * 0.5 + (1 - 2 * (index % 3)) / 3
    gates = torch.cat((turned.reshape(x.shape[0] if x.shape[0] == 1 else -1, 1, 4), w[None, None] + x[:, None]), 1)
    split = gates.transpose(-1, -2).unflatten(-1, (2, 1))[:, 1:3, ..., 0]
    product = split.reshape(-1, 4) @ torch.tensor([[1.0, 2.0]] * 4) - w.sum(-1)
    table = (torch.arange(4)[:, None] == torch.arange(4)).to(torch.float32).T
    chosen = (x @ table).index_select(-1, torch.tensor([3, 0]))
    return [product + torch.zeros_like(product), chosen.abs().sqrt(), (x / 0.3).floor() % 2]


def test_every_operator_gives_torchs_results_at_any_size() -> None:
    recording = record("Everything", everything, SPECS)
    assert recording.shapes == (((2, 3), 2), ((2, 3), 2), ((2, 3), 4))
    inputs = [ir.Value(name="x"), ir.Value(name="w")]
    for value, shape in zip(inputs, (["batch", 4], [4]), strict=True):
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(shape)
    node = ir.node("Everything", inputs, domain=DOMAIN, num_outputs=3)
    for value in node.outputs:
        value.dtype = ir.DataType.FLOAT
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": 20, DOMAIN: 1}, name="test")
    model = ir.Model(graph, ir_version=10, functions=[recording.body])
    session = onnxruntime.InferenceSession(ir.serde.serialize_model(model).SerializeToString())
    for batch in (1, 2, 7):
        x, w = torch.randn(batch, 4), torch.randn(4)
        for found, wanted in zip(session.run(None, {"x": x.numpy(), "w": w.numpy()}), everything(x, w), strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x, w: [x * x.shape[0]], ValueError, "not the same for every size"),
        (lambda x, w: [x.softmax(-1)], NotImplementedError, "softmax has no form"),
        (lambda x, w: [x if bool((w > 0).all()) else w], NotImplementedError, "has no form"),
        (lambda x, w: [w] if float(w.sum(-1)) > 0 else [x], NotImplementedError, "decides in Python"),
        (lambda x, w: [x[::2]], NotImplementedError, "slices with steps"),
        (lambda x, w: [x[w > 0]], NotImplementedError, "has no form"),
        (lambda x, w: [x + torch.arange(4)], NotImplementedError, "float32 and torch.int64"),
        (lambda x, w: [torch.tensor([0.0] * 70000) + 1], NotImplementedError, "70000 elements"),
    ],
)
def test_what_has_no_form_is_refused(
    function: Callable[..., list[Tensor]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        record("Refused", function, SPECS)
