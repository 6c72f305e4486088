"""Tensor code as an ONNX function, written down while it runs once on small tensors; torch exports it as one operator.

What comes in: a function of tensors, called while torch exports what it is a part of. What goes out: its results' dtypes and
shapes for torch, one node of domain `qcascade.recorded`, and an ONNX function of that name, whose body takes milliseconds
where `torch.export` and its decompositions take seconds (a circuit has hundreds of operators, each traced three times).

The function runs outside torch's tracing, on tensors of ones in which every free size has a value of its own, and once more with
other values: a size that was written down as a number would then differ, and is an error. Results' sizes are read off the same way.

Refused: operators outside the table below, and values that decide in Python (`bool(tensor)`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from qcascade.bundle.onnx_passes import OPSET

DOMAIN = "qcascade.recorded"
PLACE = "recorded"  # metadata of a node: which recording it is
_FREE = ((2, 3), (5, 7), (11, 13), (17, 19))  # sizes of free dimensions in the two runs
_CONSTANT = 2**16  # elements of what is written down as a constant; what has 2^q entries is computed
_END = 2**62

Size = int | tuple[int, int]  # a free one is its values in the two runs
Function = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Recording:
    """A function as ONNX, with what it gives."""

    body: ir.Function
    dtypes: tuple[torch.dtype, ...]
    shapes: tuple[tuple[Size, ...], ...]


class Recorder:
    """Functions recorded in one export, by the names of their nodes."""

    def __init__(self) -> None:
        self.recordings: dict[str, Recording] = {}

    def call(self, function: Function, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The function's results; one operator where torch exports.

        Raises:
            NotImplementedError: It uses an operator that has no form here.
            ValueError: It depends on a free size as on a number.

        Example:
            >>> Recorder().call(lambda x: [x @ x], torch.eye(2))[0].trace()
            tensor(2.)
        """
        if not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            return tuple(function(*tensors))
        free: dict[str, tuple[tuple[int, int], torch.SymInt]] = {}
        specs = []
        for tensor in tensors:
            sizes: list[Size] = []
            for size in tensor.shape:
                if isinstance(size, torch.SymInt):
                    sizes.append(free.setdefault(str(size.node.expr), (_FREE[len(free)], size))[0])
                else:
                    sizes.append(size)
            specs.append((tensor.dtype, tuple(sizes)))
        name = f"Recorded_{len(self.recordings)}"
        with ThreadPoolExecutor(1) as outside:  # torch's modes are a thread's own: nothing of this is traced
            recording = outside.submit(record, name, function, specs).result()
        self.recordings[name] = recording
        known: dict[Size, torch.SymInt] = dict(free.values())
        found = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::Recorded",
            tensors,
            dtypes=recording.dtypes,
            shapes=[[known[s] if isinstance(s, tuple) else s for s in shape] for shape in recording.shapes],
            version=1,
            metadata_props={PLACE: name},
        )
        return tuple(found)

    def insert(self, model: ir.Model) -> None:
        """Give a model whose nodes were recorded here their functions, for a pass to write out in their place."""
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.domain == DOMAIN:
                node.op_type = node.metadata_props[PLACE]
                body = self.recordings[node.op_type].body
                model.functions[body.identifier()] = body


def record(name: str, function: Function, specs: Sequence[tuple[torch.dtype, tuple[Size, ...]]]) -> Recording:
    """A function as an ONNX function of domain `qcascade.recorded`.

    Args:
        name: What the function will be called.
        function: From tensors to tensors.
        specs: Dtype and sizes of each of its inputs; a free size is two values to try.

    Raises:
        NotImplementedError: It uses an operator that has no form here.
        ValueError: It depends on a free size as on a number.

    Example:
        >>> made = record("Doubled", lambda x: [x * 2], [(torch.float32, ((2, 3), 4))])
        >>> made.shapes, [node.op_type for node in made.body]
        ((((2, 3), 4),), ['Constant', 'Mul', 'Identity'])
    """
    bodies, results = [], []
    for run in (0, 1):
        inputs = [torch.ones([s if isinstance(s, int) else s[run] for s in sizes], dtype=d) for d, sizes in specs]
        with torch.no_grad(), _Tape(inputs) as tape:
            found = list(function(*inputs))
        bodies.append(tape.function(name, found))
        results.append(found)
    first, second = (ir.serde.serialize_function(body).SerializeToString(deterministic=True) for body in bodies)
    if first != second:
        raise ValueError(f"{name} is not the same for every size of its inputs.")
    shapes: list[tuple[Size, ...]] = []
    for one, two in zip(*results, strict=True):
        shapes.append(tuple(a if a == b else (a, b) for a, b in zip(one.shape, two.shape, strict=True)))
    return Recording(bodies[0], tuple(t.dtype for t in results[0]), tuple(shapes))


