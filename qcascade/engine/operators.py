"""Simulation as torch operators: differentiable, exportable, compilable.

`simulate` is what everything calls. On the CPU it runs compiled circuits with adjoint gradients: in plain eager mode as an
autograd function, and wherever torch records or transforms (export, compile, vmap, fake tensors) as the operator
`torch.ops.qcascade.simulate`, which carries its program as text. On other devices it is the torch reference under
autograd. Second derivatives in eager mode go through the reference; those of the operator raise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import sympy
import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from qcascade.circuits.template import Expectations, Measurement, PauliString, Probabilities
from qcascade.engine import compiled, reference
from qcascade.engine.compiled import Batch, Simulation, simulation
from qcascade.engine.program import Program
from qcascade.engine.schedule import ROTATE, schedule
from qcascade.engine.text import measurement_of, program_of
from qcascade.errors import ExecutionError


def simulate(
    program: Program,
    measurement: Measurement | None = None,
    *,
    data: Tensor | None = None,
    weights: Tensor | None = None,
    amplitudes: Tensor | None = None,
    squeeze: bool = False,
) -> Tensor:
    """Run a program on a batch and measure.

    S sets of weights × B examples. Everything is computed in the precision of the inputs, float32 or more, autocast or
    not; gradients flow to data, weights and amplitudes.

    Args:
        program: What to run.
        measurement: `Expectations` or `Probabilities` of the final states; None gives the states.
        data: [B, D] values of the data symbols, or [S, B, D]; None where the program has none.
        weights: [S, W] or [W] values of the weight symbols; None where the program has none.
        amplitudes: Initial states [B, 2^q] or [S, B, 2^q], complex or real; None starts from |0…0⟩.
        squeeze: Leave out the dimension of sets where it is 1.

    Returns:
        Expectation values [S, B, K], probabilities [S, B, 2^q], or complex states [S, B, 2^q]; B is 1 where neither data
        nor amplitudes are given.

    Raises:
        ExecutionError: A shape does not fit the program, or the run needs more memory than is free.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from qcascade.circuits.template import CircuitTemplate
        >>> from qcascade.engine.program import lower
        >>> bell = lower(CircuitTemplate(Circuit(2).H(0).CX(0, 1), data=(), weights=()))
        >>> simulate(bell, Probabilities())[0, 0]
        tensor([0.5000, 0.0000, 0.0000, 0.5000])
    """
    given = [t for t in (amplitudes, data, weights) if t is not None]
    recorded = _recorded(given)
    count, real = (_fit if recorded else _fitted)(program, _form(data), _form(weights), _form(amplitudes))
    if program.curved:
        angles = _evaluated(program, data, weights)
        return simulate(_on_angles(program), measurement, data=angles, amplitudes=amplitudes, squeeze=squeeze)
    device = given[0].device.type if given else "cpu"
    training = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    if device == "cpu" and not recorded:
        what = simulation(program, measurement)
        what.check_memory(count, real.itemsize, loaded=amplitudes is not None, training=training)
    data, weights = _cast(data, real), _cast(weights, real)
    amplitudes = _cast(amplitudes, torch.complex128 if real == torch.float64 else torch.complex64)
    if device in ("cpu", "meta") and not recorded:
        if training:
            result: Tensor = _Simulate.apply(what, squeeze, data, weights, amplitudes)  # type: ignore[no-untyped-call]
            return result
        inputs = _arrays(what, data, weights, amplitudes)
        return _forward(inputs, training=False, squeeze=squeeze)[0]
    data, weights, amplitudes = _shaped(data, weights, amplitudes, real)
    if device in ("cpu", "meta"):
        measured = "amplitudes" if measurement is None else measurement.text
        run = _Transformed.apply if _transformed() else _operator
        result = run(program.text, measured, data, weights, amplitudes)  # type: ignore[no-untyped-call]
    else:
        with torch.autocast(device, enabled=False):
            result = reference.simulate(program, measurement, data, weights, amplitudes)
    return result[0] if squeeze and result.shape[0] == 1 else result


def evolve(
    program: Program, *, data: Tensor | None = None, weights: Tensor | None = None, amplitudes: Tensor | None = None
) -> Tensor:
    """Final states [S, B, 2^q]; see `simulate`."""
    return simulate(program, None, data=data, weights=weights, amplitudes=amplitudes)


def probabilities(
    program: Program, *, data: Tensor | None = None, weights: Tensor | None = None, amplitudes: Tensor | None = None
) -> Tensor:
    """Probabilities [S, B, 2^q] of every outcome; see `simulate`."""
    return simulate(program, Probabilities(), data=data, weights=weights, amplitudes=amplitudes)


def expectations(
    program: Program,
    paulis: tuple[PauliString, ...],
    *,
    data: Tensor | None = None,
    weights: Tensor | None = None,
    amplitudes: Tensor | None = None,
) -> Tensor:
    """Expectation values [S, B, K] of K Pauli strings; see `simulate`."""
    return simulate(program, Expectations(paulis), data=data, weights=weights, amplitudes=amplitudes)


def unitary_columns(program: Program, weights: Tensor, columns: int) -> Tensor:
    """The first `columns` columns of the program's unitary for every weight set: [S, 2^q, columns]."""
    basis = torch.eye(columns, 2**program.qubits, dtype=weights.dtype, device=weights.device)
    return evolve(program, weights=weights, amplitudes=basis).transpose(-1, -2)


