"""Matched placements: the best chain, cycle or subgraph of a target for a pattern of two-qubit gates, so that none is routed.

What comes in: how many two-qubit gates each pair of logical qubits takes. What goes out: the node of every logical qubit
such that all these pairs are neighbours, with the least −ln fidelity over all gates, readouts and waits, or None where
the pattern does not fit the target. Figures that are not known count nothing.

The search places one logical qubit after another next to those it interacts with, and is exhaustive by branch and bound
(the bound: the cheapest node and edge for all that is left) up to a fixed number of steps; a beam search gives the first
bound, and the best found so far is the answer where the steps run out, as they may on wide and well-connected targets.
It is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

from qcascade.errors import CircuitError
from qcascade.routing.fidelity import is_virtual, relaxation_fidelity
from qcascade.targets import Target

_STEPS = 50_000  # placements tried before the search settles for the best so far
_BEAM = 64  # partial placements kept by the beam search


@dataclass(frozen=True, slots=True)
class Placement:
    """Where logical qubits go: qubit k to `nodes[k]`, and −ln fidelity of what they do there."""

    nodes: tuple[int, ...]
    cost: float


def best_chain(
    target: Target, length: int, *, two_qubit_gates: float = 1.0, one_qubit_gates: float | None = None
) -> Placement | None:
    """The best path of `length` nodes.

    Args:
        target: Where; one without limits takes any numbers.
        length: Number of nodes.
        two_qubit_gates: Native two-qubit gates on every edge.
        one_qubit_gates: Pulses on every node; None: one for every two-qubit gate there, and one more.

    Returns:
        None where the target has no such path.

    Raises:
        CircuitError: The length is below 1.

    Example:
        >>> from qcascade.targets import Gate
        >>> edges = {(0, 1): 0.01, (1, 2): 0.02, (2, 3): 0.01, (3, 0): 0.01}
        >>> gates = [Gate("sx", (q,), 1e-4) for q in range(4)] + [Gate("cz", e, error) for e, error in edges.items()]
        >>> best_chain(Target("square", "four qubits", 4, tuple(gates)), 3).nodes
        (0, 3, 2)
    """
    if length < 1:
        raise CircuitError(f"a chain of {length} nodes is asked for; at least 1 is needed.")
    pairs = dict.fromkeys(zip(range(length - 1), range(1, length), strict=True), two_qubit_gates)
    return place(pairs, target, length, one_qubit_gates=one_qubit_gates)


def best_cycle(
    target: Target, length: int, *, two_qubit_gates: float = 1.0, one_qubit_gates: float | None = None
) -> Placement | None:
    """The best cycle of `length` nodes; see `best_chain`. Heavy-hexagonal devices have none below 12, grids no odd ones.

    Raises:
        CircuitError: The length is below 3.

    Example:
        >>> best_cycle(Target("ideal", "no limits"), 5).nodes
        (0, 1, 2, 3, 4)
    """
    if length < 3:
        raise CircuitError(f"a cycle of {length} nodes is asked for; at least 3 are needed.")
    pairs = dict.fromkeys(zip(range(length), [*range(1, length), 0], strict=True), two_qubit_gates)
    return place(pairs, target, length, one_qubit_gates=one_qubit_gates)


def matched_placement(interactions: Mapping[tuple[int, int], float], target: Target) -> tuple[int, ...] | None:
    """The best nodes for a circuit whose interactions fit the target as they are.

    Args:
        interactions: Two-qubit gates on each pair of logical qubits, in either order.
        target: Where.

    Returns:
        The node of each logical qubit up to the largest one named, or None where the interactions do not fit.

    Raises:
        CircuitError: A pair names one qubit twice, or a negative one.

    Example:
        >>> from qcascade.targets import Gate
        >>> gates = [Gate("sx", (q,)) for q in range(3)] + [Gate("cz", (0, 1)), Gate("cz", (1, 2))]
        >>> line = Target("line", "three qubits", 3, tuple(gates))
        >>> matched_placement({(0, 1): 4, (2, 0): 1}, line)
        (1, 0, 2)
        >>> matched_placement({(0, 1): 1, (1, 2): 1, (2, 0): 1}, line) is None
        True
    """
    qubits = 1 + max((max(pair) for pair in interactions), default=-1)
    found = place(interactions, target, qubits)
    return None if found is None else found.nodes


def best_entangler(target: Target, widths: Iterable[int]) -> str:
    """The pattern for ansätze of these widths: "source", "chain" or "cycle", one for all of them.

    "source" where all qubits are joined; "cycle" where there is a cycle of every width from 3 and each costs less per
    entangler than the best chain; else "chain", which needs no routing where there is one, and little where there is none.

    Example:
        >>> best_entangler(Target("ideal", "no limits"), [4, 6])
        'source'
    """
    return _best_entangler(_ByDigest(target.digest, target), tuple(sorted({w for w in widths if w > 2})))


@dataclass(frozen=True, slots=True)
class _ByDigest:
    digest: str
    target: Target = field(compare=False)


@lru_cache(maxsize=256)
def _best_entangler(key: _ByDigest, widths: tuple[int, ...]) -> str:
    target = key.target
    if target.all_to_all:
        return "source"
    for width in widths:
        cycle, chain = best_cycle(target, width), best_chain(target, width)
        if cycle is None or (chain is not None and cycle.cost / width >= chain.cost / (width - 1)):
            return "chain"
    return "cycle" if widths else "chain"


def place(
    interactions: Mapping[tuple[int, int], float],
    target: Target,
    qubits: int,
    *,
    one_qubit_gates: float | Sequence[float] | None = None,
    readout: bool = True,
) -> Placement | None:
    """The best placement of `qubits` logical qubits with these interactions; see `matched_placement`.

    Args:
        interactions: Native two-qubit gates on each pair.
        target: Where.
        qubits: How many, those without interactions included.
        one_qubit_gates: Pulses on every qubit, one number or one each; None: one a two-qubit gate there, and one more.
        readout: Whether all are measured.

    Raises:
        CircuitError: A pair names one qubit twice, or one that there is not.
    """
    counts: dict[tuple[int, int], float] = {}
    for first, second in interactions:
        if first == second or not (0 <= first < qubits and 0 <= second < qubits):
            raise CircuitError(f"the interaction ({first}, {second}) is no pair of different qubits of {qubits}.")
        pair = (min(first, second), max(first, second))
        counts[pair] = counts.get(pair, 0.0) + interactions[first, second]
    if target.qubits is None:
        return Placement(tuple(range(qubits)), 0.0)
    if qubits > len(target.nodes):
        return None
    problem = _Problem(target, qubits, counts, _node_costs(target, qubits, counts, one_qubit_gates, readout))
    return problem.solve()


@dataclass(frozen=True)
class _Problem:
    """Where to put logical qubits; nodes are numbered by their place in `target.nodes`."""

    target: Target
    qubits: int
    counts: Mapping[tuple[int, int], float]
    node_costs: NDArray[np.float64]  # [qubits, nodes]

    @cached_property
    def graph(self) -> nx.Graph:
        """The interactions."""
        graph = nx.Graph()
        graph.add_nodes_from(range(self.qubits))
        graph.add_edges_from(self.counts)
        return graph

    @cached_property
    def edge_costs(self) -> list[dict[int, float]]:
        """−ln fidelity of one two-qubit gate with each neighbour of each node."""
        number = {node: k for k, node in enumerate(self.target.nodes)}
        costs: list[dict[int, float]] = [{} for _ in number]
        for first, second, error in self.target.graph.edges(data="error"):
            cost = _cost(error, 4, self.qubits)
            costs[number[first]][number[second]] = costs[number[second]][number[first]] = cost
        return costs

    @cached_property
    def order(self) -> list[int]:
        """Logical qubits, each after the first of its component next to one before it; busiest first where free."""
        order: list[int] = []
        degree = dict(self.graph.degree())
        for component in sorted(nx.connected_components(self.graph), key=lambda c: (-len(c), min(c))):
            if max(degree[q] for q in component) <= 2:  # a path from its end, a cycle from its first qubit
                start = min(component, key=lambda q: (degree[q], q))
                order.extend(nx.dfs_preorder_nodes(self.graph, start))
            else:
                start = min(component, key=lambda q: (-degree[q], q))
                order.extend([start, *(second for _, second in nx.bfs_edges(self.graph, start))])
        return order

    @cached_property
    def reach(self) -> NDArray[np.float64]:
        """Distances between logical qubits: neighbours must stay neighbours, so none may be farther apart on the device."""
        distances = np.full((self.qubits, self.qubits), np.inf)
        for first, found in nx.all_pairs_shortest_path_length(self.graph):
            for second, distance in found.items():
                distances[first, second] = distance
        return distances

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """Distances between nodes."""
        rows = [k for k, near in enumerate(self.edge_costs) for _ in near]
        columns = [other for near in self.edge_costs for other in near]
        size = len(self.edge_costs)
        return np.asarray(
            shortest_path(csr_array((np.ones(len(rows)), (rows, columns)), (size, size)), unweighted=True)
        )

    @cached_property
    def steps(self) -> list[tuple[list[tuple[int, float]], list[int], list[float]]]:
        """For each place in `order`: earlier partners with their gates, all earlier places and the distances allowed."""
        place = {qubit: k for k, qubit in enumerate(self.order)}
        steps = []
        for k, qubit in enumerate(self.order):
            partners = [
                (place[other], self.counts[min(qubit, other), max(qubit, other)])
                for other in self.graph[qubit]
                if place[other] < k
            ]
            earlier = [place[q] for q in self.order[:k] if np.isfinite(self.reach[qubit, q])]
            steps.append((sorted(partners), earlier, [float(self.reach[qubit, self.order[e]]) for e in earlier]))
        return steps

    @cached_property
    def remaining(self) -> list[float]:
        """The least that all places from k on can cost."""
        cheapest = min((cost for near in self.edge_costs for cost in near.values()), default=0.0)
        least = [
            float(self.node_costs[qubit].min()) + cheapest * sum(count for _, count in partners)
            for qubit, (partners, _, _) in zip(self.order, self.steps, strict=True)
        ]
        return [math.fsum(least[k:]) for k in range(self.qubits + 1)]

    def choices(self, placed: tuple[int, ...], cost: float) -> list[tuple[float, int]]:
        """Cost so far and node of every way to place the next logical qubit, cheapest first."""
        k = len(placed)
        partners, earlier, allowed = self.steps[k]
        near = self.edge_costs[placed[partners[0][0]]] if partners else range(len(self.edge_costs))
        own = self.node_costs[self.order[k]]
        found = []
        for node in near:
            if node in placed or any(node not in self.edge_costs[placed[p]] for p, _ in partners[1:]):
                continue
            row = self.distances[node]
            if any(row[placed[e]] > most for e, most in zip(earlier, allowed, strict=True)):
                continue
            paid = sum(count * self.edge_costs[placed[p]][node] for p, count in partners)
            found.append((cost + paid + float(own[node]), node))
        return sorted(found)

    def beam(self) -> tuple[float, tuple[int, ...]]:
        """A good placement and its cost, infinite where the beam found none."""
        kept: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for _ in range(self.qubits):
            grown = [(cost, (*placed, node)) for before, placed in kept for cost, node in self.choices(placed, before)]
            kept = sorted(grown)[:_BEAM]
        return kept[0] if kept else (math.inf, ())

    def solve(self) -> Placement | None:
        """Branch and bound from the beam's answer."""
        best, answer = self.beam()
        tried = 0
        stack: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        while stack and tried < _STEPS:
            cost, placed = stack.pop()
            if cost + self.remaining[len(placed)] >= best - 1e-12:
                continue
            tried += 1
            if len(placed) == self.qubits:
                best, answer = cost, placed
                continue
            for more, node in reversed(self.choices(placed, cost)):
                stack.append((more, (*placed, node)))
        if not math.isfinite(best):
            return None
        nodes = dict(zip(self.order, answer, strict=True))
        return Placement(tuple(self.target.nodes[nodes[q]] for q in range(self.qubits)), best)


