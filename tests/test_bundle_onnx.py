"""Bundles as ONNX: what stock onnxruntime computes beside the hybrid in torch, and that nothing else is needed for it."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import bert, text_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit
from safetensors.numpy import load_file
from sympy import Symbol, pi
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import qcascade
from qcascade.bundle import circuit_body
from qcascade.bundle.circuit_body import MAX_QUBITS, Pair
from qcascade.bundle.manifest import read_manifest
from qcascade.bundle.real_graph import RealGraph
from qcascade.circuits.template import CircuitTemplate, Expectations, Probabilities
from qcascade.engine import lower, simulate
from qcascade.engine.operators import _shaped
from qcascade.kernels import AmplitudeAttentionPooling

RUN = """
import sys
import numpy as np
import onnxruntime
folder = sys.argv[1]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
for number in range(int(sys.argv[2])):
    results = session.run(names, dict(np.load(f"{folder}/../x{number}.npz")))
    np.savez(f"{folder}/../y{number}.npz", **dict(zip(names, results)))
assert not {"torch", "qcascade", "onnx"} & set(sys.modules)
"""


def in_onnxruntime(folder: Path, calls: list[dict[str, Tensor]]) -> list[Mapping[str, np.ndarray]]:
    """The results of calls in a process that has only onnxruntime and numpy."""
    for number, call in enumerate(calls):
        np.savez(folder.parent / f"x{number}.npz", **{name: value.numpy() for name, value in call.items()})
    subprocess.run([sys.executable, "-c", RUN, str(folder), str(len(calls))], check=True)
    return [dict(np.load(folder.parent / f"y{number}.npz")) for number in range(len(calls))]


def exported(model: nn.Module, example: object, path: Path, **options: object) -> tuple[qcascade.HybridModule, Path]:
    """After a step of training: gradients are there."""
    hybrid = qcascade.compile(model, example, **options)  # type: ignore[arg-type]
    for kernel in hybrid.kernels.values():
        for name, parameter in kernel.named_parameters():
            if "angles" in name or name in ("up.weight", "local"):
                nn.init.normal_(parameter)
    results = hybrid.train()(**example) if isinstance(example, dict) else hybrid.train()(example)
    sum(leaf.square().sum() for leaf in pytree.tree_leaves(results)).backward()
    hybrid.eval()
    folder = qcascade.export(hybrid, path)
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    return hybrid, folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[qcascade.HybridModule, Path]:
    torch.manual_seed(0)
    kernels = {
        "amplitude_attention_pooling": {"slots": 2, "max_length": 16},
        "reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1},
    }
    return exported(bert(), text_inputs(), tmp_path_factory.mktemp("text") / "bundle", kernels=kernels)


class Tokens(nn.Module):
    """Embedding, projection, an encoder layer without a mask and a head: what all four kernels have a place in."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(2000, 16, padding_idx=0)
        self.project = nn.Linear(16, 12)
        self.layer, self.head = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True), nn.Linear(12, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.project(self.token(ids))).mean(1))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[qcascade.HybridModule, Path]:
    torch.manual_seed(0)
    kernels = {
        "amplitude_attention_pooling": {
            "slots": 2,
            "local_width": 3,
            "max_length": 12,
        },  # shorter than the call made up
        "random_circuit_embedding": {"qubits": 3, "layers": 1},
        "reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1},
        "amplitude_adapter": {},
    }
    folder = tmp_path_factory.mktemp("tokens") / "bundle"
    return exported(
        Tokens(),
        torch.randint(0, 2000, (3, 7)),
        folder,
        kernels=kernels,
        include=["token", "project", "layer.self_attn", "head"],
    )


def test_a_transformers_classifier_runs_in_stock_onnxruntime(text: tuple[qcascade.HybridModule, Path]) -> None:
    hybrid, folder = text
    assert len(hybrid.kernels) == 3
    calls = [text_inputs(), text_inputs(5, 16), text_inputs(12, 4), {k: v[:1] for k, v in text_inputs(2, 9).items()}]
    for call, found in zip(calls, in_onnxruntime(folder, calls), strict=True):
        with torch.no_grad():
            wanted = hybrid(**call).logits.numpy()
        np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)


def test_all_kernels_and_a_local_path_without_a_mask(tokens: tuple[qcascade.HybridModule, Path]) -> None:
    hybrid, folder = tokens
    assert {type(kernel).kernel_name for kernel in hybrid.kernels.values()} == {
        "amplitude_attention_pooling", "random_circuit_embedding", "amplitude_adapter", "reuploading_head",
    }  # fmt: skip
    calls = [{"ids": torch.randint(0, 2000, shape)} for shape in ((3, 7), (1, 12), (9, 2))]
    for call, found in zip(calls, in_onnxruntime(folder, calls), strict=True):
        with torch.no_grad():
            np.testing.assert_allclose(found["output"], hybrid(**call).numpy(), atol=1e-5)


