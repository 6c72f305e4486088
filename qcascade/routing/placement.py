"""Lay a circuit on the qubits of a target where it does best, moving nothing but the names of its wires.

What comes in: gates whose pairs of wires can be mapped into the target's graph (a routed circuit, or one that needs no
routing). What goes out: the best mappings, by −ln of the predicted fidelity, which is a sum over wires and pairs: gates,
readout, and relaxation for the time that a wire waits.

Method: beam search over partial embeddings, a wire at a time next to those already placed; it is exhaustive
where no level has more embeddings than the beam is wide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from qcascade.routing.emission import emit, entangler, one_qubit_basis
from qcascade.routing.fidelity import find_gate, is_virtual
from qcascade.routing.flat import Flat
from qcascade.routing.once import once_per_target
from qcascade.routing.problem import Keep, Placed
from qcascade.routing.schedule import before_the_end, idle_times
from qcascade.targets import Target

_BEAM = 20_000
_WORST = 50.0  # −ln of what cannot be


@dataclass(frozen=True)
class Costs:
    """−ln(1 − infidelity) of a target's parts, 0 where unknown; infinite between qubits that are not joined."""

    pulse: NDArray[np.float64]  # [N] of one one-qubit pulse
    pair: NDArray[np.float64]  # [N, N] of one two-qubit gate, in its better direction
    readout: NDArray[np.float64]  # [N]
    idle: NDArray[np.float64]  # [N] a second of waiting
    neighbours: NDArray[np.int64]  # [N, largest degree], −1 where there are fewer
    nodes: NDArray[np.int64]  # usable qubits


@once_per_target
def costs(target: Target) -> Costs:
    """The target's costs."""
    width = target.qubits or 0
    pulse, readout, idle = np.zeros(width), np.zeros(width), np.zeros(width)
    pair = np.full((width, width), np.inf)
    basis = one_qubit_basis(target)
    for node in target.nodes:
        gate = find_gate(target, basis, (node,))
        pulse[node] = np.inf if gate is None else 0.0 if is_virtual(gate) else _minus_log(gate.error, 1.5)
        if target.properties:
            entry = target.properties[node]
            readout[node] = _minus_log(entry.readout_error, 1.0)
            idle[node] = (1 / entry.t1 + 2 / min(entry.t2, 2 * entry.t1)) / 4 if entry.t1 and entry.t2 else 0.0
    adjacent: list[list[int]] = [[] for _ in range(width)]
    for first, second in target.edges:
        native = entangler(target, first, second)
        if native is None:
            continue
        found = target.places[native.name, native.qubits]
        pair[first, second] = pair[second, first] = _minus_log(found.error, 1.25)
        adjacent[first].append(second)
        adjacent[second].append(first)
    degree = max((len(a) for a in adjacent), default=0) or 1
    neighbours = np.array([a + [-1] * (degree - len(a)) for a in adjacent], dtype=np.int64)
    return Costs(pulse, pair, readout, idle, neighbours, np.array(target.nodes, dtype=np.int64))


def embeddings(
    flat: Flat, wires: Sequence[int], read: Sequence[int], target: Target, *, most: int = 8
) -> list[dict[int, int]]:
    """The best maps from wires to nodes under which every two-qubit gate is on an edge; none if there is no such map.

    Args:
        flat: Gates on at most two wires.
        wires: The wires to place: all that carry a gate, start or are read.
        read: Those that are read at the end.
        target: Where to.
        most: Maps wanted.
    """
    known = costs(target)
    if len(wires) > len(known.nodes):
        return []
    pairs = Counter(tuple(sorted(op.qubits)) for op in flat.ops if len(op.qubits) == 2)
    graph = nx.Graph()
    graph.add_nodes_from(sorted(wires))
    graph.add_edges_from(sorted(pairs))
    if max((d for _, d in graph.degree), default=0) > known.neighbours.shape[1]:
        return []
    alone = _alone(flat, read, target, known)
    images, total = np.zeros((1, 0), dtype=np.int64), np.zeros(1)
    order = _order(graph)
    for number, wire in enumerate(order):
        near = [
            (order.index(other), pairs[tuple(sorted((wire, other)))])
            for other in graph[wire]
            if other in order[:number]
        ]
        images, total = _extended(images, total, near, alone[wire], known)
        if not len(total):
            return []
    best = np.argsort(total, kind="stable")[:most]
    return [dict(zip(order, images[row].tolist(), strict=True)) for row in best]


