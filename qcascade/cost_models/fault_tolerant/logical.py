"""Logical resources of quantum gradient descent: qubits, queries, Toffoli and T gates and depth from n, T, s, κ, ε.

The algorithm (Liu et al. 2024, arXiv 2303.03428; Liu et al. 2021, arXiv 2011.03185): prepare the history state of `history`, the
solution of L Y = B, with a quantum linear-system solver, and measure time and order registers until they show θ(T). What is counted, where
each constant is from, and in brackets how it was checked (*transcribed*: found in public notes on the paper or in public code that cites
it, as the papers' own texts cannot be opened from here beyond their abstracts):

- *Linear system*: T steps and p = T idle ones. Row sparsity of L: 3Ks + 2, for flows of degree two whose F_0, F_1, F_2 have s non-zeros a
  row: a row of order k meets three blocks, each a sum of k tensor products, and 2 of the identities [counted; 3Ks transcribed].
  Assumed: F_2 is as sparse as F_1.
- *κ*: 2(T + p + 1) for a contractive lift (`history.condition_bound`) [derived, tested; Liu et al. 2021, Lemma 4, for Euler steps that are
  not quite contractive, has 3(T + p + 1): transcribed], or what is given; ‖L⁻¹‖ = κ/2 as ‖L‖ ≤ 2.
- *Block encoding*: of subnormalisation α = s_L, with w + 3 ancillas, one call each to the oracles of row and column positions and two to
  that of values, for entries of at most 1 (Gilyén et al. 2019, arXiv 1806.01838, Lemma 48) [transcribed, twice]. s_L is rounded up to a
  power of two.
- *Solver*: calls to the block encoding by `Solver`, of condition number α‖L⁻¹‖. Kernel reflection: 56κ + 1.05κ ln(1/ε) [its abstract].
  Adiabatic walk: ακ/Δ steps to a state Δ away, α = 1.84 [a summary of the paper's third version; its first had 1.56], then a filter of
  κ ln(2/ε_f) steps [transcribed; derived from its Dolph-Chebyshev window, tested], both repeated where the filter fails, with the best
  Δ [transcribed]: see `_adiabatic`. Before, α itself was counted as all of the walk, which made this solver 1.6 times too cheap.
  Assumed: one preparation of |B⟩ and one undone for each call [so in public code of kernel reflection], a step of the walk is one call,
  and four ancillas.
- *Oracles*: table look-up of 2ns + n entries (F_0, F_1, F_2), ⌈L/k⌉ + b(k − 1) Toffolis, undone by measurement with ⌈L/k⌉ + k
  (Berry et al. 2019, arXiv 1902.02134, clean ancillas; k = 1 is Babbush et al. 2018, arXiv 1805.03662, up to one) [qualtran's own
  counts differ by 2 to 4 Toffolis], k the best power of two for which bk ≤ `lookup_qubits`. Three look-ups are done and undone in a
  call. Or ``access="qram"``: a look-up takes no gates and no time and its hardware is left out, which is what scaling as polylog(n)
  rests on: a lower bound, and no machine known.
- *Values* turned into amplitudes by comparing b bits: b Toffolis (Sanders et al. 2019, arXiv 1807.03206) [transcribed; qualtran's
  comparison of two registers takes 2b − 1; either is little beside the look-ups].
- *Choice of the tensor factor*: controlled swaps of ⌈log₂ n⌉ qubits for K − 1 factors, there and back, in rows and columns, one Toffoli
  a qubit [as in qualtran]; the time register's increment, one Toffoli a qubit (Gidney 2018, arXiv 1709.06648) [its abstract]; the
  reflection of the ancillas.
- *|θ(0)⟩* (k = n non-zeros): multiplexed rotations, one level of the binary tree a qubit, 2ʲ angles of b bits looked up, added to a
  phase gradient with b Toffolis and undone (after Low et al. 2018, arXiv 1812.00954) [our composition; qualtran's
  StatePreparationViaRotations, which also sets phases and clears its tables without measurement, takes 1.1 to 2.2 times as many]; K
  copies for |θ^{⊗k}⟩.
- *Toffoli*: 4 T (Gidney 2018) [its abstract]. Depth: Toffolis one after the other (assumed), so this is an upper bound.
- *Rotations*: one a call, the solver's phases; synthesised by the estimator of `physical`.
- *Success*: the end is found with probability ≥ (1 − r²)(p + 1)/(q²T + p + 1), q = ‖y(0)‖/‖y(T)‖ the decay, r = ‖θ(T)‖ < 1 in the
  unit of the lift [derived]; runs are repeated 1/probability times, without amplification.
- *Download*: 36 k ln k/δ² copies of |θ(T)⟩ for its magnitudes and as many again, each beside a state of these, for its signs (Kerenidis and
  Prakash 2018, arXiv 1808.09266, algorithm 4.1) [public implementations of it; proven there for an error of √7 δ in the 2-norm, as they
  draw it; simulated here it stays within δ/5, tested]. Known places are assumed: k non-zeros. Before, the second half was left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scipy.optimize import minimize_scalar

from qcascade.errors import PlanError

Access = Literal["lookup", "qram"]
T_PER_TOFFOLI = 4
_LOOKUPS, _SOLVER_ANCILLAS, _ENCODING_ANCILLAS = 3, 4, 3


@dataclass(frozen=True, slots=True)
class Solver:
    """Expected calls to a block encoding for every unit of its condition number κ, by the precision ε."""

    name: str
    per_condition: Callable[[float], float]
    source: str

    def queries(self, kappa: float, precision: float) -> float:
        """Expected calls.

        Example:
            >>> [round(s.queries(100.0, 0.01)) for s in SOLVERS.values()]
            [6084, 1167]
        """
        return kappa * self.per_condition(precision)


def _kernel_reflection(precision: float) -> float:
    return 56.0 + 1.05 * math.log(1 / precision)


def _adiabatic(precision: float, alpha: float = 1.84) -> float:
    """The least over Δ of ½ ln(2/ε_f)(1/p² + 1) + α/(Δ p²), p = 1 − δ(1 − ε_f²).

    δ = Δ² − Δ⁴/4 is the infidelity before the filter, ε_f what the filter has to leave of it; failures show halfway through on average.
    """

    def cost(distance: float) -> float:
        lost = distance**2 - distance**4 / 4
        kept = math.sqrt((1 - lost) * (1 - precision**2 / 4)) / ((1 - precision**2 / 2) * math.sqrt(lost))
        left = min(1.0, precision * kept)
        success = (1 - lost * (1 - left**2)) ** 2
        return 0.5 * math.log(2 / left) * (1 / success + 1) + alpha / (distance * success)

    return float(minimize_scalar(cost, bounds=(0.02, 1.2), method="bounded").fun)


SOLVERS = {
    solver.name: solver
    for solver in (
        Solver("kernel_reflection", _kernel_reflection, "Dalzell 2024, arXiv 2406.12086: proven; its o(κ) left out"),
        Solver(
            "adiabatic_measured",
            _adiabatic,
            "Costa et al. 2023, arXiv 2312.07690: α measured on random matrices (2305 proven), with the filter and what fails",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Gradient descent to be run by the quantum algorithm.

    Attributes:
        parameters: n, the kept (non-zero) parameters.
        steps: T.
        row_sparsity: s, non-zeros in a row of the Hessian on the kept parameters (not of the weight matrices).
        precision: ε of the solver.
        download_precision: δ, 2-norm error of the downloaded parameters relative to their norm.
        order: K of the Carleman lift.
        condition: κ of the history system; None: the bound for a contractive lift.
        decay: q.
        norm: r.
        bits: b, of a value or an angle.
        access: how the tables are read.
        lookup_qubits: most qubits that a look-up may take to save Toffolis.
        solver: a name of `SOLVERS`.
    """

    parameters: int
    steps: int
    row_sparsity: int
    precision: float = 1e-2
    download_precision: float = 1e-1
    order: int = 3
    condition: float | None = None
    decay: float = 1.0
    norm: float = 0.5
    bits: int = 16
    access: Access = "lookup"
    lookup_qubits: int = 10_000
    solver: str = "kernel_reflection"

    def __post_init__(self) -> None:
        least = {"parameters": 2, "steps": 1, "row_sparsity": 1, "order": 1, "bits": 1, "decay": 1.0}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise PlanError(f"{name} is {getattr(self, name)}; at least {low} is needed.")
        for name in ("precision", "download_precision", "norm"):
            if not 0 < getattr(self, name) < 1:
                raise PlanError(f"{name} is {getattr(self, name)}; a number between 0 and 1 is needed.")
        if self.row_sparsity > self.parameters:
            raise PlanError(
                f"row_sparsity is {self.row_sparsity}; at most the {self.parameters} parameters are in a row."
            )
        if self.condition is not None and not self.condition >= 1:
            raise PlanError(f"condition is {self.condition}; at least 1 is needed.")
        if self.access not in ("lookup", "qram"):
            raise PlanError(f"access is {self.access!r}; choose lookup or qram.")
        if self.solver not in SOLVERS:
            raise PlanError(f"solver is {self.solver!r}; choose one of {', '.join(SOLVERS)}.")

    @property
    def idle(self) -> int:
        """Idle steps p: as many as steps, so that the end is found about half the time."""
        return self.steps


