"""A call that export makes up and the model does not take; the command line's bound on memory."""

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
    # 60 MB at once, which malloc does not take from what its heap already has
    np.savez(tmp_path / "x.npz", x=np.zeros((3 * 10**6, 6), np.float32))
    result = CliRunner().invoke(app, [*names, "--memory", "0.01"])
    assert isinstance(result.exception, BundleError | ExecutionError)
    assert "may take 10000000 bytes" in str(result.exception)
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 6), np.float32))
    result = CliRunner().invoke(app, [*names, "--memory", "1e12"])  # more than a limit can say: none
    assert result.exit_code == 0, result.output
    for wrong in ("0", "-1", "nan", "inf", "1e300"):
        result = CliRunner().invoke(app, [*names, "--memory", wrong])
        assert result.exit_code == 2 and "GB above 0 are needed" in result.output
