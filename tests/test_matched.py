"""Matched placements against brute force, and what devices have and do not have."""

from __future__ import annotations

import math
from itertools import permutations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcascade.errors import CircuitError
from qcascade.routing.matched import best_chain, best_cycle, matched_placement, place
from qcascade.targets import Gate, QubitProperties, Target


def device(graph: nx.Graph, seed: int) -> Target:
    """A device with random figures on a graph."""
    random = np.random.default_rng(seed)
    gates = [Gate("rz", (q,), 0.0, 0.0) for q in graph]
    gates += [Gate("sx", (q,), float(random.uniform(1e-4, 5e-3)), 3e-8) for q in graph]
    gates += [Gate("cz", edge, float(random.uniform(1e-3, 5e-2)), 1e-7) for edge in graph.edges]
    properties = [
        QubitProperties(float(random.uniform(0.01, 0.1)), 1e-6, float(random.uniform(2e-5, 2e-4)), 3e-5) for _ in graph
    ]
    return Target("random", "", len(graph), tuple(gates), tuple(properties))


def cost(target: Target, nodes: tuple[int, ...], pairs: dict[tuple[int, int], float]) -> float:
    """−ln fidelity, written out: process fidelities of the pulses, waits, readouts and two-qubit gates."""
    largest = 2 ** len(nodes)
    scale = largest / (largest + 1)
    busy = [sum(count for pair, count in pairs.items() if q in pair) for q in range(len(nodes))]
    total = 0.0
    for (first, second), count in pairs.items():
        edge = target.graph.edges[nodes[first], nodes[second]]
        total -= count * math.log(1 - edge["error"] * 5 / 4 * scale)
    for k, node in enumerate(nodes):
        properties = target.properties[node]
        error = target.places["sx", (node,)].error
        wait = (max(busy) - busy[k]) * 1e-7
        total -= (busy[k] + 1) * math.log(1 - error * 3 / 2 * scale) + math.log(1 - properties.readout_error)
        total -= math.log((1 + math.exp(-wait / properties.t1) + 2 * math.exp(-wait / properties.t2)) / 4)
    return total


@st.composite
def problems(draw: st.DrawFn) -> tuple[Target, int, dict[tuple[int, int], float]]:
    size = draw(st.integers(3, 6))
    edges = [(a, b) for a in range(size) for b in range(a)]
    graph = nx.Graph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from(draw(st.lists(st.sampled_from(edges), min_size=2, unique=True)))
    qubits = draw(st.integers(1, min(size, 5)))
    wanted = [(a, b) for a in range(qubits) for b in range(a)]
    pairs = draw(st.dictionaries(st.sampled_from(wanted), st.integers(1, 5))) if wanted else {}
    return device(graph, draw(st.integers(0, 99))), qubits, dict(pairs)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_best_placement_is_what_brute_force_finds(problem: tuple[Target, int, dict[tuple[int, int], float]]) -> None:
    target, qubits, pairs = problem
    costs = [
        cost(target, nodes, pairs)
        for nodes in permutations(range(target.qubits or 0), qubits)
        if all(target.graph.has_edge(nodes[a], nodes[b]) for a, b in pairs)
    ]
    found = place(pairs, target, qubits)
    if not costs:
        assert found is None
        return
    assert found is not None
    assert found.cost == pytest.approx(min(costs), rel=1e-9)
    assert cost(target, found.nodes, pairs) == pytest.approx(found.cost, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 8), st.integers(0, 99))
def test_chains_and_cycles_of_a_grid(length: int, seed: int) -> None:
    target = device(nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3)), seed)
    chain, cycle = best_chain(target, length), best_cycle(target, length)
    assert chain is not None
    assert all(target.graph.has_edge(*edge) for edge in zip(chain.nodes, chain.nodes[1:], strict=False))
    assert (cycle is not None) == (length % 2 == 0)
    every = [
        path
        for start in target.nodes
        for end in target.nodes
        for path in nx.all_simple_paths(target.graph, start, end, cutoff=length - 1)
        if len(path) == length
    ]
    pairs = {(k, k + 1): 1.0 for k in range(length - 1)}
    assert chain.cost == pytest.approx(min(cost(target, tuple(path), pairs) for path in every), rel=1e-9)


def test_heavy_hexagons_have_cycles_of_twelve_and_none_shorter(torino: Target) -> None:
    found = [length for length in range(3, 13) if best_cycle(torino, length) is not None]
    assert found == [12]
    assert best_chain(torino, 16) == best_chain(torino, 16)


def test_any_subgraph_is_placed_and_what_does_not_fit_is_not(torino: Target) -> None:
    star = {(0, 1): 2, (0, 2): 2, (3, 0): 2, (3, 4): 1}
    nodes = matched_placement(star, torino)
    assert nodes is not None
    assert all(torino.graph.has_edge(nodes[a], nodes[b]) for a, b in star)
    assert matched_placement({**star, (0, 4): 1}, torino) is None  # a triangle
    assert matched_placement({(0, k): 1 for k in range(1, 5)}, torino) is None  # four neighbours


def test_wide_and_well_connected_targets_are_searched_in_bounded_time() -> None:
    grid = device(nx.convert_node_labels_to_integers(nx.grid_2d_graph(8, 8)), 3)
    chain = best_chain(grid, 24)
    assert chain is not None
    assert len(set(chain.nodes)) == 24
    full = device(nx.complete_graph(12), 3)
    assert best_cycle(full, 12) is not None


def test_wider_than_the_target() -> None:
    assert best_chain(device(nx.path_graph(4), 0), 5) is None


@pytest.mark.parametrize("work", [lambda t: best_chain(t, 0), lambda t: best_cycle(t, 2),
                                  lambda t: matched_placement({(1, 1): 1}, t), lambda t: place({(0, 3): 1}, t, 2)])  # fmt: skip
def test_senseless_requests_are_refused(work: object) -> None:
    with pytest.raises(CircuitError):
        work(device(nx.path_graph(4), 0))  # type: ignore[operator]
