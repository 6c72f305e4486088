"""Pauli strings: the usual sets, and grouping into measurement settings."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from qcascade.circuits.template import PauliString


def single_z(qubits: int) -> tuple[PauliString, ...]:
    """Z on every qubit in turn.

    Example:
        >>> single_z(2)
        (((0, 'Z'),), ((1, 'Z'),))
    """
    return tuple(((qubit, "Z"),) for qubit in range(qubits))


def one_and_two_body(qubits: int) -> tuple[PauliString, ...]:
    """σ_i and σ_iσ_j for σ in X, Y, Z: 3q + 3q(q−1)/2 strings, axis by axis, singles before pairs.

    Example:
        >>> len(one_and_two_body(8))
        108
    """
    return tuple(
        tuple((qubit, axis) for qubit in members)
        for axis in "XYZ"
        for size in (1, 2)
        for members in combinations(range(qubits), size)
    )


def measurement_settings(paulis: Iterable[PauliString]) -> list[list[PauliString]]:
    """Strings grouped so that each group is measured by one choice of axis per qubit (greedy, first fit).

    Example:
        >>> len(measurement_settings(one_and_two_body(4)))
        3
    """
    bases: list[dict[int, str]] = []
    groups: list[list[PauliString]] = []
    for pauli in paulis:
        for basis, group in zip(bases, groups, strict=True):
            if all(basis.get(qubit, axis) == axis for qubit, axis in pauli):
                basis.update(pauli)
                group.append(pauli)
                break
        else:
            bases.append(dict(pauli))
            groups.append([pauli])
    return groups
