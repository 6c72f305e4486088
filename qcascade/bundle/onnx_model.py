"""A hybrid as an ONNX model: each kernel one node of domain `qcascade`, with a function body in standard operators.

What comes in: a hybrid and where its weights will lie. What goes out: the model, whose initializers are references into the
weights' file, and what the manifest says of inputs, outputs and kernels. Kernels of equal settings share a function.
Dimensions are free where the captured model has them free. Refused, each with a reason: floating-point weights other than
float32, and operators that ONNX has no form for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.export import Dim

from qcascade.bundle.circuit_body import MAX_QUBITS
from qcascade.bundle.kernel_body import kernel_function
from qcascade.bundle.kernel_nodes import PLACE, Evaluation, KernelNode
from qcascade.bundle.manifest import DOMAIN, WEIGHTS, TensorEntry
from qcascade.bundle.onnx_passes import cleaned, keep_apart, translated
from qcascade.bundle.real_graph import RealGraph
from qcascade.bundle.row_parts import in_parts
from qcascade.bundle.weights import Placement
from qcascade.bundle.wide_rows import widen
from qcascade.capture.export_settings import quick_export
from qcascade.capture.graph import InputSpec
from qcascade.errors import BundleError, ExecutionError, PlanError
from qcascade.hybrid import HybridModule

_CASTS = {
    torch.ops.aten.to.dtype,
    torch.ops.aten.to.device,
    torch.ops.aten.to.dtype_layout,
    torch.ops.aten._to_copy.default,
}
_COPY = torch.ops.aten.lift_fresh_copy.default  # of a constant
_SIZES = (2, 13, 17, 19, 23, 29, 31, 37)  # of free dimensions while torch exports: few examples, many positions


@dataclass(frozen=True, slots=True)
class ExportedKernel:
    """A kernel in the model; names of tensors are the graph's."""

    path: str
    function: str
    node: str
    arguments: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    needs_executor: str | None


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """The model's bytes and what they hold."""

    data: bytes
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    kernels: tuple[ExportedKernel, ...]


def onnx_model(
    hybrid: HybridModule,
    evaluation: Evaluation,
    places: Mapping[str, Placement],
    aliases: Mapping[str, str],
    example: Sequence[Tensor] | None = None,
) -> ExportedModel:
    """The model of a hybrid.

    Args:
        hybrid: What to export.
        evaluation: Its stand-in.
        places: Where each tensor will lie in the weights' file.
        aliases: Other names of tied tensors.
        example: The tensors of a call; made up where None.

    Raises:
        BundleError: It cannot be written as ONNX, and why.
    """
    specs = hybrid._state.interface.inputs
    tensors = _example(hybrid) if example is None else list(example)
    shapes = [tuple(Dim.AUTO if s is None else Dim.STATIC for s in spec.shape) for spec in specs]
    what = type(hybrid).__name__ if hybrid.plan.model is None else hybrid.plan.model
    with torch.no_grad(), quick_export():
        try:
            program = torch.export.export(evaluation, tuple(tensors), dynamic_shapes=(tuple(shapes),), strict=False)
        except ExecutionError as error:
            call = ", ".join(f"{spec.name} {list(t.shape)}" for spec, t in zip(specs, tensors, strict=True))
            made = "made up for the export" if example is None else "of example_inputs"
            raise BundleError(
                f"{what} does not take the call {made} ({call}): {error} Give qcascade.export example_inputs that it takes."
            ) from error
        real = None
        if any(node.target is torch.ops.qcascade.simulate.default for node in program.graph.nodes):
            real = RealGraph(program.module(check_guards=False), what)
            program = torch.export.export(real, tuple(tensors), dynamic_shapes=(tuple(shapes),), strict=False)
    model = translated(program, what)
    graph = model.graph
    if real is not None:
        real.recorder.insert(model)
        for name, value in list(graph.initializers.items()):
            graph.initializers.pop(name)
            value.name = name.removeprefix("graph_module.")
            graph.initializers[value.name] = value
    weights = [value for name, value in graph.initializers.items() if aliases.get(name, name) in places]
    for value in weights:  # inputs for as long as the graph is simplified: nothing is computed from weights
        graph.initializers.pop(str(value.name))
        value.const_value = None
        graph.inputs.append(value)
    nodes = {node.metadata_props[PLACE]: node for node in graph if node.domain == DOMAIN}
    for path, node in nodes.items():
        node.name = path
    cleaned(model)
    widen(graph, weights)
    keep_apart(graph)
    in_parts(graph, weights)
    del graph.inputs[len(specs) :]
    for value in weights:
        name = aliases.get(str(value.name), str(value.name))
        _refer(value, name, places[name])
        if value.uses() or value.is_graph_output():
            graph.initializers[name] = value
    taken = set(graph.initializers)
    _rename(graph.inputs, [spec.name for spec in specs], taken)
    _rename(graph.outputs, evaluation.record.outputs, taken)
    _name_dimensions(graph, specs[0].name if specs else "")
    kernels = _add_functions(model, hybrid, evaluation, [node for node in graph if node.domain == DOMAIN])
    model.producer_name, model.producer_version = "qcascade", None
    model.graph.name = "hybrid"
    fills_mask = hybrid._state.interface.fills_mask
    inputs = [
        _entry(value, spec, required=spec.name == "attention_mask" and not fills_mask)
        for value, spec in zip(graph.inputs, specs, strict=True)
    ]
    outputs = [_entry(value, None) for value in graph.outputs]
    data = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    return ExportedModel(data, tuple(inputs), tuple(outputs), kernels)


