"""Ways from a circuit on wires to native gates on a target's qubits.

Each takes a problem, a target and a seed, and gives a `Placed`, or None where it does not apply. They are top-level
functions of what can be pickled, so that processes can share them out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, TypeAlias

from pytket.architecture import Architecture
from pytket.circuit import Node, OpType
from pytket.passes import AutoRebase, DecomposeSwapsToCXs, PlacementPass, RoutingPass
from pytket.placement import NoiseAwarePlacement
from pytket.predicates import CompilationUnit
from qiskit import ClassicalRegister
from qiskit.transpiler import PassManager, generate_preset_pass_manager
from qiskit.transpiler import Target as QiskitTarget
from qiskit.transpiler.preset_passmanagers import builtin_plugins, level3

from qcascade.routing.blocks import resynthesise
from qcascade.routing.diagonal import without_effect
from qcascade.routing.emission import WRITTEN, emit
from qcascade.routing.fidelity import Prediction, find_gate, predict_gates
from qcascade.routing.flat import Flat, from_pytket, from_qiskit, to_pytket, to_qiskit
from qcascade.routing.once import once_per_target
from qcascade.routing.placement import costs, embeddings
from qcascade.routing.problem import Placed, Problem
from qcascade.targets import Target

Method: TypeAlias = Callable[[Problem, Target, int], Placed | None]
_PLUGINS = "PassManagerStagePluginManager"


def by_qiskit(problem: Problem, target: Target, seed: int) -> Placed | None:
    """Qiskit's transpiler at level 3, which knows the target's errors and what is read."""
    circuit = to_qiskit(problem.source)
    if problem.keep == "outcomes":
        circuit.add_register(ClassicalRegister(len(problem.measured)))
        circuit.measure([problem.ends[q] for q in problem.measured], range(len(problem.measured)))
    made = _transpiler(_enough(target, problem.source.width), seed).run(circuit)
    flat = from_qiskit(made)
    if flat is None:
        return None
    start = made.layout.initial_index_layout(filter_ancillas=True)
    final = made.layout.final_index_layout(filter_ancillas=True)
    end = [final[wire] for wire in problem.ends]
    if problem.keep == "outcomes":  # SWAPs just before a reading are left out, and the reading moved
        place = {qubit: number for number, qubit in enumerate(made.qubits)}
        for instruction in made.data:
            if instruction.operation.name == "measure":
                bit = made.find_bit(instruction.clbits[0]).index
                end[problem.measured[bit]] = place[instruction.qubits[0]]
        end = _apart(end, problem.measured, len(made.qubits))
    return Placed(flat, tuple(start), tuple(end))


def by_tket(problem: Problem, target: Target, seed: int) -> Placed | None:
    """TKET's noise-aware placement and LexiRoute; the seed makes no difference."""
    known = costs(target)
    architecture = Architecture([(Node(a), Node(b)) for a, b in target.edges])
    if seed or problem.source.width > len(architecture.nodes):
        return None
    circuit = to_pytket(problem.source)
    AutoRebase({OpType.CX, OpType.Rz, OpType.SX, OpType.X}).apply(circuit)
    errors = {Node(n): float(known.pulse[n]) for n in target.nodes}
    edges = {(Node(a), Node(b)): float(known.pair[a, b]) for a, b in target.edges}
    readout = {Node(n): float(known.readout[n]) for n in target.nodes}
    unit = CompilationUnit(circuit)
    PlacementPass(NoiseAwarePlacement(architecture, errors, edges, readout)).apply(unit)
    RoutingPass(architecture).apply(unit)
    DecomposeSwapsToCXs(architecture).apply(unit)
    routed = unit.circuit
    flat, nodes = from_pytket(routed), [q.index[0] for q in routed.qubits]
    if flat is None or any(q != end for q, end in routed.implicit_qubit_permutation().items()):
        return None
    start = [unit.initial_map[qubit].index[0] for qubit in circuit.qubits]
    final = [unit.final_map[qubit].index[0] for qubit in circuit.qubits]
    return Placed(
        flat.moved(dict(enumerate(nodes)), target.qubits or 0),
        tuple(start),
        tuple(final[wire] for wire in problem.ends),
    )


