"""Polynomial losses and plain gradient descent on them: what the Carleman lift is made of and compared with.

In: symmetric coefficient tensors c_k of L(θ) = Σ_k c_k[θ, …, θ], k = 0 … d, float64, for n parameters. Out: L, its gradient and
Hessian, and the step θ ↦ θ − η∇L(θ) as sparse matrices P_j [n, nʲ] with step(θ) = Σ_j P_j θ^{⊗j}. Tensors that are not
symmetric are made so, which leaves L as it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from qcascade.errors import PlanError

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PolynomialLoss:
    """A polynomial in n parameters by its symmetric coefficient tensors; build it with `polynomial_loss`."""

    coefficients: tuple[Vector, ...]

    @property
    def parameters(self) -> int:
        """Their number n."""
        return len(self.coefficients[1])

    @property
    def degree(self) -> int:
        """The highest power, d."""
        return len(self.coefficients) - 1

    def value(self, point: ArrayLike) -> float:
        """L(θ)."""
        return float(sum(float(_contract(c, _vector(point), c.ndim)) for c in self.coefficients))

    def gradient(self, point: ArrayLike) -> Vector:
        """∇L(θ), [n]."""
        theta = _vector(point)
        total = np.zeros(self.parameters)
        for c in self.coefficients[1:]:
            total += c.ndim * _contract(c, theta, c.ndim - 1)
        return total

    def hessian(self, point: ArrayLike) -> Vector:
        """∇²L(θ), [n, n]."""
        theta = _vector(point)
        total = np.zeros((self.parameters, self.parameters))
        for c in self.coefficients[2:]:
            total += c.ndim * (c.ndim - 1) * _contract(c, theta, c.ndim - 2)
        return total

    def flow(self) -> tuple[sparse.csr_array, ...]:
        """F_j [n, nʲ] of the gradient flow θ' = −∇L(θ) = Σ_j F_j θ^{⊗j}, j = 0 … d − 1."""
        n = self.parameters
        return tuple(sparse.csr_array(-c.ndim * c.reshape(n, -1)) for c in self.coefficients[1:])

    def step(self, rate: float) -> tuple[sparse.csr_array, ...]:
        """P_j [n, nʲ] of one step of gradient descent of learning rate `rate`."""
        parts = [rate * f for f in self.flow()]
        parts += [sparse.csr_array((self.parameters, self.parameters))] if len(parts) == 1 else []
        parts[1] = parts[1] + sparse.eye_array(self.parameters, format="csr")
        return tuple(sparse.csr_array(p) for p in parts)

    def rescaled(self, unit: float) -> PolynomialLoss:
        """The loss whose gradient descent is ours in units of `unit`: the step of u = θ/unit at the same rate.

        Tensor powers of |u| < 1 shrink (Costa et al. 2023, arXiv 2312.09518, rescale for this reason).
        """
        if not unit > 0:
            raise PlanError(f"unit is {unit}; a positive length is needed.")
        return PolynomialLoss(tuple(c * unit ** (c.ndim - 2) for c in self.coefficients))


def polynomial_loss(*coefficients: ArrayLike) -> PolynomialLoss:
    """L(θ) = c₀ + c₁·θ + c₂[θ, θ] + …; each tensor is made symmetric.

    Raises:
        PlanError: Fewer than a linear and a quadratic tensor, or shapes that do not fit.

    Example:
        >>> loss = polynomial_loss(0.0, [0.0, 0.0], [[0.5, 0.0], [0.0, 1.0]])  # ½x² + y²
        >>> loss.gradient([1.0, 1.0])
        array([1., 2.])
    """
    tensors = [np.asarray(c, dtype=np.float64) for c in coefficients]
    if len(tensors) < 3:
        raise PlanError(f"{len(tensors)} coefficient tensors were given; constant, linear and quadratic are needed.")
    n = tensors[1].shape[0] if tensors[1].ndim == 1 else 0
    for k, tensor in enumerate(tensors):
        if tensor.shape != (n,) * k or not n:
            raise PlanError(f"coefficient tensor {k} has shape {tensor.shape}; {k} indices of one length are needed.")
    return PolynomialLoss(tuple(_symmetric(t) for t in tensors))


def descend(loss: PolynomialLoss, start: ArrayLike, rate: float, steps: int) -> Vector:
    """Plain gradient descent, [steps + 1, n], the start included.

    Example:
        >>> descend(polynomial_loss(0.0, [0.0], [[0.5]]), [1.0], 0.5, 2)[:, 0]
        array([1.  , 0.5 , 0.25])
    """
    path = [_vector(start)]
    for _ in range(steps):
        path.append(path[-1] - rate * loss.gradient(path[-1]))
    return np.stack(path)


def _vector(point: ArrayLike) -> Vector:
    return np.asarray(point, dtype=np.float64)


def _contract(tensor: Vector, theta: Vector, times: int) -> Vector:
    for _ in range(times):
        tensor = tensor @ theta
    return np.asarray(tensor)


def _symmetric(tensor: Vector) -> Vector:
    orders: Sequence[tuple[int, ...]] = list(itertools.permutations(range(tensor.ndim)))
    return np.asarray(sum(np.transpose(tensor, o) for o in orders) / math.factorial(tensor.ndim))
