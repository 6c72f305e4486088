"""What is to be routed, and what a method gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from qcascade.errors import CircuitError
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


@dataclass(frozen=True, slots=True)
class Options:
    """How to search.

    Args:
        seeds: Seeds of every method that has any.
        seconds: Time budget; the best so far is returned, and one method always runs to its end. None: no limit.
        workers: Processes at most; None: the cores there are.
        verify: Whether to prove the result equal to its source by simulation.
        cache: Whether to look up and keep the result on disk.
    """

    seeds: int = 10
    seconds: float | None = None
    workers: int | None = None
    verify: bool = True
    cache: bool = True

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise CircuitError(f"seeds is {self.seeds}; at least 1 is needed.")
        if self.seconds is not None and not self.seconds >= 0:
            raise CircuitError(f"seconds is {self.seconds}; a number from 0 is accepted, or None for no limit.")
        if self.workers is not None and self.workers < 1:
            raise CircuitError(f"workers is {self.workers}; at least 1 is needed, or None for the cores there are.")
