"""What is to be routed, and what a method gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from qcascade.routing.flat import Flat

Keep: TypeAlias = Literal["outcomes", "state", "unitary"]


@dataclass(frozen=True)
class Problem:
    """A circuit to route.

    `ends[q]` is the wire of `source` where logical qubit q is at the end; `measured` are the logical qubits that are read.
    `keep` says what has to stay the same: the unitary, the state that |0…0⟩ becomes, or the outcomes of reading
    that state in the computational basis.
    """

    source: Flat
    ends: tuple[int, ...]
    measured: tuple[int, ...]
    keep: Keep = "state"


@dataclass(frozen=True)
class Placed:
    """A circuit on a target's qubits; logical qubit q starts on node `start[q]` and ends on node `end[q]`."""

    circuit: Flat
    start: tuple[int, ...]
    end: tuple[int, ...]
