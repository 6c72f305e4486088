"""Routing: what comes out is what went in, on the target's own gates and edges, whatever found it."""

from __future__ import annotations

import json
import math
import sys
import time
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pytket.circuit import Bit, Circuit, Node, OpType, Qubit
from qiskit.quantum_info import Pauli, StabilizerState
from sympy import Symbol, pi

import qcascade
from qcascade.circuits.angles import AngleCircuit, angle_circuit
from qcascade.circuits.ansatze import offset_entangler, position_mixer, random_rotations
from qcascade.circuits.loading import loading_angles
from qcascade.circuits.template import CircuitTemplate, Expectations, Probabilities
from qcascade.cli import main
from qcascade.errors import CircuitError, TargetError
from qcascade.routing import compile_template, route
from qcascade.routing.emission import emit
from qcascade.routing.flat import from_pytket, to_qiskit
from qcascade.routing.simplify import FRONT_ENDS
from qcascade.routing.verify import MOST_WIRES
from qcascade.routing.workers import Unfinished, run_tasks
from qcascade.targets import Gate, QubitProperties, Target, get_target

QUICK = {"seeds": 2, "workers": 1}
COHERENCE = QubitProperties(0.01, 1e-6, 1e-4, 8e-5)


def device(qubits: int, pair: str, edges: list[tuple[int, int]] | None = None) -> Target:
    """A small calibrated device, a row by default; every second edge is twice as bad as the others."""
    pulses = ("r", "rz") if pair == "rzz" else ("sx", "x", "rz")
    gates = [
        Gate(p, (q,), 0.0 if p == "rz" else 2e-4, 0.0 if p == "rz" else 3e-8) for q in range(qubits) for p in pulses
    ]
    for number, (a, b) in enumerate(edges or list(pairwise(range(qubits)))):
        ways = [(a, b)] if pair in ("ecr", "cx") else [(a, b), (b, a)]
        gates += [Gate(pair, way, 4e-3 * (1 + number % 2), 7e-8) for way in ways]
    return Target(f"row-{qubits}-{pair}", "made for a test", qubits, tuple(gates), (COHERENCE,) * qubits)


DEVICES = {
    "cz": device(6, "cz"),
    "ecr": device(6, "ecr"),
    "cx": device(5, "cx", [(1, 0), (1, 2), (3, 2), (3, 4), (0, 4)]),
    "ions": device(5, "rzz", [(a, b) for a, b in permutations(range(5), 2) if a < b]),
}


def spread(circuit: Circuit, order: list[Qubit] | list[Node]) -> NDArray[np.complex128]:
    """pytket's own state of a circuit: rows as in `order`, columns for all other qubits."""
    state = circuit.get_statevector().reshape((2,) * circuit.n_qubits)
    places = [circuit.qubits.index(q) for q in order]
    rest = [k for k in range(circuit.n_qubits) if k not in places]
    return np.asarray(state.transpose([*places, *rest]).reshape(2 ** len(places), -1))


def amplitudes(circuit: Circuit, order: list[Qubit] | list[Node]) -> NDArray[np.complex128]:
    """The state of the qubits in `order`; the others have to be in |0⟩."""
    state = spread(circuit, order)
    assert np.linalg.norm(state[:, 0]) == pytest.approx(1, abs=1e-7)
    return np.asarray(state[:, 0])


def probabilities(circuit: Circuit, order: list[Qubit] | list[Node]) -> NDArray[np.float64]:
    return np.asarray((np.abs(spread(circuit, order)) ** 2).sum(1))


def at(circuit: AngleCircuit, values: torch.Tensor) -> tuple[Circuit, list[Qubit]]:
    """An angle circuit for (data, weights, loading), and its logical qubits in order."""
    made = circuit.circuit.copy()
    made.symbol_substitution({Symbol(f"a{k}"): float(a) for k, a in enumerate(circuit.angles(values))})
    return made, [made.qubits[place] for place in circuit.measured]


