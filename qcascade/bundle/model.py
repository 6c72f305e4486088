"""The ONNX model of a bundle: bytes in, a parsed model out that is safe to hand to onnxruntime, and fits the manifest.

Checked in Python before any other library sees it, since those trust their input: sizes, domains, operators, the flow of
names, constants against their shapes, external data against the places of the weights' file, kernels' nodes against the
manifest, inputs and outputs. Refused: operators outside the standard domain and kernels, loops (their number of turns is
unbounded, but for the Scans that `turns` allows), functions that call functions (their expansion is), models of versions that
are not known here, and constant shapes of more than `MAX_ELEMENTS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from qcascade.bundle.manifest import DOMAIN, MODEL, WEIGHTS, KernelEntry, Manifest, TensorEntry
from qcascade.bundle.tensors import MAX_RANK, WeightsFile
from qcascade.bundle.turns import MAX_TURNS, Turns
from qcascade.errors import BundleError

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

MAX_NODES = 500_000  # functions written out at each of their nodes, a Scan's body at each of its turns
MAX_ELEMENTS = 2**31  # of a shape that a constant gives
MAX_LEVELS = 4  # of branches in branches
KERNEL_VERSION = 1  # of the domain of kernels
OPSETS = range(17, 27)  # of the standard domain, that onnxruntime runs
IR_VERSIONS = range(8, 14)
_REFUSED = frozenset({"Loop", "SequenceMap", "ImageDecoder", "TfIdfVectorizer"})
_SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Reshape": 1, "OneHot": 1, "Pad": 1, "Range": 1, "Resize": 3}

# ONNX TensorProto.DataType -> torch, bits an element, and the field that may hold it instead of raw_data
_FIELDS: dict[int, tuple[torch.dtype, str]] = {
    1: (torch.float32, "float_data"), 2: (torch.uint8, "int32_data"), 3: (torch.int8, "int32_data"),
    4: (torch.uint16, "int32_data"), 5: (torch.int16, "int32_data"), 6: (torch.int32, "int32_data"),
    7: (torch.int64, "int64_data"), 9: (torch.bool, "int32_data"), 10: (torch.float16, "int32_data"),
    11: (torch.float64, "double_data"), 12: (torch.uint32, "uint64_data"), 13: (torch.uint64, "uint64_data"),
    14: (torch.complex64, "float_data"), 16: (torch.bfloat16, "int32_data"),
}  # fmt: skip


def read_model(data: bytes, manifest: Manifest, weights: WeightsFile) -> ModelProto:
    """The model, checked.

    Args:
        data: Content of `model.onnx`.
        manifest: What it must fit.
        weights: What its external data must lie in.

    Raises:
        BundleError: It is no ONNX model, not safe to run, or differs from the manifest or the weights.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model: ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise BundleError(f"{MODEL} is no ONNX model: {error}.") from error
    _check_versions(model)
    functions = _functions(model, manifest)
    _check_size(model, functions)
    kernels = {entry.node: entry for entry in manifest.kernels}
    known = _initializers(model.graph, weights)
    checker = _Names(_version(model.opset_import), kernels, functions, manifest, set(known))
    checker.constants = {name: few for name, tensor in known.items() if (few := _few(tensor)) is not None}
    checker.graph(model.graph, set(), 0)
    if missing := sorted(set(kernels) - checker.met):
        raise BundleError(f"{MODEL} has no node {missing[0]!r}, which the manifest lists as a kernel.")
    _check_interface("input", [v for v in model.graph.input if v.name not in known], manifest.inputs)
    _check_interface("output", list(model.graph.output), manifest.outputs)
    return model


def _check_versions(model: ModelProto) -> None:
    if model.ir_version not in IR_VERSIONS:
        raise BundleError(f"{MODEL} has IR version {model.ir_version}; {IR_VERSIONS[0]} to {IR_VERSIONS[-1]} is read.")
    if model.training_info or model.graph.sparse_initializer or model.graph.quantization_annotation:
        raise BundleError(f"{MODEL} holds training information, sparse or quantised weights, which a bundle does not.")
    _check_opsets(model.opset_import)