def _node_costs(
    target: Target,
    qubits: int,
    counts: Mapping[tuple[int, int], float],
    one_qubit_gates: float | Sequence[float] | None,
    readout: bool,
) -> NDArray[np.float64]:
    """−ln fidelity [qubits, nodes] of each logical qubit's pulses, readout and waits on each node.

    A qubit waits while busier ones run two-qubit gates: for as many gates as the busiest has more, at the median duration.
    """
    busy = np.zeros(qubits)
    for (first, second), count in counts.items():
        busy[first] += count
        busy[second] += count
    pulses = busy + 1 if one_qubit_gates is None else np.broadcast_to(np.asarray(one_qubit_gates, float), (qubits,))
    times = [gate.seconds for gate in target.gates if len(gate.qubits) == 2 and gate.seconds is not None]
    idle = (busy.max(initial=0.0) - busy) * (float(np.median(times)) if times else 0.0)
    errors: dict[int, list[float]] = {}
    for gate in target.gates:
        if len(gate.qubits) == 1 and gate.error is not None and not is_virtual(gate):
            errors.setdefault(gate.qubits[0], []).append(gate.error)
    costs = np.zeros((qubits, len(target.nodes)))
    for place, node in enumerate(target.nodes):
        costs[:, place] += pulses * _cost(min(errors.get(node, [0.0])), 2, qubits)
        entry = target.properties[node] if target.properties else None
        if entry is None:
            continue
        if readout and entry.readout_error:
            costs[:, place] -= math.log(max(1 - entry.readout_error, 1e-300))
        if entry.t1 and entry.t2:
            t1, t2 = np.array(entry.t1), np.array(entry.t2)
            costs[:, place] -= np.log(relaxation_fidelity(idle, t1, t2))
    return costs


def _cost(error: float | None, dimension: int, qubits: int) -> float:
    """−ln of one gate's fidelity among `qubits` entangled ones, as `fidelity.predict` counts it."""
    joined = 2.0 ** max(qubits, int(math.log2(dimension)))
    infidelity = (error or 0.0) * (dimension + 1) / dimension * joined / (joined + 1)
    return -math.log(max(1 - infidelity, 1e-300))
