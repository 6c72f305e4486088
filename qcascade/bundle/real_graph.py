"""A kernel's exported graph in real arithmetic: circuits written out, complex numbers as two tensors.

What comes in: the graph of a module as `torch.export` gives it, complex values and `qcascade::simulate` included. What goes
out: a module of the same function that any exporter of real tensors takes. Complex inputs and outputs, and operators on
complex numbers outside of the table below, are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from qcascade.bundle import circuit_body
from qcascade.bundle.circuit_body import Pair
from qcascade.bundle.recorded import Recorder
from qcascade.circuits.template import Measurement
from qcascade.engine.program import Program
from qcascade.engine.text import measurement_of, program_of
from qcascade.errors import BundleError

_aten = torch.ops.aten


class RealGraph(nn.Module):
    """Runs a graph with complex numbers as pairs.

    Args:
        graph: Of `torch.export`, by `ExportedProgram.module()`.
        name: What it belongs to, for messages.

    Raises:
        BundleError: When it runs: an operator on complex numbers has no real form here.
    """

    def __init__(self, graph: fx.GraphModule, name: str) -> None:
        super().__init__()
        self.graph_module, self.name = graph, name
        self.recorder = Recorder()  # of circuits, where torch exports this

    def forward(self, *inputs: Any) -> Any:
        """The graph's result."""
        return _Interpreter(self.graph_module, self.name, self.recorder).run(*inputs)


class _Interpreter(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, name: str, recorder: Recorder) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.owner, self.recorder = name, recorder

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator."""
        if target is torch.ops.qcascade.simulate.default:
            program, measured, data, weights, *loaded = args
            states = kwargs.get("amplitudes", loaded[0] if loaded else None)
            if isinstance(states, Tensor):
                states = Pair(states, None)
            return _simulated(self.recorder, program_of(program), measurement_of(measured), data, weights, states)
        leaves = pytree.tree_leaves((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Pair))
        if target in _MAKERS and (found := _MAKERS[target](*args, **kwargs)) is not None:
            return found
        if any(isinstance(leaf, Pair) for leaf in leaves):
            if target in _SHAPES:
                return _each_part(target, args, kwargs)
            if target in _COMPLEX and (found := _COMPLEX[target](*args, **kwargs)) is not None:
                return found
            raise BundleError(
                f"{self.owner}: the operator {target} on complex numbers has no form in real arithmetic here, so the kernel has no body "
                f"of ONNX operators. Compute with real tensors, or with {', '.join(sorted({str(t) for t in _COMPLEX})[:12])}."
            )
        return super().call_function(target, args, kwargs)

    def output(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The results, which must be real."""
        found = super().output(target, args, kwargs)
        if any(isinstance(v, Pair) for v in pytree.tree_leaves(found, is_leaf=lambda leaf: isinstance(leaf, Pair))):
            raise BundleError(
                f"{self.owner} gives complex numbers; a kernel with a body of ONNX operators gives real ones."
            )
        return found


def _simulated(
    recorder: Recorder,
    program: Program,
    measurement: Measurement | None,
    data: Tensor,
    weights: Tensor,
    states: Pair | None,
) -> Tensor | Pair:
    """A circuit's results; where torch exports, as one operator."""
    loaded = [] if states is None else [t for t in (states.real, states.imaginary) if t is not None]

    def function(data: Tensor, weights: Tensor, *loaded: Tensor) -> list[Tensor]:
        given = Pair(loaded[0], loaded[1] if len(loaded) > 1 else None) if loaded else None
        found = circuit_body.computed(program, measurement, data, weights, given)
        return [t for t in (found.real, found.imaginary) if t is not None] if isinstance(found, Pair) else [found]

    found = [t.expand(weights.shape[0], data.shape[1], -1) for t in recorder.call(function, data, weights, *loaded)]
    return found[0] if measurement is not None else Pair(found[0], found[1] if len(found) > 1 else None)


