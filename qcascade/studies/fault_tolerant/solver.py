"""The whole algorithm on two parameters: the history state of a lifted descent by the simulated solver, against plain gradient descent.

Two losses of degree four with a minimum (dissipative) and a saddle at 0. A record a case, in OUT/solver.jsonl: qubits, κ and its bound,
queries, success probability, infidelity with the exact history state, probability of then reading θ(T), and errors of θ(T). A case that
would take more queries than can be simulated here is recorded with their number and the exact lift's error alone (`simulate` false).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcascade.cost_models.fault_tolerant.carleman import linearise
from qcascade.cost_models.fault_tolerant.history import condition_bound, history
from qcascade.cost_models.fault_tolerant.phases import inverse_polynomial
from qcascade.cost_models.fault_tolerant.polynomial import PolynomialLoss, descend, polynomial_loss
from qcascade.studies.fault_tolerant.spectra import peak_bytes
from qcascade.studies.records import Record
from qcascade.studies.tables import StudyTable

START = np.array([0.25, -0.2])
HESSIANS: Mapping[str, tuple[float, float]] = {"dissipative": (1.0, 0.6), "saddle": (1.0, -0.6)}


@dataclass(frozen=True, slots=True)
class SolverCase:
    """`steps` of gradient descent to order K, and `idle` copies of the end."""

    hessian: str
    order: int
    steps: int
    idle: int
    rate: float = 0.4
    precision: float = 1e-2
    simulate: bool = True


SHORT = tuple(SolverCase(name, order, 7, 0) for name in HESSIANS for order in (1, 2))
WIDE = (
    SolverCase("dissipative", 2, 7, 8),
    SolverCase("dissipative", 3, 7, 8),
    SolverCase("dissipative", 5, 7, 8),
    SolverCase("saddle", 2, 7, 8),
    SolverCase("saddle", 3, 7, 8),
    SolverCase("saddle", 5, 7, 8, simulate=False),
    SolverCase("saddle", 5, 1, 14, precision=1e-1),  # what twelve qubits can be simulated for in minutes
)


def small_loss(hessian: str) -> PolynomialLoss:
    """With these eigenvalues of the Hessian at 0, small random cubic terms, and a quartic that bounds it below."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(2, 2)))[0]
    quartic = np.zeros((2,) * 4)
    quartic[0, 0, 0, 0] = quartic[1, 1, 1, 1] = 0.25
    cubic = 0.15 * random.normal(size=(2, 2, 2))
    return polynomial_loss(0.3, np.zeros(2), basis @ np.diag(HESSIANS[hessian]) @ basis.T / 2, cubic, quartic)


def run_solver(case: SolverCase) -> dict[str, Any]:
    """Solve and compare; what goes into the record."""
    from qcascade.cost_models.fault_tolerant.linear_solver import solve  # qiskit is slow to import

    began, made = time.process_time(), small_loss(case.hessian)
    lifted = linearise(made, case.rate, case.order)
    system = history(lifted, START, case.steps, case.idle)
    truth, exact = descend(made, START, case.rate, case.steps)[-1], system.solve()
    kappa, norm = system.condition(), float(np.linalg.norm(lifted.matrix.toarray(), 2))
    found: dict[str, Any] = {
        "unknowns": len(system.right),
        "qubits": int(np.ceil(np.log2(len(system.right)))) + 2,
        "condition": kappa,
        "bound": condition_bound(case.steps, case.idle, norm),
        "queries": inverse_polynomial(kappa, case.precision).degree,
        "end_probability": system.end_probability(exact),
        "exact_end_error": float(np.linalg.norm(system.path(exact)[-1] - truth)),
    }
    if case.simulate:
        run = solve(system.matrix, system.right, case.precision)
        found |= {
            "queries": run.queries,
            "success_probability": run.success_probability,
            "infidelity": 1 - run.fidelity,
            "relative_error": run.relative_error,
            "end_error": float(np.linalg.norm(system.path(run.solution)[-1] - truth)),
        }
    return {**found, "cpu_seconds": time.process_time() - began, "peak_bytes": peak_bytes()}


def solver_table(records: Iterable[Record]) -> StudyTable:
    """A row a case."""
    rows = []
    for record in sorted(records, key=lambda r: (r.settings["hessian"], r.measured["qubits"], r.settings["steps"])):
        case, found = record.settings, record.measured
        ran = case["simulate"]
        rows.append((
            case["hessian"], str(case["order"]), f"{case['steps']} + {case['idle']}", str(found["qubits"]),
            f"{found['condition']:.3g}", f"{found['bound']:.2g}", f"{case['precision']:g}", str(found["queries"]),
            f"{found['success_probability']:.2g}" if ran else "not simulated", f"{found['infidelity']:.1g}" if ran else "–",
            f"{found['end_probability']:.2g}", f"{found['end_error']:.2g}" if ran else "–", f"{found['exact_end_error']:.2g}",
            f"{found['cpu_seconds']:.0f}",
        ))  # fmt: skip
    columns = (
        "Hessian", "K", "steps + idle", "qubits", "κ", "κ's bound", "ε", "queries", "success", "infidelity", "reads θ(T)",
        "error of θ(T)", "of the exact lift", "processor s",
    )  # fmt: skip
    notes = (
        "Two parameters, η = 0.4, by QSVT circuits on Aer; queries are calls to a (dense) block encoding for an error of ε relative to "
        "1/x. Success: both ancillas in 0, without amplification; reads θ(T): of measuring time and order after that. Errors are "
        "2-norms against plain gradient descent. At the saddle κ grows like a power of what a step stretches, and the lift's own error "
        "stays of the size of the parameters (a single step is exact for K ≥ 3).",
    )
    return StudyTable("The algorithm simulated on two parameters", columns, tuple(rows), notes)