def _check_opsets(opsets: Sequence[object]) -> None:
    seen = set()
    for opset in opsets:
        domain, version = str(opset.domain), int(opset.version)  # type: ignore[attr-defined]
        if domain in seen or domain not in ("", DOMAIN):
            raise BundleError(
                f"{MODEL} imports operators of domain {domain[:60]!r} (or twice); '' and {DOMAIN!r} are run."
            )
        if version not in (OPSETS if domain == "" else (KERNEL_VERSION,)):
            raise BundleError(f"{MODEL} imports version {version} of domain {domain!r}, which is not known here.")
        seen.add(domain)
    if "" not in seen:
        raise BundleError(f"{MODEL} does not import ONNX's own operators.")


def _version(opsets: Sequence[object]) -> int:
    return next(int(opset.version) for opset in opsets if opset.domain == "")  # type: ignore[attr-defined]


def _functions(model: ModelProto, manifest: Manifest) -> dict[str, FunctionProto]:
    wanted = {entry.function for entry in manifest.kernels if entry.needs_executor is None}
    functions: dict[str, FunctionProto] = {}
    for function in model.functions:
        here = f"{MODEL}: function {function.name[:60]!r}"
        if function.domain != DOMAIN or function.overload or function.name in functions:
            raise BundleError(f"{here} stands twice, or in domain {function.domain[:60]!r}; {DOMAIN!r} is needed.")
        if function.name not in wanted:
            raise BundleError(f"{here} is of no kernel that the manifest lists.")
        if function.attribute or function.attribute_proto:
            raise BundleError(f"{here} has attributes; a kernel's has none.")
        _check_opsets(function.opset_import)
        if _version(function.opset_import) != _version(model.opset_import):
            raise BundleError(f"{here} is written in another version of ONNX's operators than the model.")
        names = _Names(_version(function.opset_import), {}, {}, manifest, set())
        names.nodes(function.node, set(_distinct(function.input, here)), 0)
        functions[function.name] = function
        defined = names.defined | set(function.input)
        if lost := [name for name in _distinct(function.output, here) if name not in defined]:
            raise BundleError(f"{here} gives {lost[0][:60]!r}, which no node of it makes.")
    if missing := sorted(wanted - set(functions)):
        raise BundleError(
            f"{MODEL} has no function {missing[0]!r}, which the manifest names; the kernel cannot be run."
        )
    return functions


def _distinct(names: Sequence[str], here: str) -> list[str]:
    if len(set(names)) < len(names) or not all(names):
        raise BundleError(f"{here} has inputs or outputs without a name, or of one name.")
    return list(names)


def _check_size(model: ModelProto, functions: dict[str, FunctionProto]) -> None:
    sizes = {name: _size(function.node, {}) for name, function in functions.items()}
    total = _size(model.graph.node, sizes)
    if total > MAX_NODES:
        raise BundleError(f"{MODEL} has {total} nodes with its functions written out; at most {MAX_NODES} are run.")


def _size(nodes: Sequence[NodeProto], functions: Mapping[str, int], level: int = 0) -> int:
    """How many nodes run: functions of so many nodes each, branches, and a Scan's body as often as it may."""
    if level > MAX_LEVELS:
        raise BundleError(f"{MODEL} has branches in branches deeper than {MAX_LEVELS} levels.")
    total = 0
    for node in nodes:
        total += functions.get(node.op_type, 1) if node.domain == DOMAIN else 1
        turns = MAX_TURNS if node.op_type == "Scan" else 1
        total += turns * sum(_size(a.g.node, functions, level + 1) for a in node.attribute if a.HasField("g"))
    return total


def _initializers(graph: GraphProto, weights: WeightsFile) -> dict[str, TensorProto]:
    known: dict[str, TensorProto] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in known:
            raise BundleError(f"{MODEL}: the weight {tensor.name[:60]!r} stands twice or has no name.")
        if tensor.data_location:
            _check_external(tensor, weights)
        else:
            _check_inline(tensor)
        known[tensor.name] = tensor
    return known


