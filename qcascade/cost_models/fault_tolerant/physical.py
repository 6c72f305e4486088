"""Physical qubits and time of a logical count, by the Azure Quantum resource estimator of `qdk`, offline.

Two assumptions about hardware, both of Beverland et al. 2022 (arXiv 2211.07629): superconducting-like qubits (50–100 ns, errors of
10⁻³) with the surface code, and Majorana qubits (100 ns, 10⁻⁶) with the Floquet code. Neither exists at the scale that comes out. The error
budget is that of one run. Longer runs than the estimator counts (`MOST_GATES`) are scaled down to that and their time up again: a
lower bound, marked, since the code distance would still grow. What the estimator refuses (a code distance above 50) has a reason
and no figures.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qcascade.cost_models.fault_tolerant.logical import LogicalResources
from qcascade.errors import PlanError

HARDWARE: Mapping[str, Mapping[str, Any]] = {
    "superconducting": {"qubitParams": {"name": "qubit_gate_ns_e3"}, "qecScheme": {"name": "surface_code"}},
    "majorana": {"qubitParams": {"name": "qubit_maj_ns_e6"}, "qecScheme": {"name": "floquet_code"}},
}
MOST_GATES = 2**47  # the estimator of qdk 1.33 does not return for some counts of about 10¹⁷


@dataclass(frozen=True, slots=True)
class PhysicalEstimate:
    """One run on one kind of hardware; None, with a reason, where the estimator gives nothing."""

    hardware: str
    qubits: int | None
    seconds: float | None
    code_distance: int | None
    t_factories: int | None
    reason: str = ""
    lower_bound: bool = False


def physical(resources: LogicalResources, hardware: str, error_budget: float = 0.01) -> PhysicalEstimate:
    """Estimate one run.

    Args:
        resources: the logical counts.
        hardware: a name of `HARDWARE`.
        error_budget: probability that anything goes wrong in the run.

    Raises:
        PlanError: The hardware is unknown, the budget is no probability, or qdk is not installed.

    Example:
        >>> from qcascade.cost_models.fault_tolerant.logical import Problem, logical_resources
        >>> physical(logical_resources(Problem(1000, 100, 10)), "majorana").qubits > 100_000
        True
    """
    return estimate_counts(resources.qubits, resources.toffolis, resources.rotations, hardware, error_budget)


def estimate_counts(
    qubits: int, toffolis: int, rotations: int, hardware: str, error_budget: float = 0.01
) -> PhysicalEstimate:
    """The same for counts of any circuit whose gates follow one another."""
    if hardware not in HARDWARE:
        raise PlanError(f"hardware is {hardware!r}; choose one of {', '.join(HARDWARE)}.")
    if not 0 < error_budget < 1:
        raise PlanError(f"error_budget is {error_budget}; a probability between 0 and 1 is needed.")
    estimator = _estimator()
    excess = max(1.0, (toffolis + rotations) / MOST_GATES)
    counts = {
        "numQubits": qubits,
        "cczCount": int(toffolis / excess),
        "rotationCount": int(rotations / excess),
        "rotationDepth": int(rotations / excess),
        "measurementCount": qubits,
    }
    try:
        found = estimator.LogicalCounts(counts).estimate({**HARDWARE[hardware], "errorBudget": error_budget})
    except estimator.EstimatorError as error:
        return PhysicalEstimate(hardware, None, None, None, None, str(error).splitlines()[0])
    return PhysicalEstimate(
        hardware,
        int(found["physicalCounts"]["physicalQubits"]),
        float(found["physicalCounts"]["runtime"]) * 1e-9 * excess,
        int(found["logicalQubit"]["codeDistance"]),
        int(found["physicalCounts"]["breakdown"]["numTfactories"]),
        lower_bound=excess > 1,
    )


def _estimator() -> Any:
    os.environ.setdefault("QDK_PYTHON_TELEMETRY", "none")  # it would report every import and call to its maker
    try:
        return importlib.import_module("qdk.estimator")
    except ModuleNotFoundError as error:
        raise PlanError("qdk is not installed, so there is no physical estimate: pip install qdk.") from error
