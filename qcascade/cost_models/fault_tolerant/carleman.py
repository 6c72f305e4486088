"""Carleman linearisation of gradient descent on a polynomial loss, truncated at order K.

The state is y = (θ, θ⊗θ, …, θ^{⊗K}), N = Σ_k nᵏ numbers; a step of gradient descent becomes y ← M y + c. Two forms:

- ``exact`` (default): the k-th block is the k-th tensor power of the step map itself, M_{kl} = Σ_{j₁+…+j_k = l} P_{j₁}⊗…⊗P_{j_k}, with
  every l > K dropped. As K grows the first block becomes gradient descent as it is run, discrete steps included.
- ``euler``: M = 1 + ηA with A_{k,k+j−1} = Σ_i 1^{⊗i}⊗F_j⊗1^{⊗(k−1−i)}, the Carleman matrix of the gradient flow discretised by
  forward Euler (Liu et al. 2021, PNAS 118, arXiv 2011.03185; Liu et al. 2024, arXiv 2303.03428). Its tensor powers lack the
  terms of η² and above, so its error against gradient descent has a floor in K; its rows have fewer non-zeros.

Refused: orders below 1 and lifts of more than `MOST` numbers. The expansion is about θ = 0: shift the loss so that the point of
interest (a minimum, for dissipation) lies there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse, stats

from qcascade.cost_models.fault_tolerant.polynomial import PolynomialLoss, Vector, descend
from qcascade.errors import PlanError

Form = Literal["exact", "euler"]
MOST = 200_000  # numbers in a lifted state


@dataclass(frozen=True, slots=True, eq=False)
class Carleman:
    """The lifted step y ← matrix · y + constant."""

    parameters: int
    order: int
    matrix: sparse.csr_array  # [N, N]
    constant: Vector  # [N]

    @property
    def dimension(self) -> int:
        """N."""
        return len(self.constant)

    def lift(self, point: ArrayLike) -> Vector:
        """(θ, θ⊗θ, …), [N]."""
        theta = np.asarray(point, dtype=np.float64)
        powers = [theta]
        for _ in range(self.order - 1):
            powers.append(np.kron(powers[-1], theta).astype(np.float64))
        return np.concatenate(powers)

    def run(self, point: ArrayLike, steps: int) -> Vector:
        """The first block after every step, [steps + 1, n]."""
        state = self.lift(point)
        path = [state[: self.parameters]]
        for _ in range(steps):
            state = self.matrix @ state + self.constant
            path.append(state[: self.parameters])
        return np.stack(path)

    def row_sparsity(self) -> int:
        """Most non-zeros in a row."""
        return int(np.diff(self.matrix.indptr).max())


def linearise(loss: PolynomialLoss, rate: float, order: int, form: Form = "exact") -> Carleman:
    """The lift of gradient descent with learning rate `rate` to order K.

    Raises:
        PlanError: The order is below 1, the form is unknown, or the lift is too large.

    Example:
        >>> from qcascade.cost_models.fault_tolerant.polynomial import polynomial_loss
        >>> linearise(polynomial_loss(0.0, [0.0], [[0.5]], [[[0.1]]]), 0.1, 3).matrix.toarray().round(4)
        array([[ 0.9  , -0.03 ,  0.   ],
               [ 0.   ,  0.81 , -0.054],
               [ 0.   ,  0.   ,  0.729]])
    """
    if order < 1 or form not in ("exact", "euler"):
        raise PlanError(f"order is {order} and form {form!r}; an order of at least 1 and exact or euler are needed.")
    n = loss.parameters
    total = sum(n**k for k in range(1, order + 1))
    if total > MOST:
        raise PlanError(f"order {order} of {n} parameters lifts to {total} numbers; at most {MOST} are accepted.")
    rows = list(_exact(loss.step(rate), order) if form == "exact" else _euler(loss.flow(), rate, n, order))
    blocks = [
        [row.get(m, sparse.csr_array((n**k, n**m))) for m in range(1, order + 1)] for k, row in enumerate(rows, 1)
    ]
    constant = [row[0].toarray()[:, 0] if 0 in row else np.zeros(n**k) for k, row in enumerate(rows, 1)]
    matrix = sparse.csr_array(sparse.block_array(blocks))
    matrix.eliminate_zeros()
    return Carleman(n, order, matrix, np.concatenate(constant))


Row = dict[int, sparse.csr_array]


def _exact(step: Sequence[sparse.csr_array], order: int) -> Iterator[Row]:
    row: Row = {0: sparse.csr_array(np.ones((1, 1)))}
    for _ in range(order):
        grown: Row = {}
        for (taken, block), (j, part) in itertools.product(row.items(), enumerate(step)):
            if taken + j <= order and part.nnz:
                term = sparse.csr_array(sparse.kron(block, part))
                grown[taken + j] = grown[taken + j] + term if taken + j in grown else term
        row = grown
        yield row


def _euler(flow: Sequence[sparse.csr_array], rate: float, n: int, order: int) -> Iterator[Row]:
    for k in range(1, order + 1):
        row: Row = {k: sparse.csr_array(sparse.eye_array(n**k))}
        for place, (j, part) in itertools.product(range(k), enumerate(flow)):
            if k + j - 1 > order or not part.nnz:
                continue
            left, right = sparse.eye_array(n**place), sparse.eye_array(n ** (k - 1 - place))
            term = sparse.csr_array(rate * sparse.kron(sparse.kron(left, part), right))
            row[k + j - 1] = row[k + j - 1] + term if k + j - 1 in row else term
        yield row


def truncation_errors(
    loss: PolynomialLoss, start: ArrayLike, rate: float, steps: int, orders: Sequence[int], form: Form = "exact"
) -> Vector:
    """max_t ‖θ_K(t) − θ(t)‖ / ‖θ(0)‖ against plain gradient descent, for every order.

    Raises:
        PlanError: Plain gradient descent itself diverges, so there is nothing to compare with.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        truth = descend(loss, start, rate, steps)
    if not np.isfinite(truth).all():
        raise PlanError(
            f"gradient descent diverges from {start!r} at rate {rate}; lower the rate, or bound the loss below."
        )
    scale = float(np.linalg.norm(truth[0]))
    return np.array([
        np.linalg.norm(linearise(loss, rate, k, form).run(start, steps) - truth, axis=1).max() / scale for k in orders
    ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decay:
    """error ≈ a · ratioᴷ by least squares on the logarithm; `low` and `high` bound the ratio with 95 % confidence."""

    ratio: float
    low: float
    high: float
    r_squared: float


def fitted_decay(orders: Sequence[int], errors: ArrayLike) -> Decay:
    """Geometric decay of the truncation error with the order.

    Raises:
        PlanError: Fewer than three orders, or an error that is zero (nothing to take the logarithm of).

    Example:
        >>> round(fitted_decay([1, 2, 3], [0.1, 0.01, 0.001]).ratio, 6)
        0.1
    """
    values = np.asarray(errors, dtype=np.float64)
    if len(orders) < 3 or not (values > 0).all():
        raise PlanError(
            f"the errors {values} cannot be fitted; three orders or more with errors above zero are needed."
        )
    fit = stats.linregress(orders, np.log(values))
    width = float(stats.t.ppf(0.975, len(orders) - 2)) * float(fit.stderr)
    ratios = np.exp([fit.slope, fit.slope - width, fit.slope + width])
    return Decay(float(ratios[0]), float(ratios[1]), float(ratios[2]), float(fit.rvalue**2))