def replaced(placed: Placed, read: Sequence[int], target: Target, keep: Keep, *, most: int = 8) -> list[Placed]:
    """The same circuit in its best places, in native gates.

    Args:
        placed: On nodes of the target.
        read: Logical qubits that are read.
        target: Its target.
        keep: See `emit`.
        most: Places wanted.
    """
    wires = sorted({*placed.circuit.used, *placed.start, *placed.end})
    maps = embeddings(placed.circuit, wires, [placed.end[q] for q in read], target, most=most)
    written: dict[tuple[tuple[str, bool] | None, ...], tuple[dict[int, int], Flat]] = {}
    found = list[Placed]()
    for place in maps:
        ways = _ways(placed.circuit, place, target)
        if ways not in written:
            written[ways] = place, emit(placed.circuit.moved(place, placed.circuit.width), target, keep)
        first, flat = written[ways]  # the same gates are native there: only the names of qubits differ
        if first is not place:
            flat = flat.moved({first[wire]: place[wire] for wire in wires}, flat.width)
        found.append(Placed(flat, tuple(place[n] for n in placed.start), tuple(place[n] for n in placed.end)))
    return found


def _ways(flat: Flat, place: dict[int, int], target: Target) -> tuple[tuple[str, bool] | None, ...]:
    """For each two-qubit gate the native gate where it would be, and whether that runs in its direction."""
    known: dict[tuple[int, ...], tuple[str, bool] | None] = {}
    for op in flat.ops:
        if len(op.qubits) == 2 and op.qubits not in known:
            first, second = (place[q] for q in op.qubits)
            native = entangler(target, first, second)
            known[op.qubits] = None if native is None else (native.name, native.qubits == (first, second))
    return tuple(known.values())


def _extended(
    images: NDArray[np.int64],
    total: NDArray[np.float64],
    near: list[tuple[int, int]],
    alone: NDArray[np.float64],
    known: Costs,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every partial embedding with one wire more, the best of them."""
    if not near and len(images) * len(known.nodes) > _BEAM:
        kept = np.argsort(total, kind="stable")[: max(1, _BEAM // len(known.nodes))]
        images, total = images[kept], total[kept]
    anywhere = np.broadcast_to(known.nodes, (len(images), len(known.nodes)))
    places = known.neighbours[images[:, near[0][0]]] if near else anywhere
    rows = np.repeat(np.arange(len(images)), places.shape[1])
    flat = places.reshape(-1)
    free = (flat >= 0) & ~(images[rows] == flat[:, None]).any(1)
    rows, flat = rows[free], flat[free]
    cost = total[rows] + alone[flat]
    for column, gates in near:
        cost = cost + gates * known.pair[images[rows, column], flat]
    finite = np.flatnonzero(np.isfinite(cost))
    if len(finite) > _BEAM:
        finite = finite[np.argsort(cost[finite], kind="stable")[:_BEAM]]
    return np.concatenate((images[rows[finite]], flat[finite, None]), axis=1), cost[finite]


def _alone(flat: Flat, read: Sequence[int], target: Target, known: Costs) -> dict[int, NDArray[np.float64]]:
    """Per wire the cost at every node of what concerns it alone."""
    pulses = Counter(op.qubits[0] for op in flat.ops if len(op.qubits) == 1 and op.name not in ("rz", "p", "u1"))
    waits = _waits(flat, target)
    wires = {*flat.used, *range(flat.width)}
    return {
        wire: pulses[wire] * known.pulse + waits.get(wire, 0.0) * known.idle + (wire in read) * known.readout
        for wire in wires
    }


def _waits(flat: Flat, target: Target) -> dict[int, float]:
    """Seconds that each wire waits, at the target's median gate times; they change little from place to place."""
    pulse, pair = _median_seconds(target)
    gates = [op for op in flat.ops if op.name not in ("rz", "p", "u1")]
    places, seconds = [op.qubits for op in gates], [pair if len(op.qubits) > 1 else pulse for op in gates]
    waits: dict[int, float] = {}
    for _, wire, wait in idle_times(places, seconds, before_the_end(places, seconds, target.parallel_two_qubit_gates)):
        waits[wire] = waits.get(wire, 0.0) + wait
    return waits


def _order(graph: nx.Graph) -> list[int]:
    """Wires so that each but the first of its component follows a neighbour, and the most joined come early."""
    order = list[int]()
    for component in sorted(nx.connected_components(graph), key=lambda c: (-len(c), min(c))):
        left = set(component)
        while left:
            placed = set(order)
            wire = max(sorted(left), key=lambda w: (len(placed & set(graph[w])), graph.degree[w]))
            order.append(wire)
            left.remove(wire)
    return order


@once_per_target
def _median_seconds(target: Target) -> tuple[float, float]:
    gates = target.gates
    pulses = [g.seconds for g in gates if len(g.qubits) == 1 and g.seconds]
    pairs = [g.seconds for g in gates if len(g.qubits) == 2 and g.seconds]
    return (float(np.median(pulses)) if pulses else 0.0), (float(np.median(pairs)) if pairs else 0.0)


def _minus_log(error: float | None, growth: float) -> float:
    """`growth` is the infidelity of a gate in a larger entangled register over its own, see `fidelity`."""
    return 0.0 if error is None else min(_WORST, -math.log(max(1e-20, 1 - growth * error)))