def without_measurements(circuit: Circuit) -> Circuit:
    bare = Circuit()
    for qubit in circuit.qubits:
        bare.add_qubit(qubit)
    for command in circuit.get_commands():
        if command.op.type != OpType.Measure:
            bare.add_gate(command.op, command.qubits)
    return bare


def is_native(circuit: Circuit, target: Target) -> None:
    names = {OpType.SX: "sx", OpType.X: "x", OpType.Rz: "rz", OpType.CZ: "cz", OpType.ECR: "ecr", OpType.CX: "cx",
             OpType.PhasedX: "r", OpType.ZZPhase: "rzz"}  # fmt: skip
    for command in circuit.get_commands():
        if command.op.type != OpType.Measure:
            place = tuple(q.index[0] for q in command.qubits)
            assert (names[command.op.type], place) in target.places
    assert all(isinstance(q, Qubit) and q.reg_name == "node" for q in circuit.qubits)


FIXED = [OpType.H, OpType.X, OpType.Y, OpType.S, OpType.Tdg, OpType.SX, OpType.Vdg]
TURNED = [OpType.Rx, OpType.Ry, OpType.Rz, OpType.U1]
PAIRS = [OpType.CX, OpType.CZ, OpType.CY, OpType.CH, OpType.SWAP, OpType.ECR, OpType.ISWAPMax, OpType.ZZMax]
TURNED_PAIRS = [OpType.ZZPhase, OpType.XXPhase, OpType.YYPhase, OpType.CU1, OpType.CRx, OpType.CRz]


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    """Two registers, all kinds of gates, an implicit permutation."""
    circuit = Circuit()
    left, right = circuit.add_q_register("left", draw(st.integers(1, 2))), circuit.add_q_register("a", 2)
    qubits = [*left.to_list(), *right.to_list()]
    angle = st.floats(-2, 2).map(lambda x: round(x, 3))
    for _ in range(draw(st.integers(1, 12))):
        order = draw(st.permutations(qubits))
        kind = draw(st.sampled_from(["fixed", "turned", "pair", "turned pair", "u", "toffoli"]))
        if kind == "fixed":
            circuit.add_gate(draw(st.sampled_from(FIXED)), order[:1])
        elif kind == "turned":
            circuit.add_gate(draw(st.sampled_from(TURNED)), draw(angle), order[:1])
        elif kind == "pair":
            circuit.add_gate(draw(st.sampled_from(PAIRS)), order[:2])
        elif kind == "turned pair":
            circuit.add_gate(draw(st.sampled_from(TURNED_PAIRS)), draw(angle), order[:2])
        elif kind == "u":
            kind_of_u = draw(st.sampled_from([OpType.TK1, OpType.U3]))
            circuit.add_gate(kind_of_u, [draw(angle) for _ in range(3)], order[:1])
        else:
            circuit.add_gate(OpType.CCX, order[:3])
    if draw(st.booleans()):
        circuit.SWAP(qubits[0], qubits[1]).SWAP(qubits[1], qubits[2])
        circuit.replace_SWAPs()
    return circuit


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(circuits(), st.sampled_from(sorted(DEVICES)), st.booleans())
def test_a_routed_circuit_gives_the_same_state_or_outcomes(circuit: Circuit, name: str, measured: bool) -> None:
    source = circuit.copy()
    if measured:
        for number, qubit in enumerate(source.qubits):
            source.add_bit(Bit("c", number))
            source.Measure(qubit, Bit("c", number))
    routed = route(source, DEVICES[name], cache=False, verify=False, **QUICK)
    is_native(routed.circuit, DEVICES[name])
    bare, order = without_measurements(routed.circuit), [routed.final[q] for q in circuit.qubits]
    if measured:
        assert probabilities(bare, order) == pytest.approx(probabilities(circuit, circuit.qubits), abs=1e-7)
        reads = {c.bits[0]: c.qubits[0] for c in routed.circuit.get_commands() if c.op.type == OpType.Measure}
        ends = {c.bits[0]: c.qubits[0] for c in source.get_commands() if c.op.type == OpType.Measure}
        came = source.implicit_qubit_permutation()
        assert reads == {bit: routed.final[came[qubit]] for bit, qubit in ends.items()}
    else:
        overlap = np.vdot(amplitudes(circuit, circuit.qubits), amplitudes(bare, order))
        assert abs(overlap) == pytest.approx(1, abs=1e-7)


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(circuits())
def test_a_unitary_is_kept_where_asked(circuit: Circuit) -> None:
    routed = route(circuit, DEVICES["cz"], preserve="unitary", cache=False, verify=False, **QUICK)
    random = np.random.default_rng(0)
    before, after = Circuit(), Circuit()
    for qubit in circuit.qubits:
        before.add_qubit(qubit)
    for node in routed.circuit.qubits:
        after.add_qubit(node)
    for qubit in circuit.qubits:
        angles = random.uniform(0, 2, 2)
        before.Ry(angles[0], qubit).Rz(angles[1], qubit)
        after.Ry(angles[0], routed.placement[qubit]).Rz(angles[1], routed.placement[qubit])
    before.append(circuit)
    after.append(routed.circuit)
    wanted = amplitudes(before, circuit.qubits)
    assert abs(np.vdot(wanted, amplitudes(after, [routed.final[q] for q in circuit.qubits]))) == pytest.approx(
        1, abs=1e-7
    )


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(circuits(), st.sampled_from(sorted(FRONT_ENDS)))
def test_every_front_end_keeps_the_unitary_with_its_permutation(circuit: Circuit, name: str) -> None:
    from qcascade.routing.problem import Problem
    from qcascade.routing.verify import simulated

    flat = from_pytket(circuit)
    assert flat is not None
    width = circuit.n_qubits
    made = FRONT_ENDS[name](Problem(flat, tuple(range(width)), tuple(range(width)), "state"), False)
    assert made is not None
    zero = [np.array([1.0, 0.0], dtype=complex)] * width
    overlap = np.vdot(simulated(flat, zero, range(width)), simulated(made.source, zero, made.ends))
    assert abs(overlap) == pytest.approx(1, abs=1e-7)


