"""Loading amplitudes: two-qubit gates to prepare a state from |0…0⟩.

A Gray-code tree of multiplexed RY (Möttönen et al. 2005) takes 2^q − 2 CNOTs for real amplitudes; a tree of multiplexed
RZ for the phases as many again: 2^(q+1) − 4. A tree's are in sequence; the second tree starts on qubits that the first
has left, so that the depth is a little less. Its plain-RY angles are a Walsh–Hadamard transform of the tree's, so the
shift rule gives exact gradients of the loaded data.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcascade.circuits.template import CircuitTemplate


@dataclass(frozen=True, slots=True)
class LoadingCosts:
    """Two-qubit gates and rotation angles of one loading, and its layers of two-qubit gates up to the last on each qubit."""

    two_qubit_gates: int
    angles: int
    layers: tuple[int, ...]


def loading(template: CircuitTemplate) -> LoadingCosts:
    """What loading a template's amplitudes takes; nothing where it starts from |0…0⟩.

    Example:
        >>> from pytket.circuit import Circuit
        >>> loading(CircuitTemplate(Circuit(4), (), (), amplitudes=True))
        LoadingCosts(two_qubit_gates=28, angles=30, layers=(27, 27, 25, 22))
    """
    if not template.amplitudes:
        return LoadingCosts(0, 0, (0,) * template.qubits)
    trees, qubits = 1 if template.real_amplitudes else 2, template.qubits
    gates = trees * (2**qubits - 2)
    if template.real_amplitudes:  # the tree's last multiplexed rotation is on the last qubit
        early = [2 ** (qubits - 2 - place) if 0 < place < qubits - 1 else 0 for place in range(qubits)]
    else:  # on the first two
        early = [max(0, qubits - 3) + (2**place - place if place > 1 else 0) for place in range(qubits)]
    return LoadingCosts(gates, trees * (2**qubits - 1), tuple(gates - saved for saved in early))