def test_a_call_longer_than_a_kernels_register_says_so(tokens: tuple[qcascade.HybridModule, Path]) -> None:
    with pytest.raises(
        qcascade.ExecutionError,
        match=r"17 entries along its second axis, and kernel 'layer\.self_attn' takes at most 12",
    ):
        qcascade.load(tokens[1], threads=1)(ids=torch.ones(2, 17, dtype=torch.int64))


def test_every_kernel_is_one_node_and_equal_ones_share_a_body(text: tuple[qcascade.HybridModule, Path]) -> None:
    hybrid, folder = text
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    nodes = {node.name: node.op_type for node in model.graph.node if node.domain == "qcascade"}
    assert set(nodes) == set(hybrid._state.kernels.values())
    assert sorted(nodes.values()) == ["AmplitudeAttentionPooling", "AmplitudeAttentionPooling", "ReuploadingHead"]
    assert sorted(f.name for f in model.functions) == ["AmplitudeAttentionPooling", "ReuploadingHead"]
    assert {n.domain for f in model.functions for n in f.node} | {n.domain for n in model.graph.node} == {
        "",
        "qcascade",
    }


def test_weights_are_stored_once_and_read_in_place(text: tuple[qcascade.HybridModule, Path]) -> None:
    hybrid, folder = text
    stored = load_file(folder / "weights.safetensors")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    raw = (folder / "weights.safetensors").read_bytes()
    outside = {t.name: {e.key: e.value for e in t.external_data} for t in model.graph.initializer if t.external_data}
    state = hybrid.state_dict()
    assert set(state) <= set(stored) and set(outside) <= set(stored)
    for name, place in outside.items():
        assert place["location"] == "weights.safetensors"
        start = int(place["offset"])
        assert raw[start : start + int(place["length"])] == stored[name].tobytes()
    inside = [t for t in model.graph.initializer if not t.external_data]
    assert all(np.prod(t.dims) <= 64 for t in inside)
    for name, value in state.items():
        np.testing.assert_array_equal(stored[name], value.numpy())


def test_the_same_hybrid_gives_the_same_bytes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 12), nn.Tanh())
    hybrid, folder = exported(model, torch.zeros(2, 16), tmp_path / "x", kernels=["amplitude_adapter"], include="*")
    assert len(hybrid.kernels) == 1
    assert same_files(folder, qcascade.export(pickle.loads(pickle.dumps(hybrid)), tmp_path / "again"))


def test_export_load_to_torch_export_gives_the_same_bytes(
    tokens: tuple[qcascade.HybridModule, Path], tmp_path: Path
) -> None:
    bundle, call = qcascade.load(tokens[1]), {"ids": torch.randint(0, 2000, (3, 7))}
    again = bundle.to_torch()
    (computed,) = bundle(**call).values()
    assert torch.allclose(torch.as_tensor(computed), copy.deepcopy(again).eval()(**call), atol=1e-5)
    assert same_files(tokens[1], qcascade.export(again, tmp_path / "second"))


def same_files(first: Path, second: Path) -> bool:
    """Whether two directories hold the same bytes under the same names."""
    ours, theirs = (
        {
            file.relative_to(place): file.read_bytes()
            for place in [folder]
            for file in place.rglob("*")
            if file.is_file()
        }
        for folder in (first, second)
    )
    return bool(ours) and ours == theirs


def test_a_graph_that_disagrees_with_the_manifest_is_refused(
    tokens: tuple[qcascade.HybridModule, Path], tmp_path: Path
) -> None:
    place = shutil.copytree(tokens[1], tmp_path / "changed")
    manifest = read_manifest((place / "manifest.json").read_bytes())
    graph = json.loads((place / "graph.json").read_bytes())
    next(m for m in graph["modules"] if m.get("name") == "amplitude_adapter")["attributes"]["alpha"] = 2.0
    content = json.dumps(graph).encode()
    (place / "graph.json").write_bytes(content)
    listed = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    files = tuple(f.model_copy(update=listed) if f.path == "graph.json" else f for f in manifest.files)
    (place / "manifest.json").write_bytes(manifest.model_copy(update={"files": files}).to_json())
    opened = qcascade.load(place)
    with pytest.raises(qcascade.BundleError, match="disagree"):
        opened.to_torch()


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(qcascade.BundleError, match="is no hybrid"):
        qcascade.export(nn.Linear(2, 2), tmp_path / "x")  # type: ignore[arg-type]
    double = qcascade.compile(nn.Linear(8, 2).double(), torch.zeros(2, 8, dtype=torch.float64), kernels=[])
    with pytest.raises(qcascade.BundleError, match=r"torch.float64.*float32"):
        qcascade.export(double, tmp_path / "x")

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvalsh(x @ x.transpose(-1, -2))

    with pytest.raises(qcascade.BundleError, match="eigh"):
        qcascade.export(qcascade.compile(Odd(), torch.randn(2, 4, 4), kernels=[]), tmp_path / "x")
    assert not list(tmp_path.iterdir())