def templates() -> dict[str, CircuitTemplate]:
    mixer, weights = position_mixer(3, 2)
    rotations, data = random_rotations(4, 2, 3, seed=1)
    head = Circuit(4)
    for qubit in range(4):
        head.Ry(Symbol(f"x{qubit}") / pi, qubit)
    angles = offset_entangler(head, 1, 2, "w")
    odd = (
        Circuit(3)
        .Ry(Symbol("x"), 0)
        .Rx(2 * Symbol("x") - Symbol("w"), 0)
        .H(1)
        .CX(0, 1)
        .CU1(Symbol("w") ** 2, 1, 2)
        .SX(2)
    )
    odd.add_gate(OpType.ECR, [0, 2]).SWAP(0, 1).SWAP(1, 2)
    odd.replace_SWAPs()
    return {
        "mixer": CircuitTemplate(mixer, (), weights, amplitudes=True),
        "rotations": CircuitTemplate(
            rotations, data, (), measurement=Expectations((((0, "X"),), ((1, "Z"), (2, "Y"))))
        ),
        "head": CircuitTemplate(
            head, tuple(f"x{q}" for q in range(4)), angles, measurement=Expectations((((0, "Z"),),))
        ),
        "odd": CircuitTemplate(odd, ("x",), ("w",), measurement=Expectations((((0, "Y"),),))),
    }