def _each_part(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pair:
    """A linear operator that acts on both parts alike."""

    def part(which: int) -> Tensor:
        taken = pytree.tree_map(
            lambda leaf: leaf.parts()[which] if isinstance(leaf, Pair) else leaf,
            (args, kwargs),
            is_leaf=lambda leaf: isinstance(leaf, Pair),
        )
        result: Tensor = target(*taken[0], **taken[1])
        return result

    pairs = [
        v
        for v in pytree.tree_leaves((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Pair))
        if isinstance(v, Pair)
    ]
    return Pair(part(0), part(1) if any(pair.imaginary is not None for pair in pairs) else None)


def _pair(value: Any) -> Pair:
    if isinstance(value, Pair):
        return value
    if isinstance(value, complex):
        return Pair(torch.tensor(value.real), torch.tensor(value.imag))
    return Pair(value if isinstance(value, Tensor) else torch.tensor(float(value)), None)


def _polar(radius: Tensor, angle: Tensor) -> Pair:
    return Pair(radius * angle.cos(), radius * angle.sin())


def _converted(value: Any, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Pair | None:
    """`.to(dtype)` that makes complex of real, or complex of complex."""
    dtype = next((a for a in args if isinstance(a, torch.dtype)), dtype)
    if dtype is None or not dtype.is_complex:
        return None
    if isinstance(value, Pair):
        real = dtype.to_real()
        return Pair(value.real.to(real), None if value.imaginary is None else value.imaginary.to(real))
    return Pair(value.to(dtype.to_real()), None)


def _plus(left: Any, right: Any, sign: float, alpha: float = 1) -> Pair:
    a, b = _pair(left), _pair(right)
    factor = sign * alpha
    real = a.real + factor * b.real
    if a.imaginary is None and b.imaginary is None:
        return Pair(real, None)
    (_, x), (_, y) = a.parts(), b.parts()
    return Pair(real, x + factor * y)


def _divided(left: Any, right: Any) -> Pair:
    a, b = _pair(left), _pair(right)
    if b.imaginary is not None:
        scaled, size = a.times(circuit_body.conjugate(b)), b.squared()
        return Pair(scaled.real / size, None if scaled.imaginary is None else scaled.imaginary / size)
    return Pair(a.real / b.real, None if a.imaginary is None else a.imaginary / b.real)


_Rule = Callable[..., Any]
_MAKERS: Mapping[Any, _Rule] = {
    _aten.polar.default: _polar,
    _aten.complex.default: lambda real, imaginary: Pair(real, imaginary),
    _aten.view_as_complex.default: lambda x: Pair(x[..., 0], x[..., 1]),
    _aten.to.dtype: _converted,
    _aten.to.dtype_layout: _converted,
    _aten._to_copy.default: _converted,
}
_SHAPES = {
    _aten.pad.default, _aten.constant_pad_nd.default, _aten.transpose.int, _aten.permute.default, _aten.reshape.default,
    _aten.view.default, _aten.unsqueeze.default, _aten.squeeze.dim, _aten.squeeze.default, _aten.slice.Tensor, _aten.select.int,
    _aten.index_select.default, _aten.expand.default, _aten.flatten.using_ints, _aten.unflatten.int, _aten.clone.default,
    _aten.contiguous.default, _aten.cat.default, _aten.stack.default, _aten.detach.default, _aten.alias.default, _aten.neg.default,
    _aten.sum.dim_IntList, _aten.sum.default, _aten.mean.dim, _aten.t.default, _aten.mT.default, _aten.expand_as.default,
    _aten.movedim.int, _aten.broadcast_to.default, _aten.lift_fresh_copy.default, _aten.resolve_conj.default,
}  # fmt: skip
_COMPLEX: Mapping[Any, _Rule] = {
    _aten.mul.Tensor: lambda a, b: _pair(a).times(_pair(b)),
    _aten.mul.Scalar: lambda a, b: _pair(a).times(_pair(b)),
    _aten.add.Tensor: lambda a, b, alpha=1: _plus(a, b, 1, alpha),
    _aten.sub.Tensor: lambda a, b, alpha=1: _plus(a, b, -1, alpha),
    _aten.div.Tensor: _divided,
    _aten.matmul.default: lambda a, b: _pair(a).matmul(_pair(b)),
    _aten.bmm.default: lambda a, b: _pair(a).matmul(_pair(b)),
    _aten.mm.default: lambda a, b: _pair(a).matmul(_pair(b)),
    _aten.conj.default: circuit_body.conjugate,
    _aten.conj_physical.default: circuit_body.conjugate,
    _aten.abs.default: lambda z: z.squared().sqrt(),
    _aten.real.default: lambda z: z.parts()[0],
    _aten.imag.default: lambda z: z.parts()[1],
    _aten.view_as_real.default: lambda z: torch.stack(z.parts(), -1),
}