class _Tape(TorchFunctionMode):
    """Writes down what is called."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.nodes: list[ir.Node] = []
        self.known: dict[int, tuple[Tensor, ir.Value]] = {}  # tensors are kept, so that no other takes their id
        self.inputs = []
        for number, tensor in enumerate(inputs):
            value = ir.Value(name=f"input_{number}")
            self.inputs.append(value)
            self.known[id(tensor)] = tensor, value

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.__name__
        if name == "__get__":
            name = func.__self__.__name__
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            if name not in _PLAIN:
                raise NotImplementedError(f"{name} of a tensor decides in Python, which has no form in ONNX here.")
        elif id(result) not in self.known and name not in _CONSTANTS:
            if name not in _RULES:
                raise NotImplementedError(f"the operator {name} has no form in ONNX here.")
            self.known[id(result)] = result, _RULES[name](self, result, *args, **kwargs)
        return result

    def op(self, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """A node more; its result."""
        out = ir.Value(name=f"value_{len(self.nodes)}")
        self.nodes.append(ir.node(kind, list(inputs), attributes or None, outputs=[out], version=OPSET))
        return out

    def value(self, given: Any, dtype: torch.dtype | None = None) -> ir.Value:
        """A tensor's value; numbers, and tensors that were not computed here, become constants."""
        if isinstance(given, Tensor):
            if id(given) not in self.known:
                if given.numel() > _CONSTANT:
                    raise NotImplementedError(f"a constant of {given.numel()} elements is not written into a function.")
                with torch._C.DisableTorchFunction():
                    array = given.numpy()
                self.known[id(given)] = given, self.op("Constant", value=ir.tensor(array))
            return self.known[id(given)][1]
        with torch._C.DisableTorchFunction():
            return self.op("Constant", value=ir.tensor(torch.tensor(given, dtype=dtype).numpy()))

    def integers(self, *sizes: int) -> ir.Value:
        """A vector of numbers."""
        return self.op("Constant", value=ir.tensor(np.array(sizes, dtype=np.int64)))

    def function(self, name: str, results: Sequence[Tensor]) -> ir.Function:
        """What was written down, as a function."""
        outputs = [self.op("Identity", self.value(result)) for result in results]
        graph = ir.Graph(self.inputs, outputs, nodes=self.nodes, opset_imports={"": OPSET})
        return ir.Function(DOMAIN, name, graph=graph, attributes=[])


def _binary(kind: str, swapped: bool = False) -> Callable[..., ir.Value]:
    def rule(tape: _Tape, result: Tensor, left: Any, right: Any) -> ir.Value:
        pair = (right, left) if swapped else (left, right)
        kinds = {side.dtype for side in pair if isinstance(side, Tensor)}
        if len(kinds) > 1:
            raise NotImplementedError(f"{kind} of {' and '.join(sorted(map(str, kinds)))} has no form in ONNX here.")
        return tape.op(kind, *(tape.value(side, next(iter(kinds))) for side in pair))

    return rule


def _unary(kind: str) -> Callable[..., ir.Value]:
    return lambda tape, result, x: tape.op(kind, tape.value(x))


def _remainder(tape: _Tape, result: Tensor, x: Tensor, by: float) -> ir.Value:
    """The remainder x − ⌊x / by⌋ · by, as torch has it."""
    number, step = tape.value(x), tape.value(by, x.dtype)
    return tape.op("Sub", number, tape.op("Mul", tape.op("Floor", tape.op("Div", number, step)), step))


def _arange(tape: _Tape, result: Tensor, stop: int, **options: Any) -> ir.Value:
    return tape.op("Range", *(tape.value(number, result.dtype) for number in (0, stop, 1)))


def _reshape(tape: _Tape, result: Tensor, x: Tensor, *shape: Any) -> ir.Value:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    return tape.op("Reshape", tape.value(x), tape.integers(*sizes))


def _unflatten(tape: _Tape, result: Tensor, x: Tensor, dim: int, sizes: Sequence[int]) -> ir.Value:
    place = dim % x.dim()
    shape = [*[0] * place, *sizes, *x.shape[place + 1 :]]  # 0: as it is
    return tape.op("Reshape", tape.value(x), tape.integers(*shape))


def _transpose(tape: _Tape, result: Tensor, x: Tensor, first: int = 0, second: int = 1) -> ir.Value:
    order = list(range(x.dim()))
    order[first], order[second] = order[second], order[first]
    return tape.op("Transpose", tape.value(x), perm=order)


