"""Predicted fidelity of a circuit in native gates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytket.circuit import Circuit, Node

from qcascade.routing.flat import from_pytket
from qcascade.targets import Target


@dataclass(frozen=True, slots=True)
class Prediction:
    """Fidelity and its factors; seconds."""

    fidelity: float | None
    gates: float | None
    readout: float | None
    idle: float | None
    duration: float | None


def predict(circuit: Circuit, target: Target, measured: Iterable[Node]) -> Prediction:
    """Product of 1 − error over gates and readout."""
    if not target.calibrated_gates:
        return Prediction(None, None, None, None, None)
    flat, nodes = from_pytket(circuit), [q.index[0] for q in circuit.qubits]
    assert flat is not None
    gates = readout = 1.0
    for op in flat.ops:
        gates *= 1 - (target.places[op.name, tuple(nodes[q] for q in op.qubits)].error or 0.0)
    for node in measured:
        readout *= 1 - ((target.properties[node.index[0]].readout_error or 0.0) if target.properties else 0.0)
    return Prediction(gates * readout, gates, readout, 1.0, None)