def _check_external(tensor: TensorProto, weights: WeightsFile) -> None:
    here = f"{MODEL}: the weight {tensor.name[:60]!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or set(entries) != {"location", "offset", "length"}:
        raise BundleError(f"{here} must say location, offset and length of its data, once each.")
    if entries["location"] != WEIGHTS:
        raise BundleError(f"{here} lies in {entries['location'][:100]!r}; weights of a bundle lie in {WEIGHTS}.")
    if not all(
        len(entries[key]) < 20 and entries[key].isascii() and entries[key].isdigit() for key in ("offset", "length")
    ):
        raise BundleError(f"{here} has an offset or length that is no number.")
    dtype = _FIELDS.get(tensor.data_type, (None, ""))[0]
    span = (int(entries["offset"]), int(entries["length"]), dtype, tuple(tensor.dims))
    if span not in weights.spans:
        raise BundleError(
            f"{here} is at {span[0]} for {span[1]} bytes; no tensor of {WEIGHTS} of its dtype and shape lies there."
        )
    if any(getattr(tensor, field) for field in ("raw_data", *{name for _, name in _FIELDS.values()})):
        raise BundleError(f"{here} has its data both in {MODEL} and in {WEIGHTS}.")


def _check_inline(tensor: TensorProto) -> int:
    """Elements of a tensor that is written into the model."""
    here = f"{MODEL}: the constant {tensor.name[:60]!r}"
    if tensor.data_location or tensor.external_data or tensor.HasField("segment"):
        raise BundleError(f"{here} does not hold its own data.")
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > MAX_RANK:
        raise BundleError(f"{here} has shape {list(tensor.dims)[:MAX_RANK]}.")
    elements: int = math.prod(tensor.dims)
    if tensor.data_type == 8:  # text
        found, wanted = len(tensor.string_data), elements
    elif tensor.data_type not in _FIELDS:
        raise BundleError(f"{here} is of type {tensor.data_type}, which is not read.")
    else:
        dtype, field = _FIELDS[tensor.data_type]
        others = {name for _, name in _FIELDS.values()} - {field}
        if any(getattr(tensor, name) for name in others) or tensor.string_data:
            raise BundleError(f"{here} holds data of another type than its own.")
        if tensor.HasField("raw_data"):
            if getattr(tensor, field):
                raise BundleError(f"{here} holds its data twice.")
            found, wanted = len(tensor.raw_data), elements * dtype.itemsize
        else:
            found, wanted = len(getattr(tensor, field)), elements * (2 if dtype.is_complex else 1)
    if found != wanted:
        raise BundleError(f"{here} has {found} bytes or values, its shape needs {wanted}.")
    return elements


