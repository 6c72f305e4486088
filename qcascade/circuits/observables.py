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


def measurement_groups(paulis: Iterable[PauliString]) -> list[tuple[dict[int, str], list[int]]]:
    """Strings grouped so that each group is measured by one choice of axis per qubit (greedy, first fit).

    Returns:
        For each group the axis of every qubit that it touches, and the places of its strings in `paulis`.

    Example:
        >>> measurement_groups((((0, "Z"),), ((0, "X"),), ((1, "Z"),)))
        [({0: 'Z', 1: 'Z'}, [0, 2]), ({0: 'X'}, [1])]
    """
    groups: list[tuple[dict[int, str], list[int]]] = []
    for place, pauli in enumerate(paulis):
        for basis, members in groups:
            if all(basis.get(qubit, axis) == axis for qubit, axis in pauli):
                basis.update(pauli)
                members.append(place)
                break
        else:
            groups.append((dict(pauli), [place]))
    return groups


def measurement_settings(paulis: Iterable[PauliString]) -> list[list[PauliString]]:
    """The strings of each group that one choice of axes measures.

    Example:
        >>> len(measurement_settings(one_and_two_body(4)))
        3
    """
    strings = tuple(paulis)
    return [[strings[place] for place in members] for _, members in measurement_groups(strings)]
