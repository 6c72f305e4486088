"""Phases of quantum signal processing for an odd polynomial, and the polynomial for 1/x.

`inverse_polynomial` is (1 − T_t(z)/T_t(z₀))/x with z = (1 + a² − 2x²)/(1 − a²), z₀ = z(0), a = 1/κ: of all odd polynomials of its degree
2t − 1 the one with the least |x p(x) − 1| on a ≤ |x| ≤ 1, which is 1/T_t(z₀) = 1/cosh(2t artanh a) (Gribling, Kerenidis and Szilágyi
2021, arXiv 2109.04248, Corollary 8, by way of public implementations; the error and the degree, at most κ ln(2/ε) + 1, follow from the
formula). `symmetric_phases` solves for symmetric phases φ_0 … φ_d with
Im⟨0|e^{iφ_0 Z} Π_j W(x) e^{iφ_j Z}|0⟩ = f(x), W(x) = exp(i arccos(x) X), by Newton's method from φ = c/2 (Dong, Lin, Ni and Wang 2023,
arXiv 2307.12468): the map from reduced phases to Chebyshev coefficients and its Jacobian are evaluated at the Chebyshev nodes.
Memory: 16 d² bytes. Refused: polynomials that reach 1 in absolute value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import fft

from qcascade.errors import ExecutionError, PlanError

Vector = NDArray[np.float64]
_ROUNDS, _TOLERANCE = 40, 1e-12
_PEAK = 0.9  # of the scaled polynomial: Newton's method is slow close to 1


@dataclass(frozen=True, slots=True, eq=False)
class InversePolynomial:
    """scale · 1/x on 1/κ ≤ |x| ≤ 1, by the coefficients of T₁, T₃, …, bounded by `_PEAK` on [−1, 1]."""

    coefficients: Vector
    scale: float
    error: float  # the largest |x p(x)/scale − 1| on 1/κ ≤ x ≤ 1: relative to 1/x

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
    """The polynomial of the least degree whose error relative to 1/x is at most `precision`.

    Raises:
        PlanError: κ below 1 or a precision outside (0, 1).

    Example:
        >>> polynomial = inverse_polynomial(4.0, 1e-3)
        >>> polynomial.degree, bool(abs(polynomial(np.array([0.5]))[0] / polynomial.scale - 2) < 2e-3)
        (29, True)
    """
    if not (kappa >= 1 and 0 < precision < 1):
        raise PlanError(f"κ is {kappa} and precision {precision}; κ ≥ 1 and a precision between 0 and 1 are needed.")
    growth = 2 * math.atanh(min(1 / kappa, 1 - 1e-12))  # arccosh z₀
    terms = math.ceil(math.acosh(1 / precision) / growth)
    angles = math.pi * (2 * np.arange(terms) + 1) / (4 * terms)  # of the zeros of T_{2t} above 0
    series = np.asarray(fft.dct(_inverse(np.cos(angles), growth, terms), type=4)) / terms
    peak = float(_inverse(np.cos(np.linspace(0, math.pi / 2, 40 * terms + 1)[:-1]), growth, terms).max())
    scale = _PEAK / peak
    return InversePolynomial(series * scale, scale, 1 / math.cosh(terms * growth))


def _inverse(x: Vector, growth: float, terms: int) -> Vector:
    """(1 − T_t(z)/T_t(z₀))/x for 0 < x ≤ 1."""
    a = math.tanh(growth / 2)
    z = 1 + 2 * (a**2 - x**2) / (1 - a**2)
    oscillating = np.cos(terms * np.arccos(np.clip(z, -1, 1)))
    growing = np.cosh(terms * np.arccosh(np.maximum(z, 1)))
    return np.asarray((1 - np.where(z > 1, growing, oscillating) / math.cosh(terms * growth)) / x)


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

    The full phases are a palindrome: the column to the right of phase k is W times the row to the left of phase d − k, and the
    derivatives for phases k and d − k are the same.
    """
    rows = _rows(np.concatenate([reduced, reduced[::-1]]), nodes)
    s = 1j * np.sqrt(1 - nodes**2)
    derivative = np.empty((len(reduced), len(nodes)))
    for k in range(len(reduced)):
        left, right = rows[k], rows[len(rows) - 2 - k]
        columns = right[:, 0] * nodes + right[:, 1] * s, right[:, 0] * s + right[:, 1] * nodes
        derivative[k] = 2 * (left[:, 0] * columns[0] - left[:, 1] * columns[1]).real  # Im of i times it
    return rows[-1][:, 0].imag, derivative.T
