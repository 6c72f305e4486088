"""Quantum costs of a kernel's circuits: qubits, two-qubit gates and depth on the target, shots, circuits.

On the ideal target circuits are counted as built. Depth counts layers of two-qubit gates, loading included. Shots are
those that bring the standard error of each measured value down to `PRECISION` in the worst case: 1/ε² for an expectation
value, 1/(4ε²) for a probability, times what mitigation makes of the variance. A backward pass by two-term shift rules
runs every circuit twice for each angle: weights, data and loaded amplitudes (Mitarai et al. 2018; Schuld et al. 2019);
fewer where nothing before the kernel is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qcascade.circuits.template import Expectations
from qcascade.cost_models.base import COST_MODELS, Subject
from qcascade.cost_models.device import DeviceCircuit, device_circuit
from qcascade.executors.mitigation import Plan as MitigationPlan
from qcascade.executors.settings import settings_of
from qcascade.kernels.base import CircuitUse
from qcascade.targets import Target

PRECISION = 0.02  # standard error of every measured value
_NONE = MitigationPlan()


@dataclass(frozen=True, slots=True)
class CircuitCosts:
    """How often a forward and a backward pass run one template."""

    circuit: DeviceCircuit
    settings: int  # circuits to run for all that is measured
    shots: int  # of each
    forward: int  # circuits
    backward: int  # circuits
    measured: float  # qubits read in each, the mean over the settings
    turned: float = 0.0  # one-qubit gates before reading X or Y, one for each, the mean over the settings
    folded: float = 1.0  # how often two-qubit gates are run, the mean over the circuits


def circuit_costs(use: CircuitUse, target: Target, mitigation: MitigationPlan = _NONE) -> CircuitCosts:
    """Count a template's use on a target.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from qcascade.circuits.template import CircuitTemplate
        >>> from qcascade.targets import get_target
        >>> template = CircuitTemplate(Circuit(3).CX(0, 1).CX(1, 2), (), ())
        >>> circuit_costs(CircuitUse(template, 5, 0, 0, 0, 8), get_target("ideal")).forward
        5
    """
    circuit, measured = device_circuit(use.template, target), use.template.measurement
    found = settings_of(measured, use.template.qubits)
    axes, settings = [axis for setting in found for axis in setting.axes], len(found)
    variance = 1.0 if isinstance(measured, Expectations) else 0.25
    variance *= mitigation.variance(measured, use.template.qubits, target.median_readout_error())
    runs = use.bindings * settings * mitigation.overhead
    shots = math.ceil(variance / PRECISION**2 - 1e-9)
    return CircuitCosts(
        circuit,
        settings,
        shots,
        runs,
        2 * runs * circuit.angles,
        len(axes) / max(settings, 1),
        sum(axis != "Z" for axis in axes) / max(settings, 1),
        sum(mitigation.factors) / len(mitigation.factors),
    )


def subject_costs(subject: Subject) -> tuple[CircuitCosts, ...]:
    """Those of all circuits of a kernel, in the order of its workload."""
    return tuple(circuit_costs(use, subject.target, subject.mitigation) for use in subject.workload.circuits)


@COST_MODELS.register("quantum")
def quantum_costs(subject: Subject) -> Mapping[str, Any]:
    """Widest and deepest circuit, and how many are run."""
    uses = subject_costs(subject)
    gates = [
        None
        if u.circuit.two_qubit_gates is None or u.circuit.loading_two_qubit_gates is None
        else u.circuit.two_qubit_gates - u.circuit.loading_two_qubit_gates
        for u in uses
    ]
    return {
        "qubits": max(u.circuit.qubits for u in uses),
        "two_qubit_gates": largest(gates),
        "two_qubit_depth": largest([u.circuit.two_qubit_depth for u in uses]),
        "loading_two_qubit_gates": largest([u.circuit.loading_two_qubit_gates for u in uses]),
        "shots": max(u.shots for u in uses),
        "circuits_forward": sum(u.forward for u in uses),
        "circuits_backward": sum(u.backward for u in uses),
    }


def largest(values: list[int | None]) -> int | None:
    """The largest, None where one is not known."""
    known = [v for v in values if v is not None]
    return max(known) if len(known) == len(values) else None
