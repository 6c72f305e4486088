"""Angle circuits: a template as what samples are taken from and shift rules act on.

What comes in: a `CircuitTemplate`. What goes out: a circuit from |0…0⟩ (amplitudes are loaded by its own gates) in which
every angle that depends on anything is a symbol of its own, of one RX, RY, RZ or ZZPhase, so that shifting it by ±π/2
gives the exact derivative; and the map from data, weights and loading angles to those angles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from pytket.circuit import Circuit, OpType
from pytket.passes import AutoRebase
from sympy import Symbol, pi
from torch import Tensor

from qcascade.circuits.loading import loading_circuit
from qcascade.circuits.template import CircuitTemplate, Measurement

_SHIFTED = {OpType.Rx, OpType.Ry, OpType.Rz, OpType.ZZPhase}  # exp(−i angle P/2): two-term shift rule
_FIXED = {OpType.CX, OpType.CZ, OpType.SWAP, OpType.H, OpType.X, OpType.Y, OpType.Z, OpType.S, OpType.Sdg, OpType.T,
          OpType.Tdg, OpType.SX, OpType.SXdg, OpType.V, OpType.Vdg, OpType.ECR, OpType.Barrier, OpType.noop}  # fmt: skip


@dataclass(frozen=True, eq=False)
class AngleMap:
    """From symbols to angles in radians: coefficients [A, S] @ symbols [S] + constants [A].

    What is not affine is in `curved`: (row factors [A], expression of the symbols), added on top.
    """

    symbols: tuple[str, ...]
    coefficients: NDArray[np.float64]
    constants: NDArray[np.float64]
    curved: tuple[tuple[NDArray[np.float64], sympy.Expr], ...] = ()

    def __call__(self, values: Tensor) -> Tensor:
        """Angles [..., A] of symbol values [..., S], differentiable."""
        matrix = torch.as_tensor(self.coefficients, dtype=values.dtype, device=values.device)
        angles = values @ matrix.T + torch.as_tensor(self.constants, dtype=values.dtype, device=values.device)
        for factors, expression in self.curved:
            extra = torch.as_tensor(
                _function(self.symbols, expression)(*values.unbind(-1)), dtype=values.dtype, device=values.device
            )
            factor = torch.as_tensor(factors, dtype=values.dtype, device=values.device)
            angles = angles + extra.unsqueeze(-1) * factor
        return angles

    def then(self, coefficients: NDArray[np.float64], constants: NDArray[np.float64]) -> AngleMap:
        """The map to coefficients [B, A] @ angles + constants [B]."""
        return AngleMap(
            self.symbols,
            coefficients @ self.coefficients,
            coefficients @ self.constants + constants,
            tuple((coefficients @ factors, expression) for factors, expression in self.curved),
        )


@dataclass(frozen=True, eq=False)
class AngleCircuit:
    """A circuit whose every variable angle is a symbol of its own.

    `circuit` has the symbols ``a0 … a(A−1)``, in radians (written ``a0 / pi``), each in one gate. `angles` takes data,
    weights and loading angles, in that order. `measured[q]` is the place in `circuit.qubits` of the template's qubit q at
    the end; the circuit has no implicit permutation.
    """

    circuit: Circuit
    angles: AngleMap
    data: int
    weights: int
    loading: int
    real_loading: bool
    measured: tuple[int, ...]
    measurement: Measurement

    def reads(self, qubits: Iterable[int]) -> list[int]:
        """Places in `circuit.qubits`, at the end, of qubits of the template."""
        return [self.measured[qubit] for qubit in qubits]


@lru_cache(maxsize=1024)
def _function(symbols: tuple[str, ...], expression: sympy.Expr) -> Callable[..., Tensor | float]:
    """The expression in torch, made once: making it takes longer than many a circuit."""
    made: Callable[..., Tensor | float] = sympy.lambdify(sympy.symbols(symbols), expression, modules="torch")
    return made


def angle_name(place: int) -> str:
    """The name of an angle circuit's symbol."""
    return f"a{place}"