@dataclass(frozen=True, slots=True)
class Lookup:
    """A table read into b qubits and cleared again."""

    toffolis: int
    qubits: int  # the word itself, the copies beside it, and those of unary iteration


@dataclass(frozen=True, slots=True)
class LogicalResources:
    """One run of the solver unless said otherwise; counts are expected values, rounded up."""

    qubits: int
    condition: float
    subnormalisation: int  # α = s_L
    queries: int
    toffolis_per_query: int
    toffolis: int
    rotations: int
    t_gates: int  # of Toffolis alone: the rotations' depend on their precision
    depth: int  # Toffolis and rotations in sequence
    end_probability: float
    runs_per_copy: float
    upload_toffolis: int  # one preparation of |θ(0)⟩; every call to the block encoding takes two of |B⟩
    download_copies: int
    memory_calls: int  # to a quantum memory, where access is "qram"


def lookup(entries: int, bits: int, most_qubits: int) -> Lookup:
    """Toffolis to read a table of `entries` words and to clear the word by measurement.

    Example:
        >>> lookup(1024, 16, 128).toffolis  # k = 8: 1024/8 + 16 · 7 to read, 1024/32 + 32 to clear
        304
    """
    best: Lookup | None = None
    k = 1
    while k == 1 or (bits * k <= most_qubits and k <= entries):
        read = math.ceil(entries / k) + bits * (k - 1)
        qubits = bits * k + math.ceil(math.log2(max(2, entries / k)))
        if best is None or read < best.toffolis:
            best = Lookup(read, qubits)
        k *= 2
    assert best is not None
    room = 2 ** max(0, round(math.log2(math.sqrt(entries))))
    clear = math.ceil(entries / min(room, most_qubits)) + min(room, most_qubits)
    return Lookup(best.toffolis + clear, best.qubits)