def arranged(
    program: Program, data: Tensor | None, weights: Tensor | None, amplitudes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs of `simulate` in full shape and one precision: data [S, B, D], weights [S, W], amplitudes [S, B, 2^q] or None.

    Raises:
        ExecutionError: A shape does not fit the program.
    """
    _, real = _fitted(program, _form(data), _form(weights), _form(amplitudes))
    wide = _cast(amplitudes, torch.complex128 if real == torch.float64 else torch.complex64)
    d, w, a = _shaped(_cast(data, real), _cast(weights, real), wide, real)
    sets = next((t.shape[0] for t in (d, w, a) if t is not None and t.shape[0] != 1), 1)
    batch = d.shape[1] if a is None or a.shape[1] == 1 else a.shape[1]
    full = None if a is None else a.expand(sets, batch, -1)
    return d.expand(sets, batch, -1), w.expand(sets, -1), full


_Form: TypeAlias = tuple[torch.Size, torch.dtype]


def _form(values: Tensor | None) -> _Form | None:
    return None if values is None else (values.shape, values.dtype)


def _fit(
    program: Program, data: _Form | None, weights: _Form | None, amplitudes: _Form | None
) -> tuple[int, torch.dtype]:
    """Shapes that fit the program and one another; how many examples there are in all, and in which precision."""
    sets = batch = 1
    for name, given, width, least in (
        ("data", data, len(program.data), 2),
        ("weights", weights, len(program.weights), 1),
        ("amplitudes", amplitudes, 2**program.qubits, 2),
    ):
        if given is None:
            if width and name != "amplitudes":
                raise ExecutionError(f"`{name}` is missing; the program has {width} symbols there.")
            continue
        shape, dtype = given
        if len(shape) not in (least, least + 1) or shape[-1] != width:
            form = ("[batch, " if least == 2 else "[") + f"{width}]"
            raise ExecutionError(
                f"`{name}` has shape {list(shape)}; {form} is needed, or the same with sets in front: the program "
                f"has {width} {'entries a state' if name == 'amplitudes' else 'symbols there'}."
            )
        if name != "amplitudes" and dtype.is_complex:
            raise ExecutionError(f"`{name}` is {dtype}; angles are real.")
        if torch.compiler.is_compiling():
            continue  # sizes may be symbols; what does not fit shows when the graph runs
        if len(shape) > least and shape[0] != 1:
            if sets not in (1, shape[0]):
                raise ExecutionError(f"inputs have {sets} and {shape[0]} sets; give one number of sets, or 1.")
            sets = shape[0]
        if least == 2 and shape[-2] != 1:
            if batch not in (1, shape[-2]):
                raise ExecutionError(
                    f"data has {batch} examples and amplitudes {shape[-2]}; give the same number of both."
                )
            batch = shape[-2]
    double = any(form is not None and form[1] in _DOUBLE for form in (data, weights, amplitudes))
    return sets * batch, torch.float64 if double else torch.float32


_fitted = lru_cache(maxsize=512)(_fit)
_DOUBLE = (torch.float64, torch.complex128)


def _precision(*given: Tensor | None) -> torch.dtype:
    double = any(t is not None and t.dtype in _DOUBLE for t in given)
    return torch.float64 if double else torch.float32


def _cast(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return values if values is None or values.dtype == dtype else values.to(dtype)


def _shaped(
    data: Tensor | None, weights: Tensor | None, amplitudes: Tensor | None, real: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Data [1|S, B, D], weights [S, W] and amplitudes [1|S, 1|B, 2^q], absent symbols with no columns."""
    given = next((t for t in (amplitudes, data, weights) if t is not None), None)
    device = torch.device("cpu") if given is None else given.device
    data = torch.zeros(1, 1, 0, dtype=real, device=device) if data is None else data
    weights = torch.zeros(1, 0, dtype=real, device=device) if weights is None else weights
    data = data if data.dim() == 3 else data[None]
    weights = weights if weights.dim() == 2 else weights[None]
    if amplitudes is not None and amplitudes.dim() == 2:
        amplitudes = amplitudes[None]
    # sizes that may be symbols are only looked at where there is something to expand
    if amplitudes is not None and (data.shape[-1] == 0 or data.shape[1] == 1):
        data = data[:, :1].expand(-1, amplitudes.shape[1], -1)
    for other in (data, amplitudes):
        if other is not None and other.shape[0] != 1 and weights.shape[0] == 1:
            weights = weights.expand(other.shape[0], -1)
    return data, weights, amplitudes


@lru_cache(maxsize=512)
def _on_angles(program: Program) -> Program:
    """`program.on_angles()`, made once."""
    return program.on_angles()


def _evaluated(program: Program, data: Tensor | None, weights: Tensor | None) -> Tensor:
    """All angles [S, B, A], those that are not affine evaluated by torch."""
    data, weights, _ = _shaped(data, weights, None, _precision(data, weights))
    matrix = torch.from_numpy(program.coefficients).to(weights)
    columns = len(program.data)
    angles = (weights @ matrix[:, columns:].T + torch.from_numpy(program.constants).to(weights))[:, None]
    angles = angles + data.to(weights) @ matrix[:, :columns].T
    symbols = sympy.symbols(program.data + program.weights)
    values = [data[..., k] for k in range(columns)] + [weights[:, None, k] for k in range(weights.shape[-1])]
    extra = dict(program.curved)
    curved = []
    for place in range(angles.shape[-1]):
        value = angles[..., place]
        if place in extra:
            value = value + sympy.lambdify(symbols, extra[place], modules="torch")(*values)
        curved.append(value)
    return torch.stack(torch.broadcast_tensors(*curved), -1)


_PLAIN = (Tensor, torch.nn.Parameter)


def _recorded(given: list[Tensor]) -> bool:
    """Whether torch is watching: then the operator must be seen, not what is inside."""
    if watched() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    return any(type(t) not in _PLAIN or t.is_meta for t in given)


def watched() -> bool:
    """Whether torch compiles, exports or transforms now, so that values and sizes found in data cannot be looked at."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


def _transformed() -> bool:
    """Whether one of torch.func's transforms is at work."""
    return not torch.compiler.is_compiling() and watched()


class _Inputs(NamedTuple):
    """What compiled circuits take: NumPy arrays in full shape, amplitudes as flat (re, im) pairs."""

    what: Simulation
    batch: Batch
    data: Any
    weights: Any
    amplitudes: Any


def _arrays(what: Simulation, data: Tensor | None, weights: Tensor | None, amplitudes: Tensor | None) -> _Inputs:
    if amplitudes is None and data is not None and weights is not None and data.dim() == 2 and weights.dim() == 1:
        d, w = data.detach().contiguous().numpy()[None], _owned(weights)[None]
        return _Inputs(what, Batch(1, d.shape[1], what.uses_data), d, w, w[0, :0])
    first = next((t for t in (weights, data, amplitudes) if t is not None), None)
    dtype = np.float64 if first is not None and first.dtype in (torch.float64, torch.complex128) else np.float32
    d = np.zeros((1, 1, 0), dtype) if data is None else data.detach().numpy()
    w = np.zeros((1, 0), dtype) if weights is None else _owned(weights)
    d, w = d if d.ndim == 3 else d[None], w if w.ndim == 2 else w[None]
    flat, loaded = np.empty(0, dtype), (0, 0)
    if amplitudes is not None:
        loaded = (amplitudes.shape[0] if amplitudes.dim() == 3 else 1, amplitudes.shape[-2])
        flat = _pairs(amplitudes)
    sets = next((n for n in (w.shape[0], d.shape[0], loaded[0] or 1) if n != 1), 1)
    batch = next((n for n in (d.shape[1], loaded[1] or 1) if n != 1), 1)
    if w.shape[0] != sets:
        w = np.broadcast_to(w, (sets, w.shape[1]))
    if d.shape[1] != batch:
        d = np.broadcast_to(d, (d.shape[0], batch, d.shape[2]))
    if amplitudes is not None and 0 in amplitudes.shape:
        sets, batch = sets * min(1, loaded[0]), batch * min(1, loaded[1])
    examples = Batch(sets, batch, what.uses_data, *loaded)
    return _Inputs(what, examples, np.ascontiguousarray(d), np.ascontiguousarray(w), flat)


def _owned(weights: Tensor) -> Any:
    """A copy: weights are few, and `numpy()` would pin a parameter's storage, which FSDP frees between uses."""
    return weights.detach().clone(memory_format=torch.contiguous_format).numpy()


def _pairs(states: Tensor) -> Any:
    return torch.view_as_real(states.detach().resolve_conj().contiguous()).numpy().reshape(-1)


def _forward(inputs: _Inputs, *, training: bool, squeeze: bool = False) -> tuple[Tensor, compiled.Tape | None]:
    """Compiled: (result, what `_backward` may use again)."""
    what, batch = inputs.what, inputs.batch
    if batch.examples == 0 or what.width == 0:
        pairs = 2 if what.measurement is None else 1
        values, tape = np.zeros(batch.examples * what.width * pairs, inputs.weights.dtype), None
    else:
        values, tape = compiled.forward(*inputs, training=training)
    shape = (batch.batch, what.width) if squeeze and batch.sets == 1 else (batch.sets, batch.batch, what.width)
    if what.measurement is None:
        return torch.view_as_complex(torch.from_numpy(values.reshape(*shape, 2))), tape
    return torch.from_numpy(values.reshape(shape)), tape


def _backward(
    inputs: _Inputs,
    given: tuple[Tensor | None, Tensor | None, Tensor | None],
    tape: compiled.Tape | None,
    cotangents: Tensor,
    *,
    for_amplitudes: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Compiled: gradients for the inputs that were given, in their shapes; for amplitudes only where asked for."""
    data, weights, amplitudes = given
    if inputs.batch.examples == 0 or inputs.what.width == 0:
        return tuple(None if t is None else torch.zeros_like(t) for t in given)  # type: ignore[return-value]
    g = _pairs(cotangents) if cotangents.is_complex() else cotangents.contiguous().numpy().reshape(-1)
    for_data, for_weights, states = compiled.backward(
        *inputs, tape, g, for_amplitudes=for_amplitudes and amplitudes is not None
    )
    gradient = None
    if amplitudes is not None and for_amplitudes:
        pairs = states.reshape(inputs.batch.sets, inputs.batch.batch, -1, 2)
        gradient = _in_shape(pairs.view(np.result_type(pairs, np.complex64))[..., 0], amplitudes)
    return (
        None if data is None else _in_shape(for_data, data),
        None if weights is None else _in_shape(for_weights, weights),
        gradient,
    )


def _in_shape(gradient: Any, given: Tensor) -> Tensor:
    """A NumPy array as a tensor in the given shape, summed over what was broadcast."""
    if gradient.size == given.numel():
        return torch.from_numpy(gradient.reshape(given.shape))
    shape = given.shape if given.dim() == gradient.ndim else (1, *given.shape)
    return torch.from_numpy(gradient).sum_to_size(shape).view(given.shape)


class _Simulate(torch.autograd.Function):
    """Eager mode."""

    @staticmethod
    def forward(
        ctx: Any,
        what: Simulation,
        squeeze: bool,
        data: Tensor | None,
        weights: Tensor | None,
        amplitudes: Tensor | None,
    ) -> Tensor:
        ctx.inputs = _arrays(what, data, weights, amplitudes)
        result, ctx.tape = _forward(ctx.inputs, training=True, squeeze=squeeze)
        ctx.save_for_backward(data, weights, amplitudes)
        return result

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        given, needed = ctx.saved_tensors, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # a second derivative is wanted: the reference has it
            what = ctx.inputs.what
            with torch.autocast("cpu", enabled=False):
                d, w, a = _shaped(given[0], given[1], given[2], _precision(*given))
                result = reference.simulate(what.program, what.measurement, d, w, a).view(cotangents[0].shape)
            wanted = [t for t, need in zip(given, needed, strict=True) if need]
            grads = iter(torch.autograd.grad((result,), wanted, cotangents, create_graph=True, allow_unused=True))
            return None, None, *(next(grads) if need else None for need in needed)
        tape, ctx.tape = ctx.tape, None  # let go of large states at once; a second backward pass simulates again
        return None, None, *_backward(ctx.inputs, given, tape, cotangents[0], for_amplitudes=needed[2])


@torch.library.custom_op("qcascade::simulate", mutates_args=())
def _operator(program: str, measured: str, data: Tensor, weights: Tensor, amplitudes: Tensor | None) -> Tensor:
    if data.device.type != "cpu":
        return reference.simulate(program_of(program), measurement_of(measured), data, weights, amplitudes).clone()
    what = simulation(program_of(program), measurement_of(measured))
    _fit(what.program, _form(data), _form(weights), _form(amplitudes))
    return _forward(_arrays(what, data, weights, amplitudes), training=False)[0]


@_operator.register_fake
def _(program: str, measured: str, data: Tensor, weights: Tensor, amplitudes: Tensor | None) -> Tensor:
    measurement = measurement_of(measured)
    width = len(measurement.paulis) if isinstance(measurement, Expectations) else 2 ** program_of(program).qubits
    dtype = weights.dtype if measurement is not None else weights.dtype.to_complex()
    return data.new_empty((weights.shape[0], data.shape[1], width), dtype=dtype)


@torch.library.custom_op("qcascade::simulate_backward", mutates_args=())
def _operator_backward(
    program: str, measured: str, data: Tensor, weights: Tensor, amplitudes: Tensor | None, cotangents: Tensor
) -> list[Tensor]:
    lowered, measurement = program_of(program), measurement_of(measured)
    if data.device.type != "cpu":
        inputs = [t.detach().requires_grad_() for t in (data, weights, amplitudes) if t is not None]
        loaded = inputs[2] if amplitudes is not None else None
        with torch.enable_grad():
            result = reference.simulate(lowered, measurement, inputs[0], inputs[1], loaded)
        found = torch.autograd.grad(result, inputs, cotangents, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)]
    arrays = _arrays(simulation(lowered, measurement), data, weights, amplitudes)
    gradients = _backward(arrays, (data, weights, amplitudes), None, cotangents, for_amplitudes=True)
    return [g for g in gradients if g is not None]


@_operator_backward.register_fake
def _(
    program: str, measured: str, data: Tensor, weights: Tensor, amplitudes: Tensor | None, cotangents: Tensor
) -> list[Tensor]:
    return [torch.empty_like(t) for t in (data, weights, amplitudes) if t is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.program, ctx.measured, *tensors = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, cotangents: Tensor) -> Any:
    data, weights, amplitudes = ctx.saved_tensors
    run = _TransformedBackward.apply if _transformed() else _operator_backward
    gradients = run(ctx.program, ctx.measured, data, weights, amplitudes, cotangents)  # type: ignore[no-untyped-call]
    return None, None, gradients[0], gradients[1], gradients[2] if amplitudes is not None else None


_operator.register_autograd(_differentiate, setup_context=_save)


def _folded(size: int, tensors: tuple[Any, ...], places: tuple[Any, ...]) -> list[Any]:
    """Inputs of a vmapped call [sets, …] with the mapped dimension folded into the sets."""
    moved = [
        None if t is None else t.unsqueeze(0) if place is None else t.movedim(place, 0)
        for t, place in zip(tensors, places, strict=True)
    ]
    sets = max(t.shape[1] for t in moved if t is not None)
    return [None if t is None else t.expand(size, sets, *t.shape[2:]).flatten(0, 1) for t in moved]


def _mapped(info: Any, in_dims: Any, program: str, measured: str, *tensors: Any) -> tuple[Tensor, int]:
    result = _Transformed.apply(program, measured, *_folded(info.batch_size, tensors, in_dims[2:]))  # type: ignore[no-untyped-call]
    return result.unflatten(0, (info.batch_size, -1)), 0


def _mapped_backward(
    info: Any, in_dims: Any, program: str, measured: str, *tensors: Any
) -> tuple[list[Tensor], list[int]]:
    inputs = _folded(info.batch_size, tensors, in_dims[2:])
    run = _TransformedBackward.apply if _transformed() else _operator_backward
    gradients = run(program, measured, *inputs)  # type: ignore[no-untyped-call]
    given = [(t, place) for t, place in zip(tensors[:3], in_dims[2:5], strict=True) if t is not None]
    results = []
    for gradient, (tensor, place) in zip(gradients, given, strict=True):
        parts = gradient.unflatten(0, (info.batch_size, -1))
        shape = tensor.shape if place is None else tensor.movedim(place, 0).shape[1:]
        results.append(parts.sum_to_size(info.batch_size, *shape))
    return results, [0] * len(results)


_operator.register_vmap(_mapped)
_operator_backward.register_vmap(_mapped_backward)


class _Transformed(torch.autograd.Function):
    """The operator under torch.func's transforms, which take autograd functions only in this form."""

    @staticmethod
    def forward(program: str, measured: str, data: Tensor, weights: Tensor, amplitudes: Tensor | None) -> Tensor:
        result: Tensor = torch.ops.qcascade.simulate(program, measured, data, weights, amplitudes)
        return result

    setup_context = staticmethod(_save)
    backward = staticmethod(_differentiate)
    vmap = staticmethod(_mapped)


class _TransformedBackward(torch.autograd.Function):
    """The same for its gradients, which have no further derivative."""

    @staticmethod
    def forward(program: str, measured: str, *tensors: Any) -> tuple[Tensor, ...]:
        return tuple(torch.ops.qcascade.simulate_backward(program, measured, *tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise ExecutionError(
            "second derivatives of circuits are available in plain eager mode (torch.autograd.grad with create_graph=True), "
            "not under torch.func."
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        results, places = _mapped_backward(info, in_dims, *inputs)
        return tuple(results), tuple(places)


@register_flop_formula([torch.ops.qcascade.simulate])
def _flops(program: str, measured: str, data: Any, weights: Any, amplitudes: Any, *args: Any, **kwargs: Any) -> int:
    examples = int(weights[0]) * int(data[1])
    return examples * flops(program_of(program), measurement_of(measured), loaded=amplitudes is not None)


@register_flop_formula([torch.ops.qcascade.simulate_backward])
def _flops_backward(
    program: str, measured: str, data: Any, weights: Any, amplitudes: Any, *args: Any, **kwargs: Any
) -> int:
    return 4 * _flops(program, measured, data, weights, amplitudes)


def flops(program: Program, measurement: Measurement | None, *, loaded: bool) -> int:
    """Floating-point operations of one forward simulation; a backward pass does about four times as many.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from qcascade.circuits.template import CircuitTemplate
        >>> from qcascade.engine.program import lower
        >>> flops(lower(CircuitTemplate(Circuit(2).Ry(0.1, 0).CX(0, 1).Rx(0.2, 1), (), ())), None, loaded=True)
        80
    """
    plan = schedule(program, measurement, loaded, False)
    size = 2**program.qubits
    kinds = np.bincount(plan.gates[:, 2], minlength=3)
    together = plan.sweeps[plan.sweeps[:, 0] == ROTATE]
    kinds[2] -= (together[:, 2] - together[:, 1]).sum()
    total = size * (14 * kinds[0] + 6 * kinds[1] + 6 * kinds[2] + 12 * len(together))
    total += 3 * size * len(plan.terms) // 2
    if plan.groups:
        total += size * (7 * len(plan.bases) + plan.groups * (3 + program.qubits))
    return int(total)
