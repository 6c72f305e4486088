"""What compilation gives back for a template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcascade.circuits.angles import AngleCircuit
from qcascade.targets import Target


@dataclass(frozen=True, eq=False)
class CompiledTemplate:
    """A template in the native gates of a target.

    Args:
        target: What it is compiled for.
        circuit: Angle circuit on ``Node(i)``, i being the target's qubit; its map still takes data, weights and loading
            angles. Its nodes are those that carry gates or are measured. From |0…0⟩ it gives the template's state, or,
            where the measurement is in the computational basis, a state with the same outcomes.
        placement: Logical qubit to the node where it starts.
        fidelity: Predicted, readout and idle decoherence included; None where the target is not calibrated.
        two_qubit_gates: Native two-qubit gates.
        two_qubit_depth: Layers of them.
        duration: Seconds of one run with its readout; None where unknown.
        method: What found it.
    """

    target: Target
    circuit: AngleCircuit
    placement: Mapping[int, int]
    fidelity: float | None
    two_qubit_gates: int
    two_qubit_depth: int
    duration: float | None
    method: str
