"""A real bundle written without `qcascade.export`: two adapters, their functions with the circuits' unitaries from pytket."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sympy import Symbol
from torch import nn

import qcascade
from qcascade.bundle.archive import Form, write_bundle
from qcascade.bundle.hybrid_json import hybrid_json
from qcascade.bundle.manifest import (
    CircuitEntry,
    CircuitFiles,
    KernelEntry,
    Manifest,
    TargetEntry,
    TensorEntry,
    file_name,
)
from qcascade.bundle.strict_json import write_json
from qcascade.bundle.weights import layout, stored_tensors, write_weights
from qcascade.hybrid import HybridModule
from qcascade.kernels import AmplitudeAdapter
from qcascade.targets import Target


def small_hybrid(target: Target | str = "line-5") -> HybridModule:
    """Two projections with trained adapters."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh())
    hybrid = qcascade.compile(model, (torch.zeros(2, 6),), kernels=["amplitude_adapter"], target=target).eval()
    with torch.no_grad():
        for kernel in hybrid.kernels.values():
            nn.init.normal_(kernel.up.weight)
    return hybrid


def write_small(
    path: Path, hybrid: HybridModule, *, form: Form | None = None, without_body: tuple[str, ...] = ()
) -> Manifest:
    """The hybrid as a bundle."""
    stored = dict(stored_tensors(hybrid).tensors)
    entries, functions, files = [], [], {}
    paths = hybrid._state.kernels
    for number, (name, kernel) in enumerate(hybrid.kernels.items()):
        derived = {}
        for part, values in zip(("real", "imaginary"), unitary(kernel), strict=True):
            derived[part] = f"derived.{name}.{part}"
            stored[derived[part]] = torch.from_numpy(values)
        weights = {key: f"{paths[name]}.{key}" for key in kernel.state_dict()}
        if name not in without_body:
            functions.append(body(f"adapter_{number}", kernel))
        circuits = []
        for title, template in kernel.templates().items():
            place = f"circuits/{file_name(f'{name}.{title}')}.json"
            files[place] = write_json(template.circuit.to_dict())
            symbols = tuple(str(s) for s in (*template.data, *template.weights))
            circuits.append(
                CircuitEntry(
                    name=title, qubits=template.qubits, symbols=symbols, designed=CircuitFiles(pytket=place, qasm=None)
                )
            )
        entries.append(
            KernelEntry(
                name=name,
                module=paths[name],
                kernel=kernel.kernel_name,
                function=f"adapter_{number}",
                node=f"kernel_{number}",
                arguments=dict(kernel.arguments()),
                inputs=(("x", "base_0"), ("hidden", "base_1"))[number],
                outputs=(("adapted_0",), ("adapted_1",))[number],
                weights=weights,
                derived=derived,
                circuits=tuple(circuits),
                needs_executor="it is left out in this test" if name in without_body else None,
            )
        )
    planned = layout(stored)
    target = hybrid._state.target
    manifest = Manifest(
        producer="qcascade tests",
        model="Sequential",
        target=TargetEntry(name=target.name, document=json.loads(target.to_json())),
        inputs=(TensorEntry(name="x", dtype="float32", shape=("batch", 6)),),
        outputs=(TensorEntry(name="y", dtype="float32", shape=("batch", 3)),),
        kernels=tuple(entries),
    )
    contents = {
        "model.onnx": onnx_model(manifest, functions, planned).SerializeToString(deterministic=True),
        "weights.safetensors": lambda write: write_weights(write, planned, stored),
        "graph.json": hybrid_json(hybrid),
        "report.json": hybrid.plan.to_json().encode(),
        **files,
    }
    return write_bundle(path, manifest, contents, form=form)


def unitary(kernel: AmplitudeAdapter) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes after the circuit [in_features, 2^q] for each basis state before it, by pytket."""
    template = kernel.templates()["adapter"]
    circuit = template.circuit.copy()
    values = kernel.angles.detach().tolist()  # radians
    circuit.symbol_substitution({Symbol(s): v for s, v in zip(template.weights, values, strict=True)})
    rows = circuit.get_unitary().T[: kernel.in_features]
    return np.ascontiguousarray(rows.real, np.float32), np.ascontiguousarray(rows.imag, np.float32)


def body(name: str, kernel: AmplitudeAdapter) -> onnx.FunctionProto:
    qubits = kernel.templates()["adapter"].qubits
    outcomes = np.arange(2**qubits)
    signs = np.stack([1 - 2 * (outcomes >> (qubits - 1 - q) & 1) for q in range(qubits)], 1).astype(np.float32)
    scale = np.float32(kernel.alpha / np.sqrt(kernel.in_features))
    node = helper.make_node
    nodes = [
        node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([-1]))),
        node("Constant", [], ["signs"], value=numpy_helper.from_array(signs)),
        node("Constant", [], ["scale"], value=numpy_helper.from_array(scale)),
        node("ReduceL2", ["x", "axes"], ["norm"], keepdims=1),
        node("Div", ["x", "norm"], ["state"]),
        node("MatMul", ["state", "real"], ["re"]),
        node("MatMul", ["state", "imaginary"], ["im"]),
        node("Mul", ["re", "re"], ["re2"]),
        node("Mul", ["im", "im"], ["im2"]),
        node("Add", ["re2", "im2"], ["p"]),
        node("MatMul", ["p", "signs"], ["z"]),
        node("Mul", ["z", "norm"], ["long"]),
        node("Mul", ["long", "scale"], ["scaled"]),
        node("Transpose", ["up"], ["upt"], perm=[1, 0]),
        node("MatMul", ["scaled", "upt"], ["change"]),
        node("Add", ["base", "change"], ["y"]),
    ]
    inputs = ["x", "base", "up", "real", "imaginary"]
    return helper.make_function("qcascade", name, inputs, ["y"], nodes, [helper.make_opsetid("", 20)])


def onnx_model(manifest: Manifest, functions: list[onnx.FunctionProto], planned: object) -> onnx.ModelProto:
    weights = ["0.weight", "0.bias", "2.weight", "2.bias"]
    nodes = []
    for number, entry in enumerate(manifest.kernels):
        x, base = entry.inputs
        linear = (0, 2)[number]
        nodes.append(helper.make_node("Gemm", [x, f"{linear}.weight", f"{linear}.bias"], [base], transB=1))
        names = [entry.weights["up.weight"], *entry.derived.values()]
        nodes.append(
            helper.make_node(entry.function, [x, base, *names], [*entry.outputs], name=entry.node, domain="qcascade")
        )
        weights += names
        nodes.append(helper.make_node("Tanh", [f"adapted_{number}"], [("hidden", "y")[number]]))
    initializers = []
    for name in weights:
        place = planned.places[name]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=place.shape, data_location=1)
        for key, value in (
            ("location", "weights.safetensors"),
            ("offset", str(place.offset)),
            ("length", str(place.length)),
        ):
            tensor.external_data.add(key=key, value=value)
        initializers.append(tensor)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("qcascade", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10, producer_name="tests")
