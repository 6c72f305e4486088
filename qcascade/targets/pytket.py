"""Targets from pytket's BackendInfo: architecture, gate set, errors by node and by edge, readout errors.

Two traps are stepped around. pytket-qiskit adds a reverse direction to every edge, of twice the error, and where both
directions are listed one overwrites the other with it: so a pair's error is the least of its two directions, and a gate
exists only in the directions that the architecture couples. And it writes an unreported error as 0: only a change of
frame is taken to be perfect.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytket.architecture import Architecture
from pytket.backends.backendinfo import BackendInfo
from pytket.circuit import Node, OpType

from qcascade.errors import TargetError
from qcascade.targets.target import Gate, QubitProperties, Target

_ONE = {
    OpType.H: "h",
    OpType.PhasedX: "r",
    OpType.Rx: "rx",
    OpType.Ry: "ry",
    OpType.Rz: "rz",
    OpType.S: "s",
    OpType.SX: "sx",
    OpType.SXdg: "sxdg",
    OpType.Sdg: "sdg",
    OpType.T: "t",
    OpType.Tdg: "tdg",
    OpType.U1: "p",
    OpType.U3: "u",
    OpType.X: "x",
    OpType.Y: "y",
    OpType.Z: "z",
}
_TWO = {
    OpType.CH: "ch",
    OpType.CRx: "crx",
    OpType.CRy: "cry",
    OpType.CRz: "crz",
    OpType.CU1: "cp",
    OpType.CX: "cx",
    OpType.CY: "cy",
    OpType.CZ: "cz",
    OpType.ECR: "ecr",
    OpType.SWAP: "swap",
    OpType.XXPhase: "rxx",
    OpType.YYPhase: "ryy",
    OpType.ZZPhase: "rzz",
}
_FRAMES = {OpType.Rz, OpType.U1, OpType.S, OpType.Sdg, OpType.T, OpType.Tdg, OpType.Z}


def from_pytket(backend: Any, *, name: str | None = None, **overrides: Any) -> Target:
    """See `Target.from_pytket`."""
    info = backend if isinstance(backend, BackendInfo) else getattr(backend, "backend_info", None)
    if not isinstance(info, BackendInfo):
        raise TargetError(f"{type(backend).__name__} says nothing of itself; give a pytket Backend with backend_info.")
    title = name or info.device_name or info.name
    if info.architecture is None or not info.architecture.nodes:
        raise TargetError(f"the backend {title} has no architecture, so its qubits and edges are unknown.")
    numbers = _numbers(title, info.architecture.nodes)
    gates = (*_one_qubit(info, numbers), *_two_qubit(info, numbers))
    if not any(len(gate.qubits) == 2 for gate in gates):
        raise TargetError(f"the backend {title} has no two-qubit gate of {', '.join(_TWO.values())}.")
    qubits = max(numbers.values()) + 1
    fields: dict[str, Any] = {
        "name": title,
        "description": f"{qubits} qubits, from pytket's {info.name}",
        "qubits": qubits,
        "gates": gates,
        "properties": _properties(info, numbers, qubits),
        "source": f"pytket's {info.name} {info.version}",
    }
    return Target(**{**fields, **overrides})


def _numbers(title: str, nodes: Iterable[Node]) -> dict[Node, int]:
    found = {node: node.index[0] for node in nodes if len(node.index) == 1}
    if len(found) < len(list(nodes)) or len(set(found.values())) < len(found):
        raise TargetError(
            f"the backend {title} numbers its nodes in more than one dimension or register; "
            "nodes of one register with one index each are accepted."
        )
    return found


def _one_qubit(info: BackendInfo, numbers: dict[Node, int]) -> Iterable[Gate]:
    reported = info.all_node_gate_errors or {}
    for node, qubit in numbers.items():
        errors = reported.get(node) or {}
        for kind in _native(info.gate_set, reported, _ONE):
            if kind in _FRAMES:
                yield Gate(_ONE[kind], (qubit,), errors.get(kind, 0.0) if reported else None, 0.0)
            else:
                yield Gate(_ONE[kind], (qubit,), errors.get(kind) or None)


def _two_qubit(info: BackendInfo, numbers: dict[Node, int]) -> Iterable[Gate]:
    reported = info.all_edge_gate_errors or {}
    for first, second in _couplings(info):
        for kind in _native(info.gate_set, reported, _TWO):
            directions = ((first, second), (second, first))
            errors = [error for edge in directions if (error := (reported.get(edge) or {}).get(kind))]
            yield Gate(_TWO[kind], (numbers[first], numbers[second]), min(errors, default=None))


def _native(
    gate_set: Iterable[OpType], errors: dict[Any, dict[OpType, float]], known: dict[OpType, str]
) -> list[OpType]:
    """Native gates: of the gate set, those whose errors are reported where any are, and changes of frame."""
    reported = {kind for entry in errors.values() for kind in entry or {}}
    native = [kind for kind in gate_set if kind in known and (not reported or kind in reported or kind in _FRAMES)]
    return sorted(native, key=lambda kind: known[kind])


def _couplings(info: BackendInfo) -> list[tuple[Node, Node]]:
    architecture = info.architecture
    if isinstance(architecture, Architecture):
        return list(dict.fromkeys(architecture.coupling))
    nodes = architecture.nodes if architecture is not None else []
    return [(first, second) for first in nodes for second in nodes if first != second]


def _properties(info: BackendInfo, numbers: dict[Node, int], qubits: int) -> tuple[QubitProperties, ...]:
    """Mean readout errors: pytket's matrix has P(read j | prepared i) in row i."""
    found: dict[int, float] = {}
    for node, matrix in (info.all_readout_errors or {}).items():
        if matrix is not None and node in numbers:
            found[numbers[node]] = (matrix[0][1] + matrix[1][0]) / 2
    return tuple(QubitProperties(found.get(q)) for q in range(qubits)) if found else ()