def by_embedding(problem: Problem, target: Target, seed: int) -> Placed | None:
    """No routing at all: the circuit's own pairs lie on edges of the target. The seed makes no difference."""
    if seed or any(len(op.qubits) > 1 and op.name not in WRITTEN for op in problem.source.ops):
        return None
    read = [problem.ends[q] for q in problem.measured]
    found = embeddings(problem.source, range(problem.source.width), read, target, most=1)
    if not found:
        return None
    place = found[0]
    return Placed(
        problem.source.moved(place, target.qubits or 0),
        tuple(place[wire] for wire in range(problem.source.width)),
        tuple(place[wire] for wire in problem.ends),
    )


METHODS: Mapping[str, Method] = {"qiskit": by_qiskit, "tket": by_tket, "embedding": by_embedding}


def in_native_gates(placed: Placed, problem: Problem, target: Target) -> Placed:
    """A method's result as it came where it is native, else emitted."""
    if is_native(placed.circuit, target):
        return placed
    return Placed(emit(placed.circuit, target, problem.keep), placed.start, placed.end)


def polished(placed: Placed, problem: Problem, target: Target) -> list[Placed]:
    """A native circuit emitted, and with its blocks written anew: SWAPs join the blocks of their neighbours."""
    flat, read = placed.circuit, [placed.end[q] for q in problem.measured]
    if problem.keep == "outcomes":
        flat = without_effect(flat, read)
    anew = resynthesise(flat, problem.keep, read=read, rzz="rzz" in target.operations)
    return [Placed(emit(way, target, problem.keep), placed.start, placed.end) for way in (flat, anew)]


def prediction(placed: Placed, problem: Problem, target: Target) -> Prediction:
    """What the circuit will come to, all of `measured` read."""
    return predict_gates(
        [(op.name, op.qubits) for op in placed.circuit.ops], target, [placed.end[q] for q in problem.measured]
    )


def is_native(flat: Flat, target: Target) -> bool:
    """Whether the target has every gate where it is."""
    return all(find_gate(target, op.name, op.qubits) is not None for op in flat.ops)


def _apart(end: list[int], measured: tuple[int, ...], width: int) -> list[int]:
    """Ends of qubits that are not read, moved away from those that are: what they hold is not asked for."""
    taken = {end[q] for q in measured}
    free = (node for node in range(width) if node not in taken and node not in end)
    return [next(free) if q not in measured and node in taken else node for q, node in enumerate(end)]


def _transpiler(target: Target, seed: int) -> PassManager:
    """Kept for the next circuit, since making one takes longer than a small circuit does."""
    made = _transpilers(target)
    if seed not in made:
        with _plugins_once():
            made[seed] = generate_preset_pass_manager(3, target=_qiskit_target(target), seed_transpiler=seed)
    return made[seed]


@contextlib.contextmanager
def _plugins_once() -> Iterator[None]:
    """With Qiskit's plugins looked up once: it reads their entry points for every stage of every pass manager, most of its time."""
    kept = [(module, getattr(module, _PLUGINS, None)) for module in (level3, builtin_plugins)]
    for module, made in kept:
        if made is not None:  # else a later Qiskit goes its own way
            setattr(module, _PLUGINS, lambda made=made: _made_once(made))
    try:
        yield
    finally:
        for module, made in kept:
            if made is not None:
                setattr(module, _PLUGINS, made)


@cache
def _made_once(make: Callable[[], Any]) -> Any:
    return make()


@once_per_target
def _transpilers(target: Target) -> dict[int, PassManager]:
    return {}


@once_per_target
def _qiskit_target(target: Target) -> QiskitTarget:
    return target.to_qiskit()


@lru_cache(maxsize=16)
def _enough(target: Target, width: int) -> Target:
    """Of qubits that are all alike and all joined, as many as are used: placing on more takes Qiskit minutes."""
    kinds = {(gate.name, gate.error, gate.seconds) for gate in target.gates}
    if not target.all_to_all or len(kinds) > len(target.operations) or len(set(target.properties)) > 1:
        return target
    chosen = set(target.nodes[:width])
    return replace(target, gates=tuple(gate for gate in target.gates if chosen.issuperset(gate.qubits)))