@pytest.mark.parametrize("name", list(templates()))
@pytest.mark.parametrize("where", list(DEVICES))
def test_a_compiled_template_is_its_source_for_all_values(name: str, where: str) -> None:
    template, target = templates()[name], DEVICES[where]
    compiled = compile_template(template, target, seeds=1, workers=1, cache=False)
    source, random = angle_circuit(template), torch.Generator().manual_seed(3)
    is_native(compiled.circuit.circuit, target)
    assert len(compiled.circuit.circuit.free_symbols()) == len(compiled.circuit.angles.constants)
    for values in (torch.zeros(len(source.angles.symbols)), torch.randn(len(source.angles.symbols), generator=random)):
        values = values.double()
        if template.amplitudes:
            state = torch.nn.functional.normalize(torch.randn(8, dtype=torch.complex128, generator=random), dim=0)
            loading = loading_angles(state, real=False)
            values = torch.cat((values[: len(values) - len(loading)], loading))
        wanted, got = at(source, values), at(compiled.circuit, values)
        if isinstance(template.measurement, Probabilities) or name == "head":
            assert probabilities(*got) == pytest.approx(probabilities(*wanted), abs=1e-7)
        else:
            assert abs(np.vdot(amplitudes(*wanted), amplitudes(*got))) == pytest.approx(1, abs=1e-7)
    assert compiled.fidelity is not None and 0 < compiled.fidelity < 1
    assert compiled.two_qubit_gates == compiled.circuit.circuit.n_2qb_gates()
    assert compiled.two_qubit_depth == compiled.circuit.circuit.depth_2q()


def test_each_variable_angle_is_in_one_gate_that_the_shift_rule_knows() -> None:
    for where, kinds in (("cz", {OpType.Rz}), ("ions", {OpType.Rz, OpType.PhasedX, OpType.ZZPhase})):
        compiled = compile_template(templates()["mixer"], DEVICES[where], seeds=1, workers=1, cache=False)
        found = [c.op for c in compiled.circuit.circuit.get_commands() if c.op.free_symbols()]
        assert {op.type for op in found} <= kinds
        names = [str(s) for op in found for s in op.free_symbols()]
        assert len(names) == len(set(names))
        assert all(op.params[0] == next(iter(op.free_symbols())) / pi for op in found)


def test_the_target_without_limits_takes_the_angle_circuit() -> None:
    compiled = compile_template(templates()["rotations"], get_target("ideal"))
    assert compiled.fidelity is None and compiled.two_qubit_gates == 4
    routed = route(Circuit(2).CX(0, 1), "ideal")
    assert routed.fidelity is None and routed.two_qubit_gates == 1


def test_one_qubit_runs_take_two_pulses_at_most() -> None:
    random = np.random.default_rng(2)
    circuit = Circuit(1)
    for kind in random.choice(np.array([OpType.Rx, OpType.Ry, OpType.Rz]), 9):
        circuit.add_gate(kind, random.uniform(0, 2), [0])
    flat = from_pytket(circuit)
    assert flat is not None
    assert [op.name for op in emit(flat, DEVICES["cz"], "unitary").ops] == ["rz", "sx", "rz", "sx", "rz"]
    assert [op.name for op in emit(flat, DEVICES["ions"], "unitary").ops] == ["r", "rz"]
    symbolic = from_pytket(Circuit(1).Ry(Symbol("a0") / pi, 0).Ry(0.3, 0).Ry(Symbol("a1") / pi, 0))
    assert symbolic is not None
    assert sum(op.name == "sx" for op in emit(symbolic, DEVICES["cz"]).ops) == 2


def test_what_qiskit_reaches_is_always_among_the_attempts() -> None:
    from qiskit import transpile

    from qcascade.routing.fidelity import predict_gates

    target = get_target("ibm_torino")
    circuit = Circuit(5, 5).H(0).CX(0, 1).Rz(0.3, 1).CX(1, 4).CX(0, 3).Ry(0.2, 3).CX(3, 4).CX(2, 0).CX(2, 4)
    measured = circuit.copy()
    for qubit in range(5):
        measured.Measure(qubit, qubit)
    routed = route(measured, target, **QUICK)
    flat = from_pytket(circuit)
    assert flat is not None
    theirs = to_qiskit(flat)
    theirs.measure_all()
    best = 0.0
    for seed in range(2):
        made = transpile(theirs, target=target.to_qiskit(), optimization_level=3, seed_transpiler=seed)
        place = {q: n for n, q in enumerate(made.qubits)}
        gates = [(i.operation.name, tuple(place[q] for q in i.qubits)) for i in made.data]
        read = [qubits[0] for gate, qubits in gates if gate == "measure"]
        figures = predict_gates([g for g in gates if g[0] not in ("measure", "barrier")], target, read)
        assert figures.fidelity is not None
        best = max(best, figures.fidelity)
    assert routed.fidelity is not None and routed.fidelity >= best * (1 - 1e-9)
    is_native(routed.circuit, target)
    figures = [a.fidelity for a in routed.attempts if a.fidelity is not None]
    assert routed.fidelity == max(figures)


