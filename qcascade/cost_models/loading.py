"""Loading amplitudes: two-qubit gates to prepare a state from |0…0⟩.

A Gray-code tree of multiplexed RY (Möttönen et al. 2005) takes 2^q − 2 CNOTs for real amplitudes; a tree of multiplexed
RZ for the phases as many again: 2^(q+1) − 4. Its plain-RY angles are a Walsh–Hadamard transform of the tree's, so the
shift rule gives exact gradients of the loaded data.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcascade.circuits.template import CircuitTemplate


@dataclass(frozen=True, slots=True)
class LoadingCosts:
    """Two-qubit gates and rotation angles of one loading; the gates are in sequence, so they are its depth too."""

    two_qubit_gates: int
    angles: int


def loading(template: CircuitTemplate) -> LoadingCosts:
    """What loading a template's amplitudes takes; nothing where it starts from |0…0⟩.

    Example:
        >>> from pytket.circuit import Circuit
        >>> loading(CircuitTemplate(Circuit(4), (), (), amplitudes=True))
        LoadingCosts(two_qubit_gates=28, angles=30)
    """
    if not template.amplitudes:
        return LoadingCosts(0, 0)
    trees = 1 if template.real_amplitudes else 2
    return LoadingCosts(trees * (2**template.qubits - 2), trees * (2**template.qubits - 1))
