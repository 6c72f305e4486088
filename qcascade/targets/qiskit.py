"""Targets from and to Qiskit.

From a BackendV2: gates, errors and durations come from `backend.target`, which knows each direction of an edge; the day
of the calibration and the delay between shots come with the backend where it has them.
"""

from __future__ import annotations

from typing import Any

from qiskit.circuit import Measure, Parameter
from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping
from qiskit.transpiler import InstructionProperties
from qiskit.transpiler import QubitProperties as QiskitProperties
from qiskit.transpiler import Target as QiskitTarget

from qcascade.errors import TargetError
from qcascade.targets.target import Gate, QubitProperties, Target

_NO_GATES = {"measure", "delay", "reset", "id", "barrier"}


def from_qiskit(backend: Any, *, name: str | None = None, **overrides: Any) -> Target:
    """See `Target.from_qiskit`."""
    described = backend if isinstance(backend, QiskitTarget) else getattr(backend, "target", None)
    if not isinstance(described, QiskitTarget):
        raise TargetError(f"{type(backend).__name__} has no qiskit.transpiler.Target; give a BackendV2 or a Target.")
    known = set(get_standard_gate_name_mapping())
    gates = []
    for operation in described.operation_names:
        for place, figures in (described[operation] or {}).items():
            if operation in known and operation not in _NO_GATES and place is not None:
                error, seconds = _number(figures, "error"), _number(figures, "duration")
                gates.append(Gate(operation, tuple(int(q) for q in place), error, seconds))
    if not described.num_qubits or not gates:
        raise TargetError(
            f"the backend {name or backend} names no gate on any qubit, so nothing can be compiled for it."
        )
    fields: dict[str, Any] = {
        "name": name or getattr(backend, "name", None) or "qiskit",
        "description": f"{described.num_qubits} qubits, from Qiskit",
        "qubits": described.num_qubits,
        "gates": tuple(gates),
        "properties": tuple(_properties(described, qubit) for qubit in range(described.num_qubits)),
        **_of_backend(backend),
    }
    return Target(**{**fields, **overrides})


def _properties(described: QiskitTarget, qubit: int) -> QubitProperties:
    coherence = described.qubit_properties[qubit] if described.qubit_properties else None
    places = described["measure"] if "measure" in described.operation_names else None
    readout = places.get((qubit,)) if places else None
    return QubitProperties(
        readout_error=_number(readout, "error"),
        readout_seconds=_number(readout, "duration"),
        t1=_number(coherence, "t1"),
        t2=_number(coherence, "t2"),
    )


def _number(figures: Any, name: str) -> float | None:
    """A figure as Python's own float, which JSON can hold; NumPy's come too."""
    value = getattr(figures, name, None)
    return None if value is None else float(value)


def _of_backend(backend: Any) -> dict[str, Any]:
    """What a backend knows beside its target."""
    found: dict[str, Any] = {}
    if callable(properties := getattr(backend, "properties", None)) and (calibration := properties()) is not None:
        found["calibrated"] = calibration.last_update_date.date().isoformat()
    if callable(configuration := getattr(backend, "configuration", None)):
        found["shot_overhead"] = getattr(configuration(), "default_rep_delay", None)
    return found


def to_qiskit(target: Target) -> QiskitTarget:
    """See `Target.to_qiskit`.

    Raises:
        TargetError: It has no gates, or one that Qiskit does not know.
    """
    if target.qubits is None or not target.gates:
        raise TargetError(f"target {target.name!r} has no gates and no limits; there is nothing to compile for.")
    standard = get_standard_gate_name_mapping()
    made = QiskitTarget(
        num_qubits=target.qubits,
        qubit_properties=[QiskitProperties(t1=p.t1, t2=p.t2) for p in target.properties] or None,
        dt=1e-9,
    )
    for operation in target.operations:
        if operation not in standard:
            raise TargetError(f"target {target.name!r}: Qiskit knows no gate {operation!r}.")
        places = {
            gate.qubits: InstructionProperties(duration=gate.seconds, error=gate.error)
            for gate in target.gates
            if gate.name == operation
        }
        gate = standard[operation]
        parameters = [Parameter(f"t{k}") for k in range(len(gate.params))]
        made.add_instruction(type(gate)(*parameters) if parameters else gate, places)
    readouts = {
        (q,): InstructionProperties(
            duration=target.properties[q].readout_seconds if target.properties else None,
            error=target.properties[q].readout_error if target.properties else None,
        )
        for q in target.nodes
    }
    made.add_instruction(Measure(), readouts)
    return made