def state_preparation(amplitudes: int, bits: int, most_qubits: int, access: Access) -> Lookup:
    """Toffolis and look-up qubits of preparing a real state of `amplitudes` numbers."""
    levels = math.ceil(math.log2(amplitudes))
    rotations = levels * bits
    if access == "qram":
        return Lookup(rotations, bits)
    parts = [lookup(2**j, bits, most_qubits) for j in range(levels)]
    return Lookup(rotations + sum(p.toffolis for p in parts), max(p.qubits for p in parts))


def logical_resources(problem: Problem) -> LogicalResources:
    """Count.

    Example:
        >>> small = logical_resources(Problem(parameters=1000, steps=100, row_sparsity=10))
        >>> small.subnormalisation, small.condition, small.queries  # 128 · 201 · (56 + 1.05 ln 100)
        (128, 402.0, 1565174)
    """
    p, n, order, bits = problem, problem.parameters, problem.order, problem.bits
    index, rows = math.ceil(math.log2(n)), p.steps + p.idle + 1
    time, orders = math.ceil(math.log2(rows)), math.ceil(math.log2(order + 1))
    alpha = 2 ** math.ceil(math.log2(3 * order * p.row_sparsity + 2))
    kappa = p.condition if p.condition is not None else 2.0 * rows
    queries = math.ceil(SOLVERS[p.solver].queries(alpha * kappa / 2, p.precision))
    system = time + orders + order * index
    ancillas = system + _ENCODING_ANCILLAS + _SOLVER_ANCILLAS
    table = lookup(2 * n * p.row_sparsity + n, bits, p.lookup_qubits) if p.access == "lookup" else Lookup(0, bits)
    swaps = 4 * (order - 1) * index
    encoding = _LOOKUPS * table.toffolis + bits + swaps + time + ancillas - 2
    start = state_preparation(n, bits, p.lookup_qubits, p.access)
    per_query = encoding + 2 * order * start.toffolis + system - 2  # and the reflection about |B⟩
    toffolis = queries * per_query
    end = (1 - p.norm**2) * (p.idle + 1) / (p.decay**2 * p.steps + p.idle + 1)
    levels = math.ceil(math.log2(n))
    return LogicalResources(
        qubits=system + ancillas + max(table.qubits, start.qubits) + 2 * bits,
        condition=kappa,
        subnormalisation=alpha,
        queries=queries,
        toffolis_per_query=per_query,
        toffolis=toffolis,
        rotations=queries,
        t_gates=T_PER_TOFFOLI * toffolis,
        depth=toffolis + queries,
        end_probability=end,
        runs_per_copy=1 / end,
        upload_toffolis=start.toffolis,
        download_copies=download_copies(n, p.download_precision),
        memory_calls=queries * (2 * _LOOKUPS + 2 * order * 2 * levels) if p.access == "qram" else 0,
    )


def download_copies(nonzeros: int, precision: float) -> int:
    """Copies for vector state tomography: 2 ⌈36 k ln k/δ²⌉.

    Example:
        >>> download_copies(1000, 0.1)
        49735840
    """
    return 2 * math.ceil(36 * nonzeros * math.log(max(nonzeros, 2)) / precision**2)