def _unsqueeze(tape: _Tape, result: Tensor, x: Tensor, dim: int) -> ir.Value:
    return tape.op("Unsqueeze", tape.value(x), tape.integers(dim))


def _index_select(tape: _Tape, result: Tensor, x: Tensor, dim: int, index: Tensor) -> ir.Value:
    return tape.op("Gather", tape.value(x), tape.value(index), axis=dim)


def _stack(tape: _Tape, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> ir.Value:
    return tape.op("Concat", *(_unsqueeze(tape, result, x, dim) for x in tensors), axis=dim)


def _cat(tape: _Tape, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> ir.Value:
    return tape.op("Concat", *(tape.value(x) for x in tensors), axis=dim)


def _to(tape: _Tape, result: Tensor, x: Tensor, dtype: torch.dtype) -> ir.Value:
    with torch._C.DisableTorchFunction():
        kind = ir.DataType.from_numpy(torch.zeros(0, dtype=dtype).numpy().dtype)
    return tape.op("Cast", tape.value(x), to=kind.value)


def _sum(tape: _Tape, result: Tensor, x: Tensor, dim: int) -> ir.Value:
    return tape.op("ReduceSum", tape.value(x), tape.integers(dim), keepdims=0)


def _zeros_like(tape: _Tape, result: Tensor, x: Tensor) -> ir.Value:
    return tape.op("Expand", tape.value(0, x.dtype), tape.op("Shape", tape.value(x)))


def _getitem(tape: _Tape, result: Tensor, x: Tensor, index: Any) -> ir.Value:
    """Numbers, slices, None and ...; numbers of tensors are not taken."""
    entries = list(index) if isinstance(index, tuple) else [index]
    taken = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if Ellipsis not in entries:
        entries.append(Ellipsis)
    place = next(k for k, entry in enumerate(entries) if entry is Ellipsis)
    entries[place : place + 1] = [slice(None)] * (x.dim() - taken)
    axis, slices, numbers, new, out = 0, [], [], [], 0
    for entry in entries:
        if entry is None:
            new.append(out)
            out += 1
            continue
        if isinstance(entry, slice):
            if entry.step not in (None, 1):
                raise NotImplementedError("slices with steps have no form in ONNX here.")
            if entry.start is not None or entry.stop is not None:
                slices.append((axis, entry.start or 0, _END if entry.stop is None else entry.stop))
            out += 1
        elif isinstance(entry, int):
            numbers.append((axis, entry))
        else:
            raise NotImplementedError(f"an index of {type(entry).__name__} has no form in ONNX here.")
        axis += 1
    value = tape.value(x)
    if slices:
        axes, starts, stops = zip(*slices, strict=True)
        value = tape.op("Slice", value, tape.integers(*starts), tape.integers(*stops), tape.integers(*axes))
    for axis, number in reversed(numbers):
        value = tape.op("Gather", value, tape.value(number, torch.int64), axis=axis)
    if new:
        value = tape.op("Unsqueeze", value, tape.integers(*new))
    return value if slices or numbers or new else tape.op("Identity", value)


_PLAIN = {"shape", "dtype", "device", "ndim", "dim", "size", "is_floating_point", "is_complex", "requires_grad"}
_CONSTANTS = {"tensor", "as_tensor", "new_zeros", "new_tensor"}  # become constants where they are used
_RULES: Mapping[str, Callable[..., ir.Value]] = {
    **dict.fromkeys(("add", "__add__", "__radd__"), _binary("Add")),
    **dict.fromkeys(("mul", "__mul__", "__rmul__"), _binary("Mul")),
    **dict.fromkeys(("sub", "__sub__"), _binary("Sub")),
    **dict.fromkeys(("rsub", "__rsub__"), _binary("Sub", swapped=True)),
    **dict.fromkeys(("div", "true_divide", "__truediv__"), _binary("Div")),
    **dict.fromkeys(("matmul", "__matmul__"), _binary("MatMul")),
    **dict.fromkeys(("eq", "__eq__"), _binary("Equal")),
    **dict.fromkeys(("remainder", "__mod__"), _remainder),
    **dict.fromkeys(("neg", "__neg__"), _unary("Neg")),
    **{name: _unary(name.title()) for name in ("cos", "sin", "floor", "sqrt", "abs")},
    "arange": _arange,
    "reshape": _reshape,
    "unflatten": _unflatten,
    "transpose": _transpose,
    "T": _transpose,
    "unsqueeze": _unsqueeze,
    "index_select": _index_select,
    "stack": _stack,
    "cat": _cat,
    "to": _to,
    "sum": _sum,
    "zeros_like": _zeros_like,
    "__getitem__": _getitem,
}