def angle_circuit(template: CircuitTemplate) -> AngleCircuit:
    """The angle circuit of a template.

    Raises:
        CircuitError: The circuit cannot be decomposed.

    Example:
        >>> circuit = Circuit(2).Ry(Symbol("x") / pi, 0).CX(0, 1).Rz(2 * Symbol("w") / pi, 1)
        >>> made = angle_circuit(CircuitTemplate(circuit, ("x",), ("w",)))
        >>> made.angles(torch.tensor([0.5, 0.25]))
        tensor([0.5000, 0.5000])
    """
    body = template.gates_alone()
    if any(not _plain(c.op) for c in body.get_commands()):
        AutoRebase({OpType.CX, OpType.Rz, OpType.Ry, OpType.Rx}).apply(body)
    names: tuple[str, ...] = ()
    units = {unit: number for number, unit in enumerate(template.circuit.qubits)}
    ends = {units[end]: units[source] for source, end in body.implicit_qubit_permutation().items()}
    flat = Circuit(template.qubits)
    if template.amplitudes:
        loader, names = loading_circuit(template.qubits, real=template.real_amplitudes)
        flat.append(loader)
    for command in body.get_commands():
        if command.op.type != OpType.noop:
            flat.add_gate(command.op.type, command.op.params, [units[q] for q in command.qubits])
    symbols = (*template.data, *template.weights, *names)
    made, angles = separate_angles(flat, symbols)
    return AngleCircuit(
        made,
        angles,
        len(template.data),
        len(template.weights),
        len(names),
        template.real_amplitudes,
        tuple(ends[q] for q in range(template.qubits)),
        template.measurement,
    )


def separate_angles(circuit: Circuit, symbols: tuple[str, ...]) -> tuple[Circuit, AngleMap]:
    """The same circuit with a symbol of its own for every gate whose angle depends on a symbol, and the map to them."""
    made, rows, constants = Circuit(), list[NDArray[np.float64]](), list[float]()
    curved: list[tuple[int, sympy.Expr]] = []
    for qubit in circuit.qubits:
        made.add_qubit(qubit)
    place = {name: number for number, name in enumerate(symbols)}
    for command in circuit.get_commands():
        parameters = command.op.params
        if command.op.free_symbols():
            row, constant, rest = _affine(sympy.sympify(parameters[0]) * pi, place)
            if rest is not None:
                curved.append((len(rows), rest))
            parameters = [Symbol(angle_name(len(rows))) / pi, *parameters[1:]]
            rows.append(row)
            constants.append(constant)
        made.add_gate(command.op.type, parameters, command.args)
    coefficients = np.array(rows).reshape(len(rows), len(symbols))
    extra = tuple((np.eye(1, len(rows), number)[0], expression) for number, expression in curved)
    return made, AngleMap(symbols, coefficients, np.array(constants), extra)


def _affine(expression: sympy.Expr, place: dict[str, int]) -> tuple[NDArray[np.float64], float, sympy.Expr | None]:
    """Coefficients and constant in radians, and the whole expression instead where it is not affine."""
    row, constant = np.zeros(len(place)), 0.0
    for monomial, coefficient in sympy.expand(expression).as_coefficients_dict().items():
        free = monomial.free_symbols
        factor = monomial / next(iter(free)) if len(free) == 1 else monomial
        if factor.free_symbols:
            return np.zeros(len(place)), 0.0, expression
        value = float(coefficient * factor)
        if free:
            row[place[str(next(iter(free)))]] += value
        else:
            constant += value
    return row, constant, None


def _plain(op: object) -> bool:
    kind = op.type  # type: ignore[attr-defined]
    if op.free_symbols():  # type: ignore[attr-defined]
        return kind in _SHIFTED
    return kind in _FIXED or kind in _SHIFTED
