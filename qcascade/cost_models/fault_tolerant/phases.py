"""Phases of quantum signal processing for an odd polynomial, and the polynomial for 1/x.

`inverse_polynomial` is Lemma 14 of Childs, Kothari and Somma 2017 (arXiv 1511.02306): a Chebyshev series of degree 2D − 1 that is
ε-close to 1/x where 1/κ ≤ |x| ≤ 1. `symmetric_phases` solves for symmetric phases φ_0 … φ_d with
Im⟨0|e^{iφ_0 Z} Π_j W(x) e^{iφ_j Z}|0⟩ = f(x), W(x) = exp(i arccos(x) X), by Newton's method from φ = c/2 (Dong, Lin, Ni and Wang 2023,
arXiv 2307.12468): the map from reduced phases to Chebyshev coefficients and its Jacobian are evaluated at the Chebyshev nodes.
Refused: polynomials that reach 1 in absolute value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import stats

from qcascade.errors import ExecutionError, PlanError

Vector = NDArray[np.float64]
_ROUNDS, _TOLERANCE = 40, 1e-12
_PEAK = 0.9  # of the scaled polynomial: Newton's method is slow close to 1


@dataclass(frozen=True, slots=True, eq=False)
class InversePolynomial:
    """scale · 1/x on 1/κ ≤ |x| ≤ 1, by the coefficients of T₁, T₃, …, bounded by `_PEAK` on [−1, 1]."""

    coefficients: Vector
    scale: float
    error: float  # largest |p(x)/scale − 1/x| · (1/κ) found on a fine grid of 1/κ ≤ x ≤ 1: relative to the largest 1/x

    @property
    def degree(self) -> int:
        """Queries to the block encoding."""
        return 2 * len(self.coefficients) - 1

    def __call__(self, x: Vector) -> Vector:
        """p(x)."""
        return odd_series(self.coefficients, x)


def odd_series(coefficients: Vector, x: Vector) -> Vector:
    """Σ_j c_j T_{2j+1}(x)."""
    full = np.zeros(2 * len(coefficients))
    full[1::2] = coefficients
    return np.asarray(chebyshev.chebval(x, full))


def inverse_polynomial(kappa: float, precision: float) -> InversePolynomial:
    """The polynomial for a condition number and a precision relative to κ.

    b = ⌈κ² ln(κ/ε)⌉, D = ⌈√(b ln(4b/ε))⌉ with ε = precision · κ, as 1/x reaches κ.

    Raises:
        PlanError: κ below 1 or a precision outside (0, 1).

    Example:
        >>> polynomial = inverse_polynomial(4.0, 1e-3)
        >>> bool(abs(polynomial(np.array([0.5]))[0] / polynomial.scale - 2) < 4e-3)
        True
    """
    if not (kappa >= 1 and 0 < precision < 1):
        raise PlanError(f"κ is {kappa} and precision {precision}; κ ≥ 1 and a precision between 0 and 1 are needed.")
    error = precision * kappa
    b = math.ceil(kappa**2 * math.log(max(kappa / error, math.e)))
    terms = min(math.ceil(math.sqrt(b * math.log(4 * b / error))), b)
    j = np.arange(terms)
    series = 4 * (-1.0) ** j * stats.binom.sf(b + j, 2 * b, 0.5)  # Σ_{i>j} C(2b, b+i) / 4ᵇ
    grid = np.cos(np.linspace(0, math.pi / 2, 40 * terms + 1))[:-1]
    values = odd_series(series, grid)
    inside = grid >= 1 / kappa
    found = float(np.abs(values[inside] - 1 / grid[inside]).max() / kappa) if inside.any() else 0.0
    scale = _PEAK / float(np.abs(values).max())
    return InversePolynomial(series * scale, scale, found)


def signal_values(phases: Vector, x: Vector) -> NDArray[np.complex128]:
    """⟨0|e^{iφ_0 Z} Π_j W(x) e^{iφ_j Z}|0⟩ for every x."""
    return np.asarray(_rows(phases, x)[-1][:, 0])


def symmetric_phases(coefficients: Vector) -> Vector:
    """All d + 1 phases for Σ_j c_j T_{2j+1}(x).

    Raises:
        PlanError: The polynomial reaches 1 in absolute value.
        ExecutionError: Newton's method did not converge.

    Example:
        >>> phases = symmetric_phases(np.array([0.3, 0.2]))  # 0.3 T1 + 0.2 T3
        >>> round(float(signal_values(phases, np.array([0.7])).imag[0]), 9)
        0.0644
    """
    count = len(coefficients)
    peak = float(np.abs(odd_series(coefficients, np.cos(np.linspace(0, math.pi, 40 * count + 1)))).max())
    if peak >= 1:
        raise PlanError(f"the polynomial reaches {peak:.4g}; it has to stay below 1: scale it down.")
    nodes = np.cos(math.pi * (2 * np.arange(count) + 1) / (4 * count))  # those of T_{2·count} above 0
    basis = chebyshev.chebvander(nodes, 2 * count - 1)[:, 1::2]
    target = basis @ coefficients
    reduced = coefficients[::-1] / 2  # of the outer phases first: φ_0 multiplies T_d at first order
    for _ in range(_ROUNDS):
        values, jacobian = _values_and_jacobian(reduced, nodes)
        residual = values - target
        if np.abs(residual).max() < _TOLERANCE:
            return np.concatenate([reduced, reduced[::-1]])
        reduced = reduced - np.linalg.solve(jacobian, residual)
    raise ExecutionError(f"phases did not converge in {_ROUNDS} rounds: residual {np.abs(residual).max():.2g}.")


def _rows(phases: Vector, x: Vector) -> NDArray[np.complex128]:
    """⟨0|e^{iφ_0 Z} W e^{iφ_1 Z} … up to and with every phase, [d + 1, X, 2]."""
    s = 1j * np.sqrt(1 - x**2)
    row = np.zeros((len(x), 2), dtype=np.complex128)
    row[:, 0] = 1
    found = np.empty((len(phases), len(x), 2), dtype=np.complex128)
    for k, phase in enumerate(phases):
        if k:
            row = np.stack([row[:, 0] * x + row[:, 1] * s, row[:, 0] * s + row[:, 1] * x], axis=1)
        row = row * np.exp([1j * phase, -1j * phase])
        found[k] = row
    return found


def _values_and_jacobian(reduced: Vector, nodes: Vector) -> tuple[Vector, Vector]:
    """Im P and its derivative for every reduced phase at every node.

    The full phases are a palindrome, so the columns to the right of phase k are the rows to the left of phase d − k.
    """
    phases = np.concatenate([reduced, reduced[::-1]])
    rows = _rows(phases, nodes)
    s = 1j * np.sqrt(1 - nodes**2)[None, :]
    shifted = np.empty_like(rows)  # column vectors right of phase k: W e^{iφ_{k+1}} … |0⟩
    shifted[-1] = np.array([1, 0])
    before = rows[:-1][::-1]  # of phases 0 … d−1−k
    shifted[:-1, :, 0] = before[..., 0] * nodes + before[..., 1] * s
    shifted[:-1, :, 1] = before[..., 0] * s + before[..., 1] * nodes
    derivative = (1j * (rows[..., 0] * shifted[..., 0] - rows[..., 1] * shifted[..., 1])).imag  # [d + 1, X]
    half = len(reduced)
    return rows[-1][:, 0].imag, (derivative[:half] + derivative[half:][::-1]).T
