"""Front ends: ways to write a circuit before it is routed. Each gives the same state, unitary or outcomes.

TKET's passes may end with its wires exchanged instead of with SWAPs; the problem's `ends` take note of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from pytket.circuit import Circuit, OpType
from pytket.passes import (
    AutoRebase,
    BasePass,
    CommuteThroughMultis,
    DecomposeTK2,
    FullPeepholeOptimise,
    GreedyPauliSimp,
    NormaliseTK2,
    PauliSimp,
    RemoveRedundancies,
)

from qcascade.routing.blocks import resynthesise
from qcascade.routing.diagonal import with_phases, without_effect
from qcascade.routing.flat import Flat, from_pytket, to_pytket
from qcascade.routing.problem import Problem

FrontEnd: TypeAlias = Callable[[Problem, bool], Problem | None]
_REBASE = AutoRebase({OpType.CX, OpType.Rz, OpType.Rx})


def raw(problem: Problem, rzz: bool) -> Problem | None:
    """As it is."""
    return problem


def reduced(problem: Problem, rzz: bool) -> Problem | None:
    """What is known of the start and not read at the end used, blocks of two qubits written anew."""
    if any(len(op.qubits) > 2 for op in problem.source.ops):
        return _passed(problem, [_REBASE], rzz)
    flat = with_phases(problem.source)
    read = tuple(problem.ends[q] for q in problem.measured)
    if problem.keep == "outcomes":
        flat = without_effect(flat, read)
    flat = resynthesise(flat, problem.keep, read=read, rzz=rzz)
    if problem.keep == "outcomes":
        flat = without_effect(flat, read)
    return Problem(flat, problem.ends, problem.measured, problem.keep)


def peephole(problem: Problem, rzz: bool) -> Problem | None:
    """TKET's FullPeepholeOptimise, for numbers only: of variables it makes angles that are not affine."""
    if problem.source.symbolic:
        return _passed(problem, [RemoveRedundancies(), CommuteThroughMultis(), RemoveRedundancies()], rzz)
    if rzz:
        return _passed(problem, [FullPeepholeOptimise(target_2qb_gate=OpType.TK2), NormaliseTK2(), DecomposeTK2()], rzz)
    return _passed(problem, [FullPeepholeOptimise()], rzz)


def pauli_gadgets(problem: Problem, rzz: bool) -> Problem | None:
    """TKET's GreedyPauliSimp, kept only where it reduces."""
    return _passed(problem, [_REBASE, GreedyPauliSimp(thread_timeout=20, only_reduce=True, trials=1)], rzz)


def pauli_sets(problem: Problem, rzz: bool) -> Problem | None:
    """TKET's PauliSimp: commuting Pauli gadgets diagonalised together."""
    return _passed(problem, [_REBASE, PauliSimp()], rzz)


FRONT_ENDS: Mapping[str, FrontEnd] = {
    "raw": raw,
    "reduced": reduced,
    "peephole": peephole,
    "pauli gadgets": pauli_gadgets,
    "pauli sets": pauli_sets,
}
SLOW = ("peephole", "pauli gadgets", "pauli sets")  # on wide and deep circuits


def _passed(problem: Problem, passes: list[BasePass], rzz: bool) -> Problem | None:
    circuit = to_pytket(problem.source)
    for step in passes:
        step.apply(circuit)
    found = flattened(circuit, problem.ends)
    if found is None:
        return None
    flat, ends = found
    return reduced(Problem(flat, ends, problem.measured, problem.keep), rzz)


def flattened(circuit: Circuit, ends: tuple[int, ...]) -> tuple[Flat, tuple[int, ...]] | None:
    """A circuit with its implicit permutation, as gates alone and where the wires that were at `ends` are now."""
    if any(c.op.type in (OpType.TK2, OpType.PhaseGadget, OpType.PauliExpBox) for c in circuit.get_commands()):
        AutoRebase({OpType.CX, OpType.Rz, OpType.SX, OpType.X}).apply(circuit)
    flat = from_pytket(circuit)
    if flat is None:
        return None
    place = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    moved = {place[end]: place[source] for source, end in circuit.implicit_qubit_permutation().items()}
    return flat, tuple(moved[wire] for wire in ends)
