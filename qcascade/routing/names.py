"""Native gates: pytket's and Qiskit's names for the same gates, and circuits on nodes as plain lists of gates.

Targets, Qiskit and Aer's noise models name gates as Qiskit does; circuits are pytket's. This is the only table of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from pytket.circuit import Circuit, OpType

from qcascade.errors import CircuitError

Placed: TypeAlias = tuple[str, tuple[int, ...]]  # a gate by Qiskit's name and the device's qubits, in the gate's order

NAMES: Mapping[OpType, str] = {
    OpType.CX: "cx", OpType.CY: "cy", OpType.CZ: "cz", OpType.CH: "ch", OpType.ECR: "ecr", OpType.SWAP: "swap",
    OpType.ISWAPMax: "iswap", OpType.ZZPhase: "rzz", OpType.ZZMax: "rzz", OpType.XXPhase: "rxx",
    OpType.YYPhase: "ryy", OpType.CU1: "cp", OpType.CRx: "crx", OpType.CRy: "cry", OpType.CRz: "crz",
    OpType.CSX: "csx", OpType.SX: "sx", OpType.SXdg: "sxdg", OpType.X: "x", OpType.Y: "y", OpType.Z: "z",
    OpType.H: "h", OpType.S: "s", OpType.Sdg: "sdg", OpType.T: "t", OpType.Tdg: "tdg", OpType.Rx: "rx",
    OpType.Ry: "ry", OpType.Rz: "rz", OpType.U1: "p", OpType.U2: "u2", OpType.U3: "u", OpType.PhasedX: "r",
}  # fmt: skip
SYMMETRIC = frozenset({"cz", "rzz", "rxx", "ryy", "swap", "iswap", "cp"})  # the same gate with its qubits exchanged
DIAGONAL = frozenset(
    {"rz", "p", "u1", "z", "s", "sdg", "t", "tdg"}
)  # of one qubit: a change of frame where it takes no time
_NO_GATES = {OpType.Barrier, OpType.noop, OpType.Measure}


def placed_gates(circuit: Circuit) -> list[Placed]:
    """The gates of a circuit on nodes, in an order that respects the circuit; barriers and measurements are left out.

    Raises:
        CircuitError: A gate has no name in Qiskit, or a qubit is not on a node (a register with one index).

    Example:
        >>> from pytket.circuit import Node
        >>> circuit = Circuit()
        >>> circuit.add_qubit(Node(4)); circuit.add_qubit(Node(5))
        >>> placed_gates(circuit.SX(Node(4)).CZ(Node(4), Node(5)))
        [('sx', (4,)), ('cz', (4, 5))]
    """
    if any(len(qubit.index) != 1 for qubit in circuit.qubits):
        raise CircuitError(
            f"the circuit is on {circuit.qubits[:3]}…; place it on nodes of the target, as `route` does."
        )
    nodes = {qubit: qubit.index[0] for qubit in circuit.qubits}
    if len(set(nodes.values())) < len(nodes):
        raise CircuitError(
            "two registers of the circuit have qubits of the same number; place it on nodes of the target."
        )
    gates: list[Placed] = []
    for command in circuit.get_commands():
        kind = command.op.type
        if kind in NAMES:
            gates.append((NAMES[kind], tuple([nodes[qubit] for qubit in command.qubits])))
        elif kind not in _NO_GATES:
            raise CircuitError(
                f"{command.op.get_name()} is no native gate of any target; compile the circuit for its target first."
            )
    return gates
