"""Feed-forward layers in parts of their rows: the same function, as many parts as the rule says, and no Scan but such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import qcascade
from qcascade.bundle import row_parts
from qcascade.bundle.model import MAX_NODES, read_model
from qcascade.bundle.reader import open_archive
from qcascade.bundle.row_parts import MOST, NODES, ROWS
from qcascade.bundle.segments import used
from qcascade.bundle.tensors import WeightsFile
from qcascade.errors import BundleError

Exported = tuple[qcascade.HybridModule, Path]


class Layers(nn.Module):
    """A pair with two biases, two of which one layer has wide rows, a layer alone, and small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(512, 512), nn.Linear(512, 512), nn.LayerNorm(512)
        self.wide, self.narrow = nn.Linear(512, 1024), nn.Linear(1024, 256, bias=False)
        self.longer, self.back = nn.Linear(1024, 256), nn.Linear(256, 1024)
        self.small, self.first, self.second = nn.Linear(256, 8), nn.Linear(8, 512), nn.Linear(512, 512)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.norm(x + self.down(nn.functional.gelu(self.up(x))))
        y = self.narrow(torch.relu(self.wide(y)))
        z = self.back(torch.tanh(self.longer(torch.cat((y, y, y, y), -1))))
        small = self.small(torch.relu(y) + z[..., :256])
        shared = torch.relu(self.first(small))  # also a result
        return y, self.second(shared), shared


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    hybrid = qcascade.compile(Layers(), (torch.zeros(2, 4, 512),), kernels=[]).eval()
    return hybrid, qcascade.export(hybrid, tmp_path_factory.mktemp("parts") / "x")


def graph_of(path: Path) -> onnx.ModelProto:
    return onnx.load(path / "model.onnx", load_external_data=False)