def check_dtypes(tensors: Mapping[str, Tensor], cast: Collection[str] = ()) -> None:
    """Refuse weights of other precisions than float32, but for those that are `cast` to it before anything else.

    Raises:
        BundleError: There is one.

    Example:
        >>> check_dtypes({"weight": torch.zeros(2)})
    """
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.float32 and name not in cast:
            raise BundleError(
                f"{name} is {tensor.dtype}; a bundle's model computes in float32. Export hybrid.float(), or a copy of it "
                "(copy.deepcopy(hybrid).float())."
            )


def cast_at_once(hybrid: HybridModule) -> set[str]:
    """Tensors that the hybrid's graphs do nothing with but cast them to float32: constants of its circuits' angles."""
    state = hybrid._state
    casts: dict[str, bool] = {}
    for node in (n for runnable in (state.evaluation, state.training) if runnable for n in runnable.graph.nodes):
        if node.op == "get_attr":
            users = [u for user in node.users for u in (user.users if user.target is _COPY else (user,))]
            only = all(
                user.target in _CASTS and torch.float32 in (*user.args, user.kwargs.get("dtype")) for user in users
            )
            casts[str(node.target)] = only and casts.get(str(node.target), True)
    return {name for name, only in casts.items() if only}


def _example(hybrid: HybridModule) -> list[Tensor]:
    """A call's tensors, with sizes of their own for dimensions that are free and not the same.

    All but the first, the batch, are shorter than what the kernels take at most: a register that is full would be taken to be full
    always.
    """
    state = hybrid._state
    lengths = [length for k in hybrid.kernels.values() if isinstance(length := getattr(k, "max_length", None), int)]
    short = max(2, min(lengths, default=2**31) - 1)
    specs = state.interface.inputs
    symbols = _symbols(hybrid)
    sizes: dict[str, int] = {}
    tensors = []
    for spec, names in zip(specs, symbols, strict=True):
        shape = []
        rules = spec.rules or (None,) * len(spec.shape)
        for axis, (fixed, most, rule, symbol) in enumerate(zip(spec.shape, spec.maximum, rules, names, strict=True)):
            if fixed is None and symbol not in sizes:
                size = min(_SIZES[min(len(sizes), len(_SIZES) - 1)], most or 2**31, short if axis else 2**31)
                sizes[symbol] = size if rule is None else rule.following(size)
            shape.append(sizes[symbol] if fixed is None else fixed)
        tensors.append(torch.ones(shape, dtype=spec.dtype))
    return tensors


def _symbols(hybrid: HybridModule) -> list[tuple[str, ...]]:
    """A name for every dimension of every input, the same where the captured graph says that they are the same.

    Where that is not known, dimensions at the same place are taken to be the same.
    """
    specs, evaluation = hybrid._state.interface.inputs, hybrid._state.evaluation
    known = [shape for shape in evaluation.dimensions if shape is not None] if evaluation else []
    if len(known) == len(specs):
        return [tuple(str(size) for size in shape) for shape in known]
    return [tuple(str(axis) for axis in range(len(spec.shape))) for spec in specs]


