"""The history-state linear system of a lifted gradient descent: L Y = B, Y = (y(0), …, y(T), y(T), …, y(T)).

Block rows: y(0) = lift(θ₀); y(t+1) − M y(t) = c; then `idle` rows that copy y(T), so that a measurement of the time register finds
the end more often (Berry 2014, arXiv 1010.2745; Liu et al. 2021, arXiv 2011.03185). Y is what a quantum linear-system solver
prepares, up to its norm. Refused: systems above `MOST_DENSE` for what needs their singular values.

Condition number: with ‖M‖ ≤ 1 the triangle inequality gives ‖L‖ ≤ 2 and ‖L⁻¹‖ ≤ T + idle + 1, hence
κ ≤ 2(T + idle + 1); see `condition_bound`. A lift that is not contractive may be exponentially worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.linalg import splu

from qcascade.cost_models.fault_tolerant.carleman import Carleman
from qcascade.cost_models.fault_tolerant.polynomial import Vector
from qcascade.errors import PlanError

MOST_DENSE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The system, with what is needed to read its solution."""

    lifted: Carleman
    steps: int
    idle: int
    matrix: sparse.csr_array  # [S·N, S·N], S = steps + idle + 1
    right: Vector  # [S·N]

    def solve(self) -> Vector:
        """Y, exactly (sparse LU)."""
        return np.asarray(splu(sparse.csc_array(self.matrix)).solve(self.right))

    def path(self, solution: ArrayLike) -> Vector:
        """θ_K(t), [T + 1, n], of a solution Y."""
        states = np.asarray(solution, dtype=np.float64).reshape(self.steps + self.idle + 1, -1)
        return states[: self.steps + 1, : self.lifted.parameters]

    def end_probability(self, solution: ArrayLike) -> float:
        """That measuring time and order of the state Y/‖Y‖ finds t ≥ T and k = 1, that is, θ(T)."""
        weights = np.abs(np.asarray(solution).reshape(self.steps + self.idle + 1, -1)) ** 2
        return float(weights[self.steps :, : self.lifted.parameters].sum() / weights.sum())

    def singular_values(self) -> Vector:
        """All of L, descending (dense).

        Raises:
            PlanError: The system is too large to be decomposed.
        """
        size = self.right.shape[0]
        if size > MOST_DENSE:
            raise PlanError(f"the history system has {size} rows; singular values are computed for up to {MOST_DENSE}.")
        return np.asarray(np.linalg.svd(self.matrix.toarray(), compute_uv=False))

    def condition(self) -> float:
        """κ = σ_max / σ_min."""
        values = self.singular_values()
        return float(values[0] / values[-1])


def history(lifted: Carleman, start: ArrayLike, steps: int, idle: int = 0) -> History:
    """The history-state system of `steps` steps of gradient descent from `start`.

    Raises:
        PlanError: A negative number of steps.

    Example:
        >>> from qcascade.cost_models.fault_tolerant.carleman import linearise
        >>> from qcascade.cost_models.fault_tolerant.polynomial import polynomial_loss
        >>> system = history(linearise(polynomial_loss(0.0, [0.0], [[0.5]]), 0.5, 1), [1.0], steps=2, idle=1)
        >>> system.solve()
        array([1.  , 0.5 , 0.25, 0.25])
    """
    if steps < 1 or idle < 0:
        raise PlanError(f"steps is {steps} and idle {idle}; at least 1 and at least 0 are needed.")
    size, rows = lifted.dimension, steps + idle + 1
    moving = sparse.diags_array([-1.0] * steps + [0.0] * idle, offsets=-1, shape=(rows, rows))
    waiting = sparse.diags_array([0.0] * steps + [-1.0] * idle, offsets=-1, shape=(rows, rows))
    identity = sparse.eye_array(size)
    matrix = sparse.eye_array(size * rows) + sparse.kron(moving, lifted.matrix) + sparse.kron(waiting, identity)
    right = np.concatenate([lifted.lift(start), np.tile(lifted.constant, steps), np.zeros(size * idle)])
    return History(lifted, steps, idle, sparse.csr_array(matrix), right)


def condition_bound(steps: int, idle: int, norm: float = 1.0) -> float:
    """An upper bound on κ of the history system of a lift with ‖M‖ = `norm`: (1 + max(norm, 1)) · Σ_t max(norm, 1)ᵗ.

    ‖L‖ ≤ 1 + max(‖M‖, 1), and the blocks of L⁻¹ are powers of M, at most T of them in a product: ‖L⁻¹‖ ≤ Σ_{j=0}^{T+idle} ‖M‖^{min(j,T)}.

    Example:
        >>> condition_bound(7, 0)
        16.0
    """
    growth = max(norm, 1.0)
    return float((1 + growth) * sum(growth ** min(j, steps) for j in range(steps + idle + 1)))
