"""What a stranger's graph may take of the memory: broadcasts that grow while they run, constants that grow while they load."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import small_hybrid, write_small
from onnx import helper, numpy_helper

import qcascade
from qcascade.bundle.memory import available, bounded
from qcascade.errors import BundleError, ExecutionError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
ALLOWED = 2**28
node = helper.make_node


def peak() -> int:
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def after(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Add `more` [], made by nodes, to the model's result."""
    model.graph.node[-1].output[0] = "before"
    model.graph.node.extend([*nodes, node("Add", ["before", "more"], ["y"])])


def broadcast(model: onnx.ModelProto) -> None:
    """Every row against every row: 1.6 GB for 8,192 of them; no constant says so."""
    for place in (0, 1):
        model.graph.initializer.append(numpy_helper.from_array(np.array([place]), f"axis_{place}"))
    pair = [node("Unsqueeze", ["x", f"axis_{place}"], [f"x_{place}"]) for place in (0, 1)]
    after(model, [*pair, node("Mul", ["x_0", "x_1"], ["p"]), node("ReduceMax", ["p"], ["more"], keepdims=0)])


def constants(model: onnx.ModelProto) -> None:
    """Six products of two constants, 576 MB each, which onnxruntime works out while it loads."""
    side = np.ones((12_000, 1), np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(side, "c"), numpy_helper.from_array(side.T.copy(), "r")])
    products = [node("Pow" if k % 2 else "Mul", ["c", "r"], [f"p_{k}"], name=f"p_{k}") for k in range(2)]
    grown = [node(kind, ["p_0"], [f"q_{kind}"]) for kind in ("Sqrt", "Exp", "Neg", "Abs")]
    total = node("Sum", [*(n.output[0] for n in (*products, *grown))], ["total"])
    after(model, [*products, *grown, total, node("ReduceMax", ["total"], ["more"], keepdims=0)])


def stranger(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    write_small(path, small_hybrid(), form="directory")
    model = onnx.load(path / "model.onnx", load_external_data=False)
    change(model)
    data = model.SerializeToString()
    (path / "model.onnx").write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    entry = next(entry for entry in manifest["files"] if entry["path"] == "model.onnx")
    entry.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize("change", [broadcast, constants])
def test_graphs_that_ask_for_more_than_is_allowed(tmp_path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    path = stranger(tmp_path / "x", change)
    before = reset_peak()
    rows = np.ones((8192, 6), np.float32)
    with pytest.raises((BundleError, ExecutionError), match=rf"may take {ALLOWED} bytes"):
        qcascade.load(path, threads=1, memory=ALLOWED)(x=rows)
    assert peak() - before < ALLOWED + 2**26


def test_what_is_allowed_runs(tmp_path: Path) -> None:
    bundle = qcascade.load(stranger(tmp_path / "x", broadcast), threads=1, memory=ALLOWED)
    assert bundle(x=np.ones((64, 6), np.float32))["y"].shape == (64, 3)
    with pytest.raises(ExecutionError, match="memory=0; at least 1 byte"):
        qcascade.load(tmp_path / "x", memory=0)


def test_bounds_hold_inside_and_end_with_the_block() -> None:
    import resource

    outside = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded(ALLOWED):
        with pytest.raises(MemoryError):
            np.ones(2**28)  # 2 GB
        with pytest.raises(RuntimeError, match="memory"):
            torch.ones(2**29)
        inside = resource.getrlimit(resource.RLIMIT_DATA)[0]
        with bounded(2 * ALLOWED):  # of another thread, say: the larger bound holds
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] > inside
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == inside
    assert resource.getrlimit(resource.RLIMIT_DATA) == outside
    with bounded(None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == outside
    for absurd in (2**63 - 1, 10**20):  # what a limit cannot say is the most that it can
        with bounded(absurd):
            pass
    with pytest.raises(TypeError), bounded(1.5):  # type: ignore[arg-type]
        pass
    with bounded(ALLOWED):  # nothing of it stays
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == inside
    assert resource.getrlimit(resource.RLIMIT_DATA) == outside
    left = available()
    assert left is not None and 0 < left < 2**50
