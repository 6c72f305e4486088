"""Attention pooling's form for runtimes: the kernel's results at any length, and what of a kernel cannot be exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import qcascade
from qcascade.bundle.attention_body import AttentionBody
from qcascade.bundle.kernel_nodes import KernelNode
from qcascade.kernels import AmplitudeAttentionPooling
from qcascade.kernels.adapter import AmplitudeAdapter


@settings(deadline=None, max_examples=40)
@given(
    most=st.one_of(st.integers(3, 40), st.integers(60, 130), st.sampled_from([512, 700, 1024])),
    share=st.floats(0, 1),
    layers=st.integers(0, 3),
    entangler=st.sampled_from(["source", "chain", "cycle"]),
    local=st.sampled_from([0, 3]),
    masked=st.booleans(),
)
def test_the_form_for_runtimes_is_the_kernel(
    most: int, share: float, layers: int, entangler: str, local: int, masked: bool
) -> None:
    torch.manual_seed(0)
    kernel = AmplitudeAttentionPooling(8, 2, most, slots=2, layers=layers, entangler=entangler, local_width=local)
    for parameter in kernel.parameters():
        nn.init.normal_(parameter)
    length = max(1, round(share * most))
    x, mask = torch.randn(3, length, 8), torch.rand(3, length) > 0.3
    mask[:2, 0] = True
    mask[2] = False  # then all count
    if not AttentionBody.applies(kernel):
        assert most <= 4 and layers > 1  # rotations about Y and Z meet where qubits are too few for a controlled phase
        return
    with torch.no_grad():
        kernel.double(), x.double()
        found, wanted = (
            form.eval()(x.double(), mask if masked else None) for form in (AttentionBody.of(kernel), kernel)
        )
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-6)


def test_wide_registers_keep_the_kernels_own_forward() -> None:
    assert not AttentionBody.applies(AmplitudeAttentionPooling(8, 2, 1025, slots=2))


def test_every_length_of_a_register_of_several_rows_runs(tmp_path: Path) -> None:
    most = 50
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
    hybrid = qcascade.compile(
        layer, torch.randn(3, 9, 8), kernels={"amplitude_attention_pooling": {"slots": 2, "max_length": most}}
    ).eval()
    for kernel in hybrid.kernels.values():
        nn.init.normal_(kernel.angles)
    folder = qcascade.export(hybrid, tmp_path / "bundle")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for batch, length in ((1, most), (2, 1), (5, 16), (3, 17), (40, 33), (1, 15)):
        x = torch.randn(batch, length, 8)
        with torch.no_grad():
            np.testing.assert_allclose(session.run(None, {name: x.numpy()})[0], hybrid(x).numpy(), atol=1e-5)
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    nodes = onnx.load(folder / "model.onnx", load_external_data=False).graph.node
    ends = [node.input[0] for node in nodes if node.op_type == "LayerNormalization"]
    assert {node.op_type for node in nodes if node.output[0] in ends} == {"Sum"}


def test_autocast_in_bfloat16_is_refused(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = self.first(x)
            return y.float()

    hybrid = qcascade.compile(Mixed(), torch.randn(3, 8), kernels=[])
    with pytest.raises(qcascade.BundleError, match=r"Mixed computes in bfloat16 \(operator \w+.*without autocast"):
        qcascade.export(hybrid, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_kernel_that_torch_does_not_capture_is_named() -> None:
    class Choosing(AmplitudeAdapter):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool((x > 0).all()) else -x

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = KernelNode("block.0.quantum", Choosing(8, 4).eval())

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(x)

    with pytest.raises(qcascade.BundleError, match=r"kernel block\.0\.quantum \(Choosing\) cannot be captured"):
        torch.export.export(Around(), (torch.ones(2, 8),), strict=False)