def test_large_layers_are_bodies_of_scans(exported: Exported) -> None:
    model = graph_of(exported[1])
    onnx.checker.check_model(exported[1] / "model.onnx", full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    bodies = [next(a.g for a in scan.attribute if a.HasField("g")) for scan in scans]
    assert [[node.op_type for node in body.node] for body in bodies] == [
        ["MatMul", "Add", "Gelu", "MatMul", "Add"],
        ["MatMul", "Add", "Relu", "MatMul"],
        ["Pad", "MatMul", "Tanh", "MatMul", "Add"],
        ["MatMul", "Add"],
    ]
    inside = {name for body in bodies for node in body.node for name in node.output}
    assert not inside & {name for node in model.graph.node for name in node.output}
    assert sum(node.op_type == "Mod" for node in model.graph.node) == 1  # all have the same rows


def test_parts_compute_the_same_and_are_as_many_as_divide_the_rows(exported: Exported, tmp_path: Path) -> None:
    hybrid, path = exported
    model = onnx.load(path / "model.onnx")
    (clip,) = (node for node in model.graph.node if node.op_type == "Clip" and node.name.startswith("part"))
    model.graph.output.append(helper.make_tensor_value_info(clip.output[0], TensorProto.INT64, [1]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch, length in ((1, 1), (3, 2), (251, 5), (256, 4), (410, 5)):
        x = torch.randn(batch, length, 512)
        with torch.no_grad():
            wanted = hybrid(x)
        *found, parts = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        rows = batch * length
        assert parts == max(c for c in range(1, MOST + 1) if c == 1 or (rows % c == 0 and rows // c >= ROWS))
        for one, other in zip(wanted, found, strict=True):
            np.testing.assert_allclose(one.numpy(), other, atol=1e-5)


def test_loaded_it_runs_and_a_scan_takes_what_lies_around_it(exported: Exported) -> None:
    hybrid, path = exported
    bundle = qcascade.load(path, threads=1)
    x = torch.randn(256, 4, 512)
    (name,) = (entry.name for entry in bundle.manifest.inputs)
    with torch.no_grad():
        wanted = hybrid(x)
    for one, other in zip(wanted, bundle(**{name: x}).values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    model = graph_of(path)
    around = {name for node in model.graph.node for name in node.output} | {t.name for t in model.graph.initializer}
    taken = set(used(scan_of(model)))  # what a stage of its own would need
    assert scan_of(model).input[0] in taken and len(taken) == 5 and taken <= around


class Branches(nn.Module):
    """Layers alone; of two branches that are joined, the one that begins first ends last."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.aside = nn.Linear(512, 512), nn.Linear(512, 512), nn.Linear(512, 512)
        self.largest, self.back = nn.Linear(512, 600), nn.Linear(600, 512)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        y = torch.cos(self.aside(x))
        return self.back(torch.sin(self.largest(self.down(torch.relu(up)) + y)))


@pytest.mark.parametrize("room", [NODES, 7 * MOST])
def test_the_largest_layers_are_in_parts_as_far_as_the_loader_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    assert NODES <= MAX_NODES // 2
    monkeypatch.setattr(row_parts, "NODES", room)
    torch.manual_seed(0)
    hybrid = qcascade.compile(Branches(), (torch.zeros(2, 4, 512),), kernels=[]).eval()
    path = qcascade.export(hybrid, tmp_path / "x")
    scans = [node for node in graph_of(path).graph.node if node.op_type == "Scan"]
    bodies = [next(a.g for a in scan.attribute if a.HasField("g")) for scan in scans]
    widths = [body.output[0].type.tensor_type.shape.dim[-1].dim_value for body in bodies]
    assert widths == ([512, 512, 600, 512] if room == NODES else [512, 600])
    assert sum(len(body.node) for body in bodies) * MOST <= room
    bundle, x = qcascade.load(path, threads=1), torch.randn(256, 4, 512)
    (name,) = (entry.name for entry in bundle.manifest.inputs)
    with torch.no_grad():
        torch.testing.assert_close(hybrid(x), *bundle(**{name: x}).values(), atol=1e-5, rtol=0)


def scan_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Scan")


def body_of(model: onnx.ModelProto) -> onnx.GraphProto:
    return next(a.g for a in scan_of(model).attribute if a.HasField("g"))


def made_by(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def chain(model: onnx.ModelProto) -> tuple[onnx.NodeProto, ...]:
    """Clip, the Reshape to one number, Concat, the Reshape before the Scan."""
    reshape = made_by(model, scan_of(model).input[0])
    concat = made_by(model, reshape.input[1])
    count = made_by(model, concat.input[0])
    return made_by(model, count.input[0]), count, concat, reshape


def bound(place: int, *values: int) -> Callable[[onnx.ModelProto], object]:
    """Another constant as Clip's input."""

    def change(model: onnx.ModelProto) -> None:
        shape = np.array(values[0] if len(values) == 1 else values)
        model.graph.initializer.append(numpy_helper.from_array(shape, "other"))
        chain(model)[0].input[place] = "other"

    return change


def swapped(model: onnx.ModelProto) -> None:
    concat = chain(model)[2]
    concat.input[0], concat.input[1] = concat.input[1], concat.input[0]


def vector(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "other"))
    chain(model)[1].input[1] = "other"


def in_a_branch(model: onnx.ModelProto) -> None:
    scan, place = scan_of(model), next(i for i, n in enumerate(model.graph.node) if n.op_type == "Scan")
    outputs = [helper.make_tensor_value_info(scan.output[0], TensorProto.FLOAT, None)]
    branch = helper.make_graph([scan], "branch", [], outputs)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    made = helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    del model.graph.node[place]
    model.graph.node.insert(place, made)


def nested(model: onnx.ModelProto) -> None:
    body_of(model).node.append(scan_of(model))


def heavy(model: onnx.ModelProto) -> None:
    body = body_of(model)
    body.node.extend(helper.make_node("Neg", [body.input[0].name], [f"more_{k}"]) for k in range(2000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bound(2, MOST + 1), "at most 256 turns"),
        (bound(1, 0), "at most 256 turns"),
        (bound(1, 1, 1), "at most 256 turns"),
        (lambda m: chain(m)[0].input.pop(), "at most 256 turns"),
        (lambda m: setattr(chain(m)[0], "op_type", "Max"), "at most 256 turns"),
        (vector, "at most 256 turns"),
        (swapped, "at most 256 turns"),
        (lambda m: setattr(next(a for a in scan_of(m).attribute if a.name != "body"), "i", 0), "at most 256 turns"),
        (lambda m: scan_of(m).attribute.append(helper.make_attribute("scan_input_axes", [1])), "at most 256 turns"),
        (lambda m: scan_of(m).input.append(scan_of(m).input[0]), "at most 256 turns"),
        (lambda m: scan_of(m).input.__setitem__(0, chain(m)[3].input[0]), "at most 256 turns"),
        (lambda m: body_of(m).input.pop(), "other than 1 inputs"),
        (lambda m: body_of(m).output.append(body_of(m).output[0]), "body gives 2 tensors|of one name"),
        (lambda m: setattr(body_of(m).input[0], "name", scan_of(m).input[0]), "which is there already"),
        (in_a_branch, "stands in a branch"),
        (nested, "stands in a branch|at most 256 turns|is there already|nodes"),
        (heavy, "at most 500000"),
    ],
)
def test_other_scans_are_refused(exported: Exported, change: Callable[[onnx.ModelProto], object], message: str) -> None:
    model = graph_of(exported[1])
    change(model)
    with open_archive(exported[1]) as archive, pytest.raises(BundleError, match=message):
        read_model(model.SerializeToString(), archive.manifest, WeightsFile(archive.weights()))