class _Names:
    """Walks nodes in order: every name is made once and before it is used, every operator is known."""

    def __init__(
        self,
        version: int,
        kernels: dict[str, KernelEntry],
        functions: dict[str, FunctionProto],
        manifest: Manifest,
        initializers: set[str],
    ) -> None:
        self.version, self.kernels, self.functions = version, kernels, functions
        self.manifest, self.initializers = manifest, initializers
        self.constants: dict[str, list[int]] = {}
        self.defined: set[str] = set()
        self.met: set[str] = set()  # kernels' nodes
        self.turns = Turns()

    def graph(self, graph: GraphProto, outer: set[str], level: int, takes: int = 0) -> None:
        """A graph whose nodes may use names of the graphs around it; an inner one takes so many values of its own."""
        here = f"{MODEL}: a graph"
        inputs = _distinct([value.name for value in graph.input], here)
        outputs = _distinct([value.name for value in graph.output], here)
        if level and (len(inputs) != takes or graph.initializer or graph.sparse_initializer):
            raise BundleError(f"{MODEL}: a graph in a node has weights of its own, or other than {takes} inputs.")
        if level and (both := set(inputs) & (outer | self.defined)):
            raise BundleError(f"{MODEL}: a graph in a node takes {min(both)[:60]!r}, which is there already.")
        if level == 0 and (both := set(inputs) & self.initializers):
            raise BundleError(f"{MODEL}: {min(both)[:60]!r} is both an input and a weight.")
        known = outer | set(inputs) | (self.initializers if level == 0 else set())
        made = self.nodes(graph.node, known, level)
        if lost := [name for name in outputs if name not in (made if level else made | set(inputs))]:
            raise BundleError(f"{MODEL} gives {lost[0][:60]!r}, which nothing makes.")

    def nodes(self, nodes: Sequence[NodeProto], known: set[str], level: int) -> set[str]:
        """Nodes in order; the names they make."""
        if level > MAX_LEVELS:
            raise BundleError(f"{MODEL} has branches in branches deeper than {MAX_LEVELS} levels.")
        known, made = set(known), set()
        constants = dict(self.constants)
        for node in nodes:
            here = f"{MODEL}: node {node.name[:60]!r} ({node.op_type[:60]})"
            if lost := [name for name in node.input if name and name not in known]:
                raise BundleError(f"{here} takes {lost[0][:60]!r}, which nothing before it makes.")
            if node.domain == DOMAIN and level == 0 and node.name in self.kernels:
                self._kernel(node, here)
            elif node.domain != "":
                raise BundleError(
                    f"{here} is of domain {node.domain[:60]!r} and no kernel of the manifest; it is not run."
                )
            else:
                _check_operator(node, self.version, here)
            if node.op_type == "Scan":
                self.turns.check(node, here)
            for attribute in node.attribute:
                self._attribute(attribute, node, known, level, here)
            _check_shape(node, constants, here)
            self.turns.see(node, constants)
            for name in node.output:
                if name and (name in known or name in self.defined):
                    raise BundleError(f"{here} makes {name[:60]!r}, which is there already.")
                if name:
                    known.add(name)
                    made.add(name)
        self.defined |= made
        return made

    def _kernel(self, node: NodeProto, here: str) -> None:
        entry = self.kernels[node.name]
        if node.name in self.met:
            raise BundleError(f"{here} stands twice.")
        self.met.add(node.name)
        if node.op_type != entry.function or node.attribute or node.overload:
            raise BundleError(f"{here} is not a plain call of {entry.function!r}, as the manifest says.")
        data = [name for name in node.input if name and name not in self.initializers]
        if data != [name for name in entry.inputs if name not in self.initializers]:
            raise BundleError(f"{here} takes {data[:8]}, the manifest says {list(entry.inputs)[:8]}.")
        if list(node.output) != list(entry.outputs):
            raise BundleError(f"{here} makes {list(node.output)[:8]}, the manifest says {list(entry.outputs)[:8]}.")
        function = self.functions.get(entry.function)
        if function is not None and (len(function.input) < len(node.input) or len(function.output) < len(node.output)):
            raise BundleError(f"{here} has more inputs or outputs than its function.")

    def _attribute(self, attribute: AttributeProto, node: NodeProto, known: set[str], level: int, here: str) -> None:
        if attribute.ref_attr_name:
            raise BundleError(
                f"{here}: attribute {attribute.name[:60]!r} refers to another; kernels' functions have none."
            )
        if attribute.sparse_tensors or attribute.HasField("sparse_tensor") or attribute.graphs or attribute.type_protos:
            raise BundleError(f"{here}: attribute {attribute.name[:60]!r} is of a kind that is not read.")
        for tensor in [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]:
            _check_inline(tensor)
        if attribute.HasField("g"):
            if node.op_type not in ("If", "Scan"):
                raise BundleError(f"{here} holds a graph; only branches of If and bodies of Scan do.")
            if node.op_type == "Scan" and (level or len(attribute.g.output) != 1):
                raise BundleError(
                    f"{here} stands in a branch, or its body gives {len(attribute.g.output)} tensors; 1 is needed."
                )
            self.graph(attribute.g, known, level + 1, takes=1 if node.op_type == "Scan" else 0)


@lru_cache(maxsize=4096)
def _schema(operator: str, version: int) -> tuple[int, int, int, int, dict[str, tuple[int, bool]]] | None:
    """Least and most inputs, least and most outputs, attributes with type and whether needed; None where unknown."""
    import onnx.defs

    if not onnx.defs.has(operator, max_inclusive_version=version, domain=""):
        return None
    schema = onnx.defs.get_schema(operator, version, "")
    if schema.deprecated:
        return None
    attributes = {}
    for name, attribute in schema.attributes.items():
        attributes[name] = (int(attribute.type), attribute.required)  # type: ignore[call-overload]
    return schema.min_input, schema.max_input, schema.min_output, schema.max_output, attributes