def test_what_the_start_and_the_readings_make_idle_is_left_out() -> None:
    """A Fourier transform of |0…0⟩ entangles nothing; a diagonal gate before a reading changes nothing."""
    circuit = Circuit(4, 4)
    for first in range(4):
        circuit.H(first)
        for second in range(first + 1, 4):
            circuit.CU1(1 / 2 ** (second - first), second, first)
    assert route(circuit, DEVICES["cz"], cache=False, **QUICK).two_qubit_gates == 0
    assert route(circuit, DEVICES["cz"], preserve="unitary", cache=False, **QUICK).two_qubit_gates >= 12
    bell = Circuit(3, 2).H(0).CX(0, 1).CZ(0, 1).CX(1, 2).Measure(0, 0).Measure(1, 1)
    assert route(bell, DEVICES["cz"], cache=False, **QUICK).two_qubit_gates == 1


def test_symbols_stay_and_take_the_same_values() -> None:
    circuit = (
        Circuit(3).Ry(Symbol("a1"), 0).CX(0, 1).Rz(Symbol("a0") * 2 + 0.25, 1).CX(1, 2).U3(Symbol("t"), 0.1, 0.2, 0)
    )
    routed = route(circuit, DEVICES["cz"], cache=False, **QUICK)
    assert routed.circuit.free_symbols() == circuit.free_symbols()
    values = {Symbol("a0"): 0.37, Symbol("a1"): -0.81, Symbol("t"): 1.3}
    for made in (circuit, routed.circuit):
        made.symbol_substitution(values)
    wanted, got = (
        amplitudes(circuit, circuit.qubits),
        amplitudes(routed.circuit, [routed.final[q] for q in circuit.qubits]),
    )
    assert abs(np.vdot(wanted, got)) == pytest.approx(1, abs=1e-7)
    with pytest.raises(CircuitError, match="symbols"):
        route(Circuit(1).Rx(Symbol("x"), 0), DEVICES["cz"], **QUICK).to_qiskit()


def test_dead_edges_are_never_used_and_the_best_place_is_found() -> None:
    """On a row whose calibration is uneven the best place can be counted out by hand."""
    gates = [Gate(p, (q,), 1e-4 if p == "sx" else 0.0) for q in range(7) for p in ("sx", "rz")]
    errors = {(0, 1): 1e-3, (1, 2): 0.9, (2, 3): 5e-3, (3, 4): 1e-3, (4, 5): 1e-3, (5, 6): 8e-3}
    gates += [Gate("cz", edge, error) for edge, error in errors.items()]
    target = Target("uneven", "a row", 7, tuple(gates), (QubitProperties(0.01),) * 7)
    routed = route(Circuit(3).H(0).CX(0, 1).CX(1, 2).measure_all(), target, cache=False, **QUICK)
    assert {node.index[0] for node in routed.placement.values()} == {3, 4, 5}
    assert routed.two_qubit_gates == 2


