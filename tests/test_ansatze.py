"""Entanglers: where two-qubit gates lie, how many angles there are, and that kernels take them from the target."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit
from sympy import Symbol

import qcascade
from qcascade.capture import capture
from qcascade.circuits.ansatze import (
    matching,
    mixer_pairs,
    neighbours,
    offset_entangler,
    position_mixer,
    random_rotations,
    ring_ansatz,
)
from qcascade.errors import CircuitError, PlanError
from qcascade.facts import AttentionFacts, EmbeddingFacts, HeadFacts, LinearFacts, RegionFacts
from qcascade.kernels import KERNELS
from qcascade.passes.base import PipelineState, Request, run_passes
from qcascade.passes.pipeline import FIND
from qcascade.passes.propose_candidates import ProposeCandidates
from qcascade.routing.matched import best_entangler, matched_placement
from qcascade.targets import Gate, Target

FACTS: dict[str, RegionFacts] = {
    "amplitude_attention_pooling": AttentionFacts(8, 2, 4, batch=2, sequence_length=9, max_length=30),
    "random_circuit_embedding": EmbeddingFacts(5000, 64, batch=2, sequence_length=9),
    "reuploading_head": HeadFacts(60, 3, rows=4),
    "amplitude_adapter": LinearFacts(60, 20, rows=4),
}


def built(kind: str, qubits: int, layers: int, entangler: str) -> tuple[Circuit, tuple[str, ...]]:
    if kind == "mixer":
        return position_mixer(qubits, layers, entangler)
    if kind == "rotations":
        return random_rotations(qubits, layers, 2, 5, entangler)
    if kind == "ring":
        return ring_ansatz(qubits, layers, entangler)
    circuit = Circuit(qubits)
    return circuit, offset_entangler(circuit, layers, 2, "w", entangler=entangler)


def joined(circuit: Circuit) -> list[tuple[int, int]]:
    return [tuple(sorted(q.index[0] for q in c.qubits)) for c in circuit.get_commands() if len(c.qubits) == 2]  # type: ignore[misc]


KINDS = ["mixer", "rotations", "offsets", "ring"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 9), st.integers(1, 3), st.sampled_from(["chain", "cycle"]))
def test_two_qubit_gates_lie_on_neighbours(kind: str, qubits: int, layers: int, entangler: str) -> None:
    circuit, weights = built(kind, qubits, layers, entangler)
    graph = nx.cycle_graph(qubits) if entangler == "cycle" and qubits > 2 else nx.path_graph(qubits)
    assert all(graph.has_edge(*pair) for pair in joined(circuit))
    assert len(set(weights)) == len(weights)
    assert {str(s) for s in circuit.free_symbols()} == set(weights)
    deepest = {"mixer": 1, "rotations": 0.5, "offsets": 2, "ring": 1}[kind] * layers
    assert circuit.depth_2q() <= deepest * (3 if entangler == "cycle" and qubits % 2 else 2) + 0.5
    if layers > 1 and qubits > 1:
        assert nx.is_connected(nx.Graph(joined(circuit)))
        assert len(nx.Graph(joined(circuit))) == qubits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entangler", ["chain", "cycle"])
def test_angles_are_as_many_as_the_sources_where_pairs_have_none(kind: str, entangler: str) -> None:
    count = len(built(kind, 6, 2, entangler)[1])
    source = len(built(kind, 6, 2, "source")[1])
    if kind == "mixer":
        pairs = sum(len(mixer_pairs(6, layer)) for layer in range(2))
        assert count == source - pairs + 2 * (5 if entangler == "chain" else 6)
    else:
        assert count == source


@pytest.mark.parametrize("entangler", ["source", "chain", "cycle"])
def test_mixer_is_the_identity_at_zero(entangler: str) -> None:
    circuit, weights = position_mixer(4, 3, entangler)
    circuit.symbol_substitution(dict.fromkeys(map(Symbol, weights), 0.0))
    assert np.allclose(circuit.get_unitary(), np.eye(16))


@given(st.integers(2, 9), st.integers(0, 20), st.sampled_from(["chain", "cycle"]))
def test_matchings_are_disjoint_and_take_turns(qubits: int, turn: int, entangler: str) -> None:
    pairs = matching(qubits, entangler, turn)
    assert len({q for pair in pairs for q in pair}) == 2 * len(pairs)
    known = {frozenset(edge) for edge in neighbours(qubits, entangler)}
    assert {frozenset(pair) for pair in pairs} <= known
    if qubits > 2:
        assert not set(map(frozenset, pairs)) & set(map(frozenset, matching(qubits, entangler, turn + 1)))


def test_unknown_entanglers_are_refused() -> None:
    for kind in KINDS:
        with pytest.raises(CircuitError, match="entangler='star' is unknown"):
            built(kind, 4, 1, "star")
    for kernel in KERNELS.names():
        with pytest.raises(PlanError, match="entangler='star' is unknown; choose one of source, chain, cycle"):
            KERNELS.get(kernel).settings({"entangler": "star"})


@pytest.mark.parametrize("name", sorted(FACTS))
def test_kernels_take_the_targets_entangler(name: str, torino: Target) -> None:
    kernel, facts = KERNELS.get(name), FACTS[name]
    ideal = Target("ideal", "no limits")
    assert kernel.settings_for({}, facts, ideal)["entangler"] == "source"
    assert kernel.settings_for({"entangler": "source"}, facts, torino)["entangler"] == "source"
    chosen = kernel.settings_for({}, facts, torino)
    assert chosen["entangler"] == "chain"
    source = kernel.blank(facts, {}, seed=0)
    made = kernel.blank(facts, chosen, seed=0)
    assert made.rehearse(facts).isfinite().all()
    uses = kernel.workload(facts, chosen, seed=0).circuits
    for template, use in zip(made.templates().values(), uses, strict=True):
        assert joined(template.circuit) == joined(use.template.circuit)
        assert template.weights == use.template.weights
        assert matched_placement(dict.fromkeys(joined(template.circuit), 1), torino) is not None
    assert any(
        matched_placement(dict.fromkeys(joined(t.circuit), 1), torino) is None for t in source.templates().values()
    )


def test_cycles_are_chosen_where_they_are_better() -> None:
    def grid(closing: float) -> Target:
        """A ring of six whose closing edge is as good or bad as asked."""
        gates = [Gate("sx", (q,), 1e-4) for q in range(6)]
        gates += [Gate("cz", (q, (q + 1) % 6), closing if q == 5 else 1e-2) for q in range(6)]
        return Target("ring", "", 6, tuple(gates))

    assert best_entangler(grid(1e-2), [6]) == "cycle"
    assert best_entangler(grid(2e-1), [6]) == "chain"
    assert best_entangler(grid(1e-2), [6, 4]) == "chain"  # no cycle of four


def test_entangler_of_a_compiled_model() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(3000, 32), torch.nn.Linear(32, 32))
    ids = torch.randint(3000, (4, 9))
    hybrid = qcascade.compile(
        model, ids, kernels={"random_circuit_embedding": {"entangler": "chain", "angles": "compositional"}}
    )
    (kernel,) = hybrid.kernels.values()
    assert all(abs(a - b) == 1 for a, b in joined(kernel.templates()["token"].circuit))
    (region,) = [r for r in hybrid.plan.regions if r.kernel]
    assert region.candidates[0].options["entangler"] == "chain"
    assert hybrid(ids).shape == (4, 9, 32)


def test_candidates_for_a_device_take_chains() -> None:
    gates = [Gate("sx", (q,), 1e-4, 3e-8) for q in range(9)] + [Gate("cz", (q, q + 1), 1e-3, 1e-7) for q in range(8)]
    line = Target("line", "", 9, tuple(gates))
    model = torch.nn.Sequential(torch.nn.Embedding(3000, 32), torch.nn.Linear(32, 32))
    captured = capture(model, (torch.randint(3000, (4, 9)),))
    request = Request(target=line, kernels={"random_circuit_embedding": {"angles": "compositional"}})
    state = run_passes((*FIND, ProposeCandidates()), PipelineState(captured, request))
    found = [candidate for candidates in state.candidates.values() for candidate in candidates]
    assert [(c.refusal, c.options["entangler"]) for c in found] == [(None, "chain")]