def _refer(value: ir.Value, name: str, place: Placement) -> None:
    """Make a value an initializer that lies in the weights' file."""
    value.name = name
    dtype = ir.DataType.from_numpy(torch.zeros(0, dtype=place.dtype).numpy().dtype)
    value.const_value = ir.ExternalTensor(
        WEIGHTS, place.offset, place.length, dtype, shape=ir.Shape(place.shape), name=name, base_dir=""
    )


def _rename(values: Sequence[ir.Value], names: Sequence[str], taken: set[str]) -> None:
    for value, wanted in zip(values, names, strict=True):
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        value.name = name


def _name_dimensions(graph: ir.Graph, first: str) -> None:
    """Plain names for free dimensions: batch and sequence, else the input's name and the axis."""
    names: dict[str, str] = {}
    for value in graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if isinstance(size, ir.SymbolicDim) and size.value is not None and str(size.value) not in names:
                text = "batch" if axis == 0 else "sequence" if axis == 1 and "sequence" not in names.values() else ""
                names[str(size.value)] = text if text and text not in names.values() else f"{value.name}_{axis}"
    for value in (*graph.inputs, *graph.outputs, *(out for node in graph for out in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(size, names) for size in value.shape])


def _renamed(size: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    if isinstance(size, int):
        return size
    if size.value is None:
        return None
    text = re.sub(r"[A-Za-z_]\w*", lambda word: names.get(word[0], word[0]), str(size.value))
    return int(text) if text.isdigit() else text


def _add_functions(
    model: ir.Model, hybrid: HybridModule, evaluation: Evaluation, nodes: Sequence[ir.Node]
) -> tuple[ExportedKernel, ...]:
    functions: dict[Any, tuple[str, str | None]] = {}
    exported = []
    for node in nodes:
        stand_in: KernelNode = evaluation.nodes[str(node.name)]
        kernel = stand_in.kernel
        kind = type(kernel)
        try:
            arguments = kernel.arguments()
        except PlanError as error:
            raise BundleError(f"{stand_in.path} cannot be exported: {error}") from error
        shapes = tuple(tuple(t.shape) for _, t in (*stand_in.body.named_parameters(), *stand_in.body.named_buffers()))
        key = (kind, repr(sorted(arguments.items())), _relations(stand_in), shapes)
        if key not in functions:
            name, number = kind.__name__, 1
            while name in {known for known, _ in functions.values()}:
                number += 1
                name = f"{kind.__name__}_{number}"
            widest = max((t.qubits for t in kernel.templates().values()), default=0)
            reason = None
            if widest > MAX_QUBITS and stand_in.body is kernel:
                reason = f"a circuit of {widest} qubits: bodies are written for at most {MAX_QUBITS}"
            else:
                function = kernel_function(stand_in, name)
                model.functions[function.identifier()] = function
            functions[key] = (name, reason)
        name, reason = functions[key]
        node.op_type = name
        count = sum(spec is not None for spec in stand_in.call.inputs)
        inputs = tuple(str(v.name) for v in node.inputs[:count] if v is not None)
        outputs = tuple(str(v.name) for v in node.outputs)
        exported.append(ExportedKernel(stand_in.path, name, str(node.name), arguments, inputs, outputs, reason))
    model.graph.opset_imports[DOMAIN] = 1
    return tuple(exported)


def _relations(node: KernelNode) -> tuple[Any, ...]:
    """What a kernel was called with, symbols numbered by their first appearance."""
    numbers: dict[str, int] = {}
    return tuple(
        None
        if spec is None
        else (
            spec[0],
            tuple(s if isinstance(s, int) else ("free", numbers.setdefault(s[0], len(numbers))) for s in spec[1]),
        )
        for spec in node.call.inputs
    )


def _entry(value: ir.Value, spec: InputSpec | None, *, required: bool = False) -> TensorEntry:
    assert value.dtype is not None and value.shape is not None
    shape = tuple(s if isinstance(s, int) else None if s.value is None else str(s.value) for s in value.shape)
    name, dtype = str(value.name), value.dtype.numpy().name
    if spec is None:
        return TensorEntry(name=name, dtype=dtype, shape=shape)  # type: ignore[arg-type]
    return TensorEntry(
        name=name,
        dtype=dtype,  # type: ignore[arg-type]
        shape=shape,
        maximum=spec.maximum if any(m is not None for m in spec.maximum) else None,
        rules=tuple(None if rule is None else astuple(rule) for rule in spec.rules) or None,
        ids_below=spec.ids_below,
        required=required,
    )