def test_what_is_not_proven_says_so() -> None:
    """A chain of CNOTs on more wires than are simulated, whose equality a stabiliser tableau can tell."""
    wide = Circuit(MOST_WIRES + 1).H(0)
    for qubit in range(MOST_WIRES):
        wide.CX(qubit, qubit + 1)
    target = device(MOST_WIRES + 1, "cz")
    routed = route(wide, target, seconds=0, workers=1, cache=False)
    assert routed.verified is False
    assert routed.proof == f"not proven: {MOST_WIRES + 1} active wires, at most {MOST_WIRES} are simulated"
    assert str(routed).splitlines()[1] == routed.proof
    tableau = StabilizerState(routed.to_qiskit())
    ends = [routed.final[q].index[0] for q in wide.qubits]
    found = tableau.expectation_value(Pauli("X" * len(ends)))
    pairs = [Pauli(([z in pair for z in range(len(ends))], [False] * len(ends))) for pair in pairwise(ends)]
    assert found == 1 and all(tableau.expectation_value(pair) == 1 for pair in pairs)  # the stabilisers of a GHZ state
    short = Circuit(2).H(0).CX(0, 1)
    asked, unasked = (route(short, DEVICES["cz"], verify=v, cache=False, **QUICK) for v in (True, False))
    assert asked.verified is True and unasked.verified is None and "not asked for" in unasked.proof
    assert route(short, "ideal").verified is True


def test_without_calibration_the_fewest_gates_win() -> None:
    gates = [Gate(p, (q,)) for q in range(4) for p in ("sx", "rz")] + [Gate("cz", (q, q + 1)) for q in range(3)]
    routed = route(Circuit(3).H(0).CX(0, 1).CX(1, 2).CX(1, 2), Target("bare", "a row", 4, tuple(gates)), **QUICK)
    assert routed.fidelity is None and routed.duration is None and routed.two_qubit_gates == 1


def test_the_cache_holds_results_and_bears_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCASCADE_CACHE_DIR", str(tmp_path))
    circuit = Circuit(3, 3).H(0).CX(0, 1).CX(0, 2).CX(1, 2).Ry(0.2, 2).measure_all()
    first = route(circuit, DEVICES["cz"], **QUICK)
    (file,) = tmp_path.glob("routed-*.json")
    monkeypatch.setattr("qcascade.routing.solve.best_of_portfolio", lambda *a, **k: pytest.fail("it was in the cache"))
    again = route(circuit, DEVICES["cz"], **QUICK)
    assert again.circuit == first.circuit and again.attempts == first.attempts
    monkeypatch.undo()
    monkeypatch.setenv("QCASCADE_CACHE_DIR", str(tmp_path))
    for damaged in ("", "{", '{"width": 3}', json.dumps([1, 2])):
        file.write_text(damaged)
        assert route(circuit, DEVICES["cz"], **QUICK).circuit == first.circuit
    stored = json.loads(file.read_text())
    stored["ops"] = stored["ops"][:-1]
    file.write_text(json.dumps(stored))
    with pytest.raises(CircuitError, match="differs from its source"):
        route(circuit, DEVICES["cz"], **QUICK)
    other = route(circuit, DEVICES["ecr"], **QUICK)
    assert other.target.name == "row-6-ecr" and len(list(tmp_path.glob("routed-*.json"))) == 2


def test_a_budget_ends_the_search_with_the_best_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCASCADE_CACHE_DIR", str(tmp_path))
    circuit = Circuit(4).H(0).CX(0, 1).CX(0, 2).CX(1, 3)
    routed = route(circuit, DEVICES["cz"], seconds=1e-9, workers=1)
    assert routed.method.startswith("raw, qiskit")
    assert not list(tmp_path.glob("*.json"))  # what a budget has cut is not kept
    shortest = route(circuit, DEVICES["cz"], seconds=0, workers=1)
    assert shortest.attempts == routed.attempts
    whole = route(circuit, DEVICES["cz"], workers=1, seeds=1)
    assert whole.two_qubit_gates <= routed.two_qubit_gates
    assert len(list(tmp_path.glob("*.json"))) == 2  # the shortest search is kept apart from the whole one
    assert route(circuit, DEVICES["cz"], seconds=0, workers=1).attempts == shortest.attempts


