"""Exports of kernels with short registers, without example inputs; and the command line's bound on memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import small_hybrid, write_small
from torch import Tensor, nn
from typer.testing import CliRunner

import qcascade
from qcascade.cli import app
from qcascade.errors import BundleError, ExecutionError


def test_a_register_shorter_than_the_usual_example(tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(4, 1, 4, batch_first=True)
    kernels = {"amplitude_attention_pooling": {"max_length": 5, "slots": 1, "layers": 1}}
    hybrid = qcascade.compile(nn.Sequential(layer), (torch.zeros(2, 4, 4),), kernels=kernels).eval()
    bundle = qcascade.load(qcascade.export(hybrid, tmp_path / "x"), threads=1)
    (name,) = (entry.name for entry in bundle.manifest.inputs)
    for length in (1, 2, 4, 5):  # the sequence stays free, and reaches all that the kernel takes
        x = torch.randn(3, length, 4)
        (found,) = bundle(**{name: x}).values()
        torch.testing.assert_close(found, hybrid(x), atol=1e-5, rtol=0)


def test_a_call_that_the_model_does_not_take_is_one_clear_error(tmp_path: Path) -> None:
    class Turned(nn.Module):
        """Rows and positions change places: the made-up batch becomes the kernel's length."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 1, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.cat((x, x, x), 1))

    kernels = {"amplitude_attention_pooling": {"max_length": 6, "slots": 1, "layers": 1}}
    hybrid = qcascade.compile(Turned(), (torch.zeros(3, 2, 4),), kernels=kernels).eval()
    with pytest.raises(
        BundleError, match=r"does not take the call made up .*\[2, 5, 4\].*Give qcascade.export example_inputs"
    ):
        qcascade.export(hybrid, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_run_takes_a_bound_on_memory(tmp_path: Path) -> None:
    write_small(tmp_path / "a.qcb", small_hybrid())
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 6), np.float32))
    names = ["run", str(tmp_path / "a.qcb"), "--inputs", str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz")]
    result = CliRunner().invoke(app, [*names, "--memory", "0.5"])
    assert result.exit_code == 0, result.output
    np.savez(tmp_path / "x.npz", x=np.zeros((3 * 10**5, 6), np.float32))
    result = CliRunner().invoke(app, [*names, "--memory", "0.01"])
    assert isinstance(result.exception, BundleError | ExecutionError)
    assert "may take 10000000 bytes" in str(result.exception)
    for wrong in ("0", "-1", "nan", "inf"):
        result = CliRunner().invoke(app, [*names, "--memory", wrong])
        assert result.exit_code == 2 and "GB above 0 are needed" in result.output
