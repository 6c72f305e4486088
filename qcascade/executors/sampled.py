"""Circuits on an executor as differentiable torch operations.

Angles are functions of data, weights and loaded amplitudes that torch differentiates (`AngleMap`, `loading_angles`);
values are differentiated in the angles by running circuits again:

- "shift": ∂f/∂a = [f(a + π/2) − f(a − π/2)] / 2 for every angle, exact (Mitarai et al. 2018; Schuld et al. 2019);
- "spsa": Δ drawn from {−1, 1}^A, ∂f/∂a ≈ [f(a + cΔ) − f(a − cΔ)] / 2c · Δ, averaged over samples (Spall 1992).

All circuits of a backward pass leave in one submission, or in as few as memory allows. Angles that depend on nothing
that needs a gradient are not shifted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.loading import loading_angles
from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import Program, simulate, watched
from qcascade.errors import ExecutionError
from qcascade.executors.base import Executor, Job, Values
from qcascade.executors.placed import PlacedExecutor
from qcascade.executors.settings import settings_of, width_of

_ENTRIES = 2**25  # numbers of a submission's angles and counts


def measured(
    executor: Executor | None,
    template: CircuitTemplate,
    program: Program,
    *,
    data: Tensor | None = None,
    weights: Tensor | None = None,
    amplitudes: Tensor | None = None,
    squeeze: bool = False,
) -> Tensor:
    """What a template measures, by an executor or, where that is None, simulated exactly.

    Args:
        executor: Where to run; None for the engine.
        template: What to run.
        program: The same lowered, for the engine.
        data: As for `engine.simulate`.
        weights: Likewise.
        amplitudes: Likewise.
        squeeze: Likewise.

    Returns:
        [S, B, K], differentiable.

    Raises:
        ExecutionError: A shape does not fit, or samples are asked for while torch exports, compiles or transforms.
    """
    if executor is None:
        return simulate(
            program, template.measurement, data=data, weights=weights, amplitudes=amplitudes, squeeze=squeeze
        )
    if executor.adjoint:
        _check_plain(executor)
        return executor.simulate(
            program, template.measurement, data=data, weights=weights, amplitudes=amplitudes, squeeze=squeeze
        )
    if isinstance(executor, PlacedExecutor):
        return executor.measured(template, program, data=data, weights=weights, amplitudes=amplitudes, squeeze=squeeze)
    values = sampled(executor, template, data=data, weights=weights, amplitudes=amplitudes)
    return values[0] if squeeze and values.shape[0] == 1 else values


def sampled(
    executor: Executor,
    template: CircuitTemplate,
    *,
    data: Tensor | None = None,
    weights: Tensor | None = None,
    amplitudes: Tensor | None = None,
) -> Tensor:
    """Estimates [S, B, K] by an executor, in the shapes of `engine.simulate`; gradients flow to whatever asks for them.

    Amplitudes are loaded by gates, which know only their direction: their gradients are tangential, which is what
    comes through a normalisation upstream.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from sympy import Symbol, pi
        >>> from qcascade.executors.shots import ShotsExecutor
        >>> template = CircuitTemplate(Circuit(1).Rx(Symbol("w") / pi, 0), (), ("w",))
        >>> sampled(ShotsExecutor(100), template, weights=torch.tensor([torch.pi]))
        tensor([[[0., 1.]]])
    """
    _check_plain(executor)
    circuit = executor.prepare(template)
    given = [t for t in (data, weights, amplitudes) if t is not None]
    parts = _parts(circuit, template, data, weights, amplitudes)
    sets, batch = (_common([part.shape[place] for part in parts]) for place in (0, 1))
    values = torch.cat([part.expand(sets, batch, -1) for part in parts], -1)
    angles = circuit.angles(values).flatten(0, 1)
    depends = np.repeat([part.requires_grad for part in parts], [part.shape[-1] for part in parts])
    result: Tensor = _Sampled.apply(executor, template, _moved(circuit, depends), angles)  # type: ignore[no-untyped-call]
    double = any(t.dtype in (torch.float64, torch.complex128) for t in given)
    result = result.to(torch.float64 if double else torch.float32)
    return (result.to(given[0].device) if given else result).reshape(sets, batch, result.shape[-1])


def gradient_circuits(
    circuit: AngleCircuit,
    *,
    data: bool = True,
    weights: bool = True,
    amplitudes: bool = True,
    gradients: str = "shift",
    spsa_samples: int = 1,
) -> int:
    """Circuits that a backward pass runs for one binding, mitigation left out.

    Args:
        circuit: The template's angle circuit, as built or compiled for a device.
        data: Whether the data needs gradients.
        weights: Whether the weights do.
        amplitudes: Whether the loaded amplitudes do.
        gradients: "shift" or "spsa".
        spsa_samples: Perturbations averaged, for "spsa".

    Example:
        >>> from pytket.circuit import Circuit
        >>> from sympy import Symbol
        >>> from qcascade.circuits.angles import angle_circuit
        >>> template = CircuitTemplate(Circuit(1).Ry(Symbol("x"), 0).Rz(Symbol("w"), 0), ("x",), ("w",))
        >>> gradient_circuits(angle_circuit(template)), gradient_circuits(angle_circuit(template), data=False)
        (4, 2)
    """
    depends = np.repeat([data, weights, amplitudes], [circuit.data, circuit.weights, circuit.loading])
    moved = len(_moved(circuit, depends))
    settings = len(settings_of(circuit.measurement, len(circuit.measured)))
    return settings * (2 * moved if gradients == "shift" else 2 * spsa_samples * bool(moved))


def _check_plain(executor: Executor) -> None:
    if watched():
        raise ExecutionError(
            f"the {executor.name} executor runs circuits outside of torch, so that torch cannot export, compile or "
            "transform them; call use('statevector') first."
        )


def _parts(
    circuit: AngleCircuit,
    template: CircuitTemplate,
    data: Tensor | None,
    weights: Tensor | None,
    amplitudes: Tensor | None,
) -> list[Tensor]:
    """Data, weights and loading angles, each [1|S, 1|B, ·] in float64 on the CPU."""
    parts = []
    for name, values, width in (("data", data, circuit.data), ("weights", weights, circuit.weights)):
        least = 2 if name == "data" else 1
        if values is None:
            if width:
                raise ExecutionError(f"`{name}` is missing; the circuit has {width} symbols there.")
            values = torch.zeros(1, 0) if least == 2 else torch.zeros(0)
        if values.dim() not in (least, least + 1) or values.shape[-1] != width or values.is_complex():
            form = ("[batch, " if least == 2 else "[") + f"{width}]"
            raise ExecutionError(
                f"`{name}` is {values.dtype} {list(values.shape)}; floats {form} are needed, or the same with sets in front."
            )
        values = values.to("cpu", torch.float64)
        values = values if values.dim() > least else values[None]
        parts.append(values if least == 2 else values[:, None])
    if (amplitudes is None) == template.amplitudes:
        raise ExecutionError(
            "`amplitudes` are missing; the circuit starts from loaded amplitudes."
            if template.amplitudes
            else "`amplitudes` were given; the circuit starts from |0…0⟩."
        )
    if amplitudes is None:
        return [*parts, torch.zeros(1, 1, 0, dtype=torch.float64)]
    if amplitudes.dim() not in (2, 3) or amplitudes.shape[-1] != 2**template.qubits:
        raise ExecutionError(
            f"`amplitudes` has shape {list(amplitudes.shape)}; [batch, {2**template.qubits}] is needed, or the same with "
            "sets in front."
        )
    real = circuit.real_loading
    wide = amplitudes.to("cpu", torch.float64 if real and not amplitudes.is_complex() else torch.complex128)
    loading = loading_angles(wide, real=real)
    return [*parts, loading if loading.dim() == 3 else loading[None]]


def _common(sizes: list[int]) -> int:
    """The one size that is not 1, or 1."""
    found = {size for size in sizes if size != 1}
    if len(found) > 1:
        raise ExecutionError(f"inputs have {' and '.join(map(str, sizes))} sets or examples; give one number, or 1.")
    return found.pop() if found else 1


def _moved(circuit: AngleCircuit, depends: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The angles that depend on a symbol for which `depends` holds."""
    moved = (circuit.angles.coefficients[:, depends] != 0).any(1)
    needed = {name for name, need in zip(circuit.angles.symbols, depends, strict=True) if need}
    for factors, expression in circuit.angles.curved:
        if needed & {str(symbol) for symbol in expression.free_symbols}:
            moved |= factors != 0
    return np.flatnonzero(moved)