GATES = ("Rx", "Ry", "Rz", "H", "CX", "CZ", "CU1", "SWAP", "ZZPhase")


@st.composite
def templates(draw: st.DrawFn) -> CircuitTemplate:
    qubits = draw(st.integers(1, 6))
    circuit, data, weights = Circuit(qubits), list[str](), list[str]()
    for number in range(draw(st.integers(1, 14))):
        gate = draw(st.sampled_from(GATES))
        if gate in ("CX", "CZ", "CU1", "SWAP", "ZZPhase"):
            if qubits < 2:
                continue
            pair = draw(st.lists(st.integers(0, qubits - 1), min_size=2, max_size=2, unique=True))
        else:
            pair = [draw(st.integers(0, qubits - 1))]
        names = data if draw(st.booleans()) else weights
        if gate in ("Rx", "Ry", "Rz", "CU1", "ZZPhase"):
            names.append(f"s{number}")
            getattr(circuit, gate)((draw(st.sampled_from([1, -2])) * Symbol(names[-1]) + 0.25) / pi, *pair)
        else:
            getattr(circuit, gate)(*pair)
    paulis = tuple(
        tuple((q, draw(st.sampled_from("XYZ"))) for q in range(qubits) if draw(st.booleans())) for _ in range(3)
    )
    measured = draw(st.sampled_from([Probabilities(), Expectations(paulis)]))
    return CircuitTemplate(circuit, tuple(data), tuple(weights), amplitudes=draw(st.booleans()), measurement=measured)


@settings(deadline=None, max_examples=40)
@given(template=templates(), whole=st.booleans())
def test_circuits_in_real_arithmetic_equal_the_engine(template: CircuitTemplate, whole: bool) -> None:
    program, random = lower(template), torch.Generator().manual_seed(1)
    data = torch.randn(3, len(program.data), generator=random, dtype=torch.float64) if program.data else None
    weights = torch.randn(2, len(program.weights), generator=random, dtype=torch.float64) if program.weights else None
    loaded = torch.randn(3, 2**program.qubits, 2, generator=random, dtype=torch.float64)
    states = torch.view_as_complex(loaded / loaded.norm(dim=(1, 2), keepdim=True)) if template.amplitudes else None
    measured = None if whole else template.measurement
    wanted = simulate(program, measured, data=data, weights=weights, amplitudes=states)
    d, w, a = _shaped(data, weights, states, torch.float64)
    found = circuit_body.simulate(program, measured, d, w, None if a is None else Pair(a.real, a.imag))
    if isinstance(found, Pair):
        found = torch.complex(*found.parts())
    torch.testing.assert_close(found.to(wanted.dtype), wanted, atol=1e-6, rtol=0)


def test_circuits_that_are_too_wide_for_a_body_are_refused() -> None:
    program = lower(CircuitTemplate(Circuit(MAX_QUBITS + 1).X(0), (), ()))
    with pytest.raises(qcascade.BundleError, match=f"at most {MAX_QUBITS}"):
        circuit_body.simulate(program, Probabilities(), torch.zeros(1, 1, 0), torch.zeros(1, 0), None)


def test_complex_operators_without_a_real_form_are_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.polar(x, x).acos().abs()

    graph = torch.export.export(Odd(), (torch.ones(2),)).module()
    assert isinstance(graph, torch.fx.GraphModule)
    with pytest.raises(qcascade.BundleError, match=r"kernel odd: the operator aten.acos"):
        RealGraph(graph, "kernel odd")(torch.ones(2))


def test_attention_in_real_arithmetic_is_the_kernel() -> None:
    kernel = AmplitudeAttentionPooling(8, 2, 16, slots=2).eval()
    nn.init.normal_(kernel.angles)
    x, mask = torch.randn(3, 11, 8), torch.rand(3, 11) > 0.3
    graph = torch.export.export(kernel, (x, mask), strict=False).module()
    assert isinstance(graph, torch.fx.GraphModule)
    torch.testing.assert_close(RealGraph(graph, "kernel")(x, mask), kernel(x, mask), atol=1e-6, rtol=0)
