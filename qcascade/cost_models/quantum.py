"""Quantum costs of a kernel's circuits as built, before any device: qubits, two-qubit gates and depth, shots.

Circuits, break-even.

Depth counts layers of two-qubit gates, loading first. Shots are those that bring the standard error of each measured
value down to `PRECISION` in the worst case: 1/ε² for an expectation value, 1/(4ε²) for a probability. A backward pass
by two-term shift rules runs every circuit twice for each angle: weights, data and loaded amplitudes (Mitarai et al.
2018; Schuld et al. 2019). Break-even is the time that one shot, loading and read-out included, may take for a forward
pass on the device to be as fast as the region here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytket.circuit import OpType

from qcascade.circuits.observables import measurement_settings
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.cost_models.base import COST_MODELS, Subject
from qcascade.cost_models.loading import loading

PRECISION = 0.02  # standard error of every measured value


@dataclass(frozen=True, slots=True)
class CircuitCosts:
    """One template as built."""

    qubits: int
    two_qubit_gates: int
    two_qubit_depth: int  # without loading
    settings: int  # circuits to run for all that is measured
    angles: int  # rotations that depend on a symbol, loading included
    shots: int


def circuit_costs(template: CircuitTemplate) -> CircuitCosts:
    """Count a template's circuit.

    Example:
        >>> from pytket.circuit import Circuit
        >>> circuit_costs(CircuitTemplate(Circuit(3).CX(0, 1).CX(1, 2), (), ())).two_qubit_depth
        2
    """
    circuit = template.circuit
    measured = template.measurement
    settings, variance = 1, 0.25
    if isinstance(measured, Expectations):
        settings, variance = len(measurement_settings(measured.paulis)), 1.0
    angles = sum(bool(c.op.free_symbols()) for c in circuit.get_commands() if c.op.type != OpType.Barrier)
    return CircuitCosts(
        qubits=template.qubits,
        two_qubit_gates=circuit.n_2qb_gates(),
        two_qubit_depth=circuit.depth_2q(),
        settings=settings,
        angles=angles + loading(template).angles,
        shots=math.ceil(variance / PRECISION**2 - 1e-9),
    )


@COST_MODELS.register("quantum")
def quantum_costs(subject: Subject) -> Mapping[str, Any]:
    """Widest and deepest circuit, and how many are run."""
    uses = [(use, circuit_costs(use.template)) for use in subject.workload.circuits]
    forward = sum(use.bindings * c.settings for use, c in uses)
    shots = sum(use.bindings * c.settings * c.shots for use, c in uses)
    return {
        "qubits": max(c.qubits for _, c in uses),
        "two_qubit_gates": max(c.two_qubit_gates for _, c in uses),
        "two_qubit_depth": max(c.two_qubit_depth + loading(use.template).two_qubit_gates for use, c in uses),
        "shots": max(c.shots for _, c in uses),
        "circuits_forward": forward,
        "circuits_backward": sum(2 * use.bindings * c.settings * c.angles for use, c in uses),
        "break_even": f"a shot would have to take at most {subject.region_seconds / shots:.2g} s",
    }