class _Sampled(torch.autograd.Function):
    """Values [N, K] of angles [N, A], both float64."""

    @staticmethod
    def forward(
        ctx: Any, executor: Executor, template: CircuitTemplate, moved: NDArray[np.int64], angles: Tensor
    ) -> Tensor:
        ctx.executor, ctx.template, ctx.moved, ctx.ahead = executor, template, moved, None
        ctx.save_for_backward(angles)
        if executor.gradients_ahead and ctx.needs_input_grad[3] and len(moved) and len(angles):
            count = 2 * len(angles) * (len(moved) if executor.gradients == "shift" else executor.spsa_samples)
            if count * (angles.shape[1] + 2 ** min(template.qubits, 16)) <= _ENTRIES:
                contracted: list[_Contracted] = []

                def later() -> Job:
                    points, rule = _RULES[executor.gradients](executor, angles.detach().numpy(), moved)
                    contracted.append(rule)
                    return Job(template, points)

                values, ends = executor.run_ahead(Job(template, angles.detach().numpy()), later)
                ctx.ahead = (ends, contracted[0])
                return torch.from_numpy(values.values)
        return torch.from_numpy(_values(executor, template, angles.detach().numpy(), "values"))

    @staticmethod
    def backward(ctx: Any, *found: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise ExecutionError(
                f"the {ctx.executor.name} executor has no second derivatives (create_graph=True); use('statevector') has."
            )
        (cotangents,) = found
        (angles,) = ctx.saved_tensors
        if ctx.ahead is not None:
            ends, contracted = ctx.ahead
            return None, None, None, torch.from_numpy(contracted(ends().values, cotangents.numpy()))
        rule = _shifted if ctx.executor.gradients == "shift" else _perturbed
        gradient = rule(ctx.executor, ctx.template, angles.numpy(), ctx.moved, cotangents.numpy())
        return None, None, None, torch.from_numpy(gradient)


def _values(executor: Executor, template: CircuitTemplate, angles: Values, purpose: str) -> Values:
    """Values [N, K], in as few submissions as memory allows."""
    rows = max(1, _ENTRIES // max(angles.shape[1], 2 ** min(template.qubits, 16)))
    parts = [
        executor.run([Job(template, angles[start : start + rows])], purpose=purpose)[0].values
        for start in range(0, len(angles), rows)
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty((0, width_of(template.measurement, template.qubits)))


def _shifted(
    executor: Executor, template: CircuitTemplate, angles: Values, moved: NDArray[np.int64], cotangents: Values
) -> Values:
    """The gradient [N, A] by two-term shifts, contracted with the cotangents [N, K]."""
    gradient = np.zeros_like(angles)
    count = len(moved)
    some = max(1, _ENTRIES // max(1, 2 * count * angles.shape[1]))  # examples whose shifted angles are held at once
    for start in range(0, len(angles) if count else 0, some):
        place = slice(start, start + some)
        points, contracted = _shifts(executor, angles[place], moved)
        gradient[place] = contracted(_values(executor, template, points, "gradients"), cotangents[place])
    return gradient


def _perturbed(
    executor: Executor, template: CircuitTemplate, angles: Values, moved: NDArray[np.int64], cotangents: Values
) -> Values:
    """The gradient [N, A] by simultaneous perturbation, contracted with the cotangents [N, K]."""
    if not len(moved) or not len(angles):
        return np.zeros_like(angles)
    points, contracted = _perturbations(executor, angles, moved)
    return contracted(_values(executor, template, points, "gradients"), cotangents)


_Contracted: TypeAlias = Callable[[Values, Values], Values]  # (values at the points, cotangents) to the gradient


def _shifts(executor: Executor, angles: Values, moved: NDArray[np.int64]) -> tuple[Values, _Contracted]:
    """Angles [N · 2 · moved, A] at which to run, and what makes the gradient [N, A] of the values there."""
    count = len(moved)
    shifted = np.repeat(angles[:, None], 2 * count, 1).reshape(-1, 2, count, angles.shape[1])
    shifted[:, 0, np.arange(count), moved] += math.pi / 2
    shifted[:, 1, np.arange(count), moved] -= math.pi / 2

    def contracted(found: Values, cotangents: Values) -> Values:
        gradient = np.zeros_like(angles)
        ends = found.reshape(len(angles), 2, count, -1)
        gradient[:, moved] = np.einsum("nak,nk->na", (ends[:, 0] - ends[:, 1]) / 2, cotangents)
        return gradient

    return shifted.reshape(-1, angles.shape[1]), contracted


def _perturbations(executor: Executor, angles: Values, moved: NDArray[np.int64]) -> tuple[Values, _Contracted]:
    """Likewise [2 · samples · N, A]."""
    step, samples = executor.spsa_step, executor.spsa_samples
    signs = executor.signs(angles, samples, len(moved))
    both = np.tile(angles, (2, samples, 1, 1))
    both[0][..., moved] += step * signs
    both[1][..., moved] -= step * signs

    def contracted(found: Values, cotangents: Values) -> Values:
        gradient = np.zeros_like(angles)
        ends = found.reshape(2, samples, len(angles), -1)
        slope = np.einsum("snk,nk->sn", (ends[0] - ends[1]) / (2 * step), cotangents)
        gradient[:, moved] = (slope[..., None] * signs).mean(0)
        return gradient

    return both.reshape(-1, angles.shape[1]), contracted


_RULES = {"shift": _shifts, "spsa": _perturbations}