def _check_operator(node: NodeProto, version: int, here: str) -> None:
    if not isinstance(node.op_type, str):  # protobuf gives what is no UTF-8 as bytes
        raise BundleError(f"{here} has a name that is no text.")
    schema = None if node.op_type in _REFUSED or node.overload else _schema(node.op_type, version)
    if schema is None:
        raise BundleError(f"{here} is no operator of ONNX version {version} that a bundle may hold.")
    least, most, least_out, most_out, attributes = schema
    given = len(node.input)
    while given and not node.input[given - 1]:
        given -= 1
    if not (least <= given and len(node.input) <= most and least_out <= len(node.output) <= most_out):
        raise BundleError(
            f"{here} has {given} inputs and {len(node.output)} outputs, which the operator does not take."
        )
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names):
        raise BundleError(f"{here} has an attribute twice.")
    for attribute in node.attribute:
        if attribute.name not in attributes or attribute.type != attributes[attribute.name][0]:
            raise BundleError(f"{here}: attribute {attribute.name[:60]!r} is unknown or of another type.")
    if missing := sorted(name for name, (_, needed) in attributes.items() if needed and name not in names):
        raise BundleError(f"{here} lacks the attribute {missing[0]!r}.")


def _check_shape(node: NodeProto, constants: dict[str, list[int]], here: str) -> None:
    """Shapes that constants give stay within bounds: onnxruntime works them out while it loads."""
    if node.op_type == "Constant" and node.domain == "" and node.output:
        made = _integers(node)
        if made is not None:
            constants[node.output[0]] = made
    place = _SHAPED.get(node.op_type) if node.domain == "" else None
    shape = None if place is None or len(node.input) <= place else constants.get(node.input[place])
    if shape is not None and math.prod(max(1, abs(size)) for size in shape) > MAX_ELEMENTS:
        raise BundleError(f"{here} makes a tensor of more than {MAX_ELEMENTS} elements.")


def _integers(node: NodeProto) -> list[int] | None:
    """The values of a constant of few integers."""
    attribute = node.attribute[0] if len(node.attribute) == 1 else None
    if attribute is None:
        return None
    if attribute.name == "value":
        return _few(attribute.t)
    if attribute.name in ("value_int", "value_ints"):
        return [attribute.i] if attribute.name == "value_int" else list(attribute.ints)[:64]
    return None


def _few(tensor: TensorProto) -> list[int] | None:
    import numpy as np
    from onnx import numpy_helper

    if tensor.data_location or tensor.data_type not in (6, 7) or math.prod(tensor.dims) > 64:
        return None
    return [int(value) for value in np.asarray(numpy_helper.to_array(tensor)).ravel()]


def _check_interface(what: str, values: Sequence[ValueInfoProto], entries: Sequence[TensorEntry]) -> None:
    if [value.name for value in values] != [entry.name for entry in entries]:
        raise BundleError(
            f"{MODEL} has the {what}s {[value.name[:60] for value in values][:8]}, the manifest lists "
            f"{[entry.name for entry in entries][:8]}."
        )
    for value, entry in zip(values, entries, strict=True):
        here = f"{MODEL}: {what} {entry.name!r}"
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type not in _FIELDS:
            raise BundleError(f"{here} is no tensor of a known type.")
        if str(_FIELDS[kind.elem_type][0]).removeprefix("torch.") != entry.dtype:
            raise BundleError(f"{here} is not {entry.dtype}, as the manifest says.")
        if not kind.HasField("shape"):
            continue
        if len(kind.shape.dim) != len(entry.shape):
            raise BundleError(f"{here} has {len(kind.shape.dim)} dimensions, the manifest says {len(entry.shape)}.")
        for size, said in zip(kind.shape.dim, entry.shape, strict=True):
            if size.HasField("dim_value") and size.dim_value != said:
                raise BundleError(f"{here} has a dimension of {size.dim_value}, the manifest says {said}.")