def test_tasks_are_shared_out_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcascade.routing.workers._START_SECONDS", 0.0)
    tasks = [(0.2,), (0.3,), (-1.0,), (0.1,)]
    results = run_tasks(time.sleep, tasks, workers=2)
    assert results[0] is None and results[3] is None
    failed = results[2]
    assert isinstance(failed, Unfinished) and "ValueError" in failed.reason
    late = run_tasks(time.sleep, [(0.05,), (60.0,), (60.0,)], workers=3, deadline=time.monotonic() + 0.05)
    assert late[0] is None and all(isinstance(r, Unfinished) for r in late[1:])


@pytest.mark.parametrize(
    ("circuit", "message"),
    [
        (Circuit(7).H(0), "7 qubits"),
        (Circuit(2, 2).Measure(0, 0).CX(0, 1), "measurement"),
        (Circuit(2, 2).H(0).Measure(0, 0).X(1, condition_bits=[0], condition_value=1), "classical control"),
        (Circuit(2, 1).Measure(0, 0).Measure(1, 0), "bit"),
        (Circuit(2).H(0).add_gate(OpType.Reset, [0]), "reset"),
    ],
)
def test_circuits_that_cannot_be_routed(circuit: Circuit, message: str) -> None:
    with pytest.raises((CircuitError, TargetError), match=message):
        route(circuit, DEVICES["cz"], **QUICK)


def test_targets_that_cannot_be_routed_to() -> None:
    gates = [Gate(p, (q,), 1e-3) for q in range(4) for p in ("sx", "rz")]
    halves = (Gate("cz", (0, 1), 1e-2), Gate("cz", (2, 3), 1e-2))
    apart = Target("apart", "two halves", 4, (*gates, *halves))
    with pytest.raises(TargetError, match="2 of them connected"):
        route(Circuit(3).CX(0, 1), apart, **QUICK)
    with pytest.raises(TargetError, match="rz with sx, r or rx"):
        route(
            Circuit(2).CX(0, 1), Target("odd", "no pulses", 2, (Gate("h", (0,)), Gate("h", (1,)), Gate("cz", (0, 1))))
        )
    with pytest.raises(TargetError, match="unknown"):
        route(Circuit(1), "ibm_nowhere")
    for option in ({"seeds": 0}, {"seconds": -1.0}, {"seconds": math.nan}, {"workers": 0}):
        with pytest.raises(CircuitError, match=next(iter(option))):
            route(Circuit(1), DEVICES["cz"], **option)
    with pytest.raises(CircuitError, match="preserve"):
        route(Circuit(1), DEVICES["cz"], preserve="nothing")  # type: ignore[arg-type]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit import QuantumCircuit

    file, out = tmp_path / "bell.qasm", tmp_path / "out.qasm"
    qcascade.Target.to_json(DEVICES["cz"])
    (tmp_path / "row.json").write_text(DEVICES["cz"].to_json())
    file.write_text(
        'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\nh q[0];\ncx q[0],q[1];\nmeasure q -> c;\n'
    )
    common = ["--target", str(tmp_path / "row.json"), "--seeds", "1", "--workers", "1"]

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qcascade", "route", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    code, said, _ = run(str(file), *common, "-o", str(out), "--format", "json")
    assert code == 0 and json.loads(said)["two_qubit_gates"] == 1
    assert json.loads(said)["verified"] is True and "of 2 active wires" in json.loads(said)["proof"]
    made = QuantumCircuit.from_qasm_file(str(out))
    assert made.num_qubits == 6 and made.count_ops()["cz"] == 1 and made.count_ops()["measure"] == 2
    shown = run(str(file), *common)[1]
    assert shown.startswith("target row-6-cz · fidelity 0.9")
    assert shown.splitlines()[1] == "proven equal to its source by simulation of 2 active wires"
    file.write_text("OPENQASM 2.0;\nqreg q[2]\n")
    code, _, err = run(str(file), *common)
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1
    assert run(str(file), "--target", "ibm_nowhere")[0] in (1, 2)
    assert run(str(tmp_path / "none.qasm"), *common)[0] == 2
