"""Routing beside Qiskit and TKET: predicted fidelity, two-qubit gates and their depth, circuit by circuit, target by target.

    python tests/benchmarks/routing.py [--circuits NAME …] [--targets NAME …] [--seeds 10] [--preserve outcomes]
                                       [--workers 2] [--out routing.jsonl]

Public circuits: 40 of mqt.bench and Qiskit's library, 4 to 16 qubits, in the gates of OpenQASM 2, all qubits measured.
Every compiler gets the same circuit and the same target, without its dead edges:
- ours: `qcascade.route` with the seeds;
- qiskit: transpile at level 3, the best of the same seeds by the same score;
- tket_noise_aware: FullPeepholeOptimise, NoiseAwarePlacement, LexiRoute; tket_default: FullPeepholeOptimise and
  DefaultMappingPass; both in native gates by our emission.

Kernels: their circuits with random angles, all qubits measured, as they are for Qiskit and TKET; ours with entanglers along
a chain: `ours` has as many layers, `ours_no_fewer` enough layers for no fewer two-qubit gates than the source has;
`ours_symbolic` is `ours` by `compile_template`, which keeps every angle a symbol and so merges fewer rotations.

Scores: `loss` = −ln of the predicted fidelity (gates, readout, idling: `predict`); `esp` = −ln Π(1 − error) of gates and
readout alone. Qiskit's best seed is chosen by each (`esp_best` is of the one chosen by esp). Ours chooses by the predicted
fidelity, for esp on the target without its times (`ours_by_esp`), where no idling is known.
A file in --out is gone on with: rows that it has are not run again. The last lines sum up: geometric means of ratios to
Qiskit, and the circuits on which ours is worse.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from mqt.bench import get_benchmark_alg
from pytket.architecture import Architecture
from pytket.circuit import Circuit, Node, OpType
from pytket.passes import (
    AutoRebase,
    DecomposeBoxes,
    DecomposeSwapsToCXs,
    DefaultMappingPass,
    FullPeepholeOptimise,
    PlacementPass,
    RoutingPass,
    SynthesiseTket,
)
from pytket.placement import NoiseAwarePlacement
from pytket.predicates import CompilationUnit
from pytket.qasm import circuit_from_qasm_str
from qiskit import QuantumCircuit, qasm2, transpile
from qiskit.circuit.library import (
    efficient_su2,
    excitation_preserving,
    n_local,
    pauli_two_design,
    quantum_volume,
    random_iqp,
)
from qiskit.quantum_info import random_clifford
from sympy import Symbol

from qcascade.circuits.ansatze import position_mixer, random_rotations, ring_ansatz
from qcascade.circuits.template import CircuitTemplate, Probabilities
from qcascade.kernels.head import reuploading_template
from qcascade.routing import compile_template, route
from qcascade.routing.emission import emit
from qcascade.routing.fidelity import find_gate, is_virtual, predict_gates
from qcascade.routing.flat import from_pytket, to_qiskit
from qcascade.routing.placement import costs
from qcascade.routing.problem import Keep
from qcascade.targets import Target, get_target

TARGETS = ["ibm_torino", "ibm_marrakesh", "ibm_boston", "ibm_brisbane"]
GATES = ["h", "x", "sx", "s", "sdg", "t", "tdg", "rx", "ry", "rz", "p", "u", "cx", "cz", "cp", "rzz", "swap", "ccx"]
MQT = [
    ("ghz", 10), ("graphstate", 8), ("graphstate", 12), ("wstate", 8), ("wstate", 12), ("dj", 8), ("bv", 10),
    ("qft", 8), ("qftentangled", 6), ("qftentangled", 9), ("qpeexact", 6), ("qpeinexact", 8), ("ae", 6), ("grover", 4),
    ("qaoa", 6), ("qaoa", 10), ("qaoa", 14), ("vqe_real_amp", 8), ("vqe_su2", 6), ("vqe_two_local", 6), ("qnn", 6),
    ("cdkm_ripple_carry_adder", 8), ("vbe_ripple_carry_adder", 7), ("draper_qft_adder", 8), ("half_adder", 9),
    ("qwalk", 5), ("bmw_quark_copula", 6),
]  # fmt: skip
PREPARED = ("qft_", "cdkm", "vbe", "draper", "half_adder")  # trivial on |0…0⟩: they get random product states
SIZES = (4, 6, 8, 12, 16)
KERNELS = ("mixer", "rotations", "head", "ring")


def library(seed: int) -> dict[str, QuantumCircuit]:
    """Circuits of Qiskit's library and Trotter steps, with random angles."""
    random = np.random.default_rng(seed)

    def filled(circuit: QuantumCircuit) -> QuantumCircuit:
        return circuit.assign_parameters(random.uniform(0, 2 * np.pi, circuit.num_parameters))

    made = {
        "qv_5": quantum_volume(5, seed=seed),
        "qv_8": quantum_volume(8, 4, seed=seed),
        "clifford_6": random_clifford(6, seed=seed).to_circuit(),
        "clifford_10": random_clifford(10, seed=seed).to_circuit(),
        "hea_ring_10": filled(efficient_su2(10, reps=2, entanglement="circular")),
        "hea_full_8": filled(n_local(8, ["ry", "rz"], "cx", "full", reps=2)),
        "excitation_6": filled(excitation_preserving(6, reps=2, entanglement="linear")),
        "two_design_10": filled(pauli_two_design(10, reps=4, seed=seed)),
        "iqp_8": random_iqp(8, seed=seed),
        "heisenberg_8": _trotter(8, 2, [(q, q + 1) for q in range(7)], "xyz"),
        "heisenberg_ring_12": _trotter(12, 2, [(q, (q + 1) % 12) for q in range(12)], "xyz"),
        "ising_grid_12": _trotter(12, 2, _grid(3, 4), "z"),
        "uccsd_4": _paulis(4, ["XXXY", "XXYX", "XYXX", "YXXX", "YYYX", "YYXY", "YXYY", "XYYY", "ZXZY", "ZYZX"], random),
    }
    return made


def _grid(rows: int, columns: int) -> list[tuple[int, int]]:
    place = {(r, c): r * columns + c for r in range(rows) for c in range(columns)}
    across = [(place[r, c], place[r, c + 1]) for r in range(rows) for c in range(columns - 1)]
    return across + [(place[r, c], place[r + 1, c]) for r in range(rows - 1) for c in range(columns)]


def _trotter(qubits: int, steps: int, pairs: list[tuple[int, int]], axes: str) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits)
    circuit.x(range(0, qubits, 2))
    for _ in range(steps):
        for first, second in pairs:
            for axis in axes:
                getattr(circuit, f"r{axis}{axis}")(0.3, first, second)
        circuit.rx(0.4, range(qubits))
    return circuit


def _paulis(qubits: int, strings: list[str], random: np.random.Generator) -> QuantumCircuit:
    """exp(−i angle P) one after another, as in unitary coupled cluster."""
    circuit = QuantumCircuit(qubits)
    circuit.x(range(qubits // 2))
    for string in strings:
        turns = [(q, {"X": "h", "Y": "sx"}[p]) for q, p in enumerate(string) if p in "XY"]
        active = [q for q, p in enumerate(string) if p != "I"]
        for q, gate in turns:
            getattr(circuit, gate)(q)
        for a, b in itertools.pairwise(active):
            circuit.cx(a, b)
        circuit.rz(random.uniform(0, 2), active[-1])
        for a, b in reversed(list(itertools.pairwise(active))):
            circuit.cx(a, b)
        for q, gate in turns:
            getattr(circuit, {"h": "h", "sx": "sxdg"}[gate])(q)
    return circuit


def public(seed: int) -> dict[str, QuantumCircuit]:
    """The 40 circuits, measured."""
    made = {}
    for name, qubits in MQT:
        random = np.random.default_rng(seed)
        circuit = get_benchmark_alg(name, qubits)
        circuit = circuit.assign_parameters(random.uniform(0, 2 * np.pi, circuit.num_parameters))
        circuit = circuit.remove_final_measurements(inplace=False)
        if f"{name}_{qubits}".startswith(PREPARED):
            inputs = QuantumCircuit(circuit.num_qubits)
            for qubit in range(circuit.num_qubits):
                inputs.ry(random.uniform(0, np.pi), qubit)
            circuit = inputs.compose(circuit, range(circuit.num_qubits))
        made[f"{name}_{qubits}"] = circuit
    made |= library(seed)
    return {name: measured(circuit) for name, circuit in made.items()}


def measured(circuit: QuantumCircuit) -> QuantumCircuit:
    """In the gates of OpenQASM 2, on one register, every qubit read."""
    plain = transpile(circuit, basis_gates=GATES, optimization_level=0)
    flat = QuantumCircuit(circuit.num_qubits, circuit.num_qubits)
    for instruction in plain.data:
        if instruction.operation.name not in ("barrier", "measure"):
            flat.append(instruction.operation, [plain.find_bit(q).index for q in instruction.qubits])
    flat.measure(range(circuit.num_qubits), range(circuit.num_qubits))
    return flat


def kernel(name: str, qubits: int, layers: int, entangler: str) -> CircuitTemplate:
    """A kernel's circuit, read in the computational basis."""
    data: tuple[str, ...] = ()
    if name == "head":
        template = reuploading_template(qubits, layers, 1, 2, qubits, entangler)
        return replace(template, measurement=Probabilities())
    if name == "mixer":
        circuit, weights = position_mixer(qubits, layers, entangler)
    elif name == "rotations":
        circuit, weights = random_rotations(qubits, layers, 3, 0, entangler)
    else:
        circuit, weights = ring_ansatz(qubits, layers, entangler)
    return CircuitTemplate(circuit, data, weights, measurement=Probabilities())


LAYERS = {"mixer": 3, "rotations": 4, "head": 2, "ring": 2}  # the head's are uploads


def score(gates: list[tuple[str, tuple[int, ...]]], target: Target, read: list[int]) -> dict[str, float]:
    """Both scores, gates and depth of a native circuit."""
    predicted = predict_gates(gates, target, read)
    assert predicted.fidelity is not None
    esp = -sum(math.log(1 - (target.properties[q].readout_error or 0.0)) for q in read)
    depth: dict[int, int] = {}
    for name, qubits in gates:
        gate = find_gate(target, name, qubits)
        assert gate is not None
        esp -= 0.0 if is_virtual(gate) else math.log(1 - (gate.error or 0.0))
        if len(qubits) == 2:
            depth.update(dict.fromkeys(qubits, 1 + max(depth.get(q, 0) for q in qubits)))
    return {
        "loss": -math.log(predicted.fidelity),
        "esp": esp,
        "two_qubit_gates": sum(len(q) == 2 for _, q in gates),
        "two_qubit_depth": max(depth.values(), default=0),
    }


def by_qiskit(circuit: QuantumCircuit, target: Target, seeds: int) -> dict[str, float]:
    """The best of the seeds by `loss`; `esp_best` is the least `esp` of any."""
    known, results = target.to_qiskit(), []
    for seed in range(seeds):
        made = transpile(circuit, target=known, optimization_level=3, seed_transpiler=seed)
        gates = [(i.operation.name, tuple(made.find_bit(q).index for q in i.qubits)) for i in made.data]
        read = [qubits[0] for name, qubits in gates if name == "measure"]
        results.append(score([g for g in gates if g[0] not in ("measure", "barrier")], target, read))
    return {**min(results, key=lambda r: r["loss"]), "esp_best": min(r["esp"] for r in results)}


def by_tket(circuit: Circuit, target: Target, noise_aware: bool) -> dict[str, float]:
    """TKET's own ways; the circuit is without measurements."""
    known, made = costs(target), circuit.copy()
    architecture = Architecture([(Node(a), Node(b)) for a, b in target.edges])
    FullPeepholeOptimise(allow_swaps=False).apply(made)
    unit = CompilationUnit(made)
    if noise_aware:
        placement = NoiseAwarePlacement(
            architecture,
            {Node(n): float(known.pulse[n]) for n in target.nodes},
            {(Node(a), Node(b)): float(known.pair[a, b]) for a, b in target.edges},
            {Node(n): float(known.readout[n]) for n in target.nodes},
        )
        PlacementPass(placement).apply(unit)
        RoutingPass(architecture).apply(unit)
    else:
        DefaultMappingPass(architecture).apply(unit)
    DecomposeSwapsToCXs(architecture).apply(unit)
    SynthesiseTket().apply(unit)
    AutoRebase({OpType.CX, OpType.Rz, OpType.SX, OpType.X}).apply(unit)
    flat = from_pytket(unit.circuit)
    assert flat is not None
    nodes = {number: qubit.index[0] for number, qubit in enumerate(unit.circuit.qubits)}
    native = emit(flat.moved(nodes, target.qubits or 0), target, "state")
    return score([(op.name, op.qubits) for op in native.ops], target, [u.index[0] for u in unit.final_map.values()])


def routed_score(circuit: Circuit, target: Target, read: list[int]) -> dict[str, float]:
    flat = from_pytket(circuit)
    assert flat is not None
    nodes = {number: qubit.index[0] for number, qubit in enumerate(circuit.qubits)}
    moved = flat.moved(nodes, target.qubits or 0)
    return score([(op.name, op.qubits) for op in moved.ops], target, read)


def unmeasured(circuit: Circuit) -> Circuit:
    bare = Circuit()
    for qubit in circuit.qubits:
        bare.add_qubit(qubit)
    for command in circuit.get_commands():
        if command.op.type != OpType.Measure:
            bare.add_gate(command.op, command.qubits)
    return bare


def timed(work: Any, *arguments: Any) -> dict[str, Any]:
    began = time.perf_counter()
    return {**work(*arguments), "seconds": round(time.perf_counter() - began, 2)}


def timeless(target: Target) -> Target:
    """The target without times, for which no idling is known."""
    gates = tuple(replace(gate, seconds=0.0 if is_virtual(gate) else None) for gate in target.gates)
    properties = tuple(replace(p, readout_seconds=None, t1=None, t2=None) for p in target.properties)
    return replace(target, gates=gates, properties=properties)


def public_row(name: str, target_name: str, seeds: int, seed: int, preserve: Keep) -> dict[str, Any]:
    target, circuit = get_target(target_name), public(seed)[name]
    source = circuit_from_qasm_str(qasm2.dumps(circuit))
    DecomposeBoxes().apply(source)  # gates that the file defines

    def ours(chosen_for: Target) -> dict[str, Any]:
        routed = route(source, chosen_for, seeds=seeds, workers=1, cache=False, preserve=preserve)
        read = [node.index[0] for node in routed.final.values()]
        return {**routed_score(unmeasured(routed.circuit), target, read), "method": routed.method}

    bare = unmeasured(source)
    return {
        "set": "public", "circuit": name, "target": target_name, "qubits": circuit.num_qubits,
        "source_two_qubit_gates": bare.n_2qb_gates(),
        "ours": timed(ours, target), "ours_by_esp": timed(ours, timeless(target)),
        "qiskit": timed(by_qiskit, circuit, target, seeds),
        "tket_noise_aware": timed(by_tket, bare, target, True), "tket_default": timed(by_tket, bare, target, False),
    }  # fmt: skip


def kernel_row(name: str, target_name: str, seeds: int, seed: int, preserve: Keep) -> dict[str, Any]:
    kind, size = name.removeprefix("kernel_").rsplit("_", 1)
    target, qubits, layers = get_target(target_name), int(size), LAYERS[kind]
    source = bound(kernel(kind, qubits, layers, "source"), seed)
    wanted, enough = source.n_2qb_gates(), layers
    while kernel(kind, qubits, enough, "chain").circuit.n_2qb_gates() < wanted:
        enough += 1

    def ours(layers: int) -> dict[str, Any]:
        chain = bound(kernel(kind, qubits, layers, "chain"), seed)
        measured_chain = chain.copy().measure_all()
        routed = route(measured_chain, target, seeds=seeds, workers=1, cache=False, preserve=preserve)
        read = [node.index[0] for node in routed.final.values()]
        figures = routed_score(unmeasured(routed.circuit), target, read)
        return {**figures, "method": routed.method, "layers": layers, "source_two_qubit_gates": chain.n_2qb_gates()}

    def symbolic() -> dict[str, Any]:
        template = kernel(kind, qubits, layers, "chain")
        compiled = compile_template(template, target, seeds=seeds, workers=1, cache=False)
        circuit = compiled.circuit.circuit
        read = [circuit.qubits[place].index[0] for place in compiled.circuit.measured]
        return {**routed_score(circuit, target, read), "method": compiled.method}

    flat = from_pytket(source)
    assert flat is not None
    circuit = to_qiskit(flat)
    circuit.measure_all()
    return {
        "set": "kernels", "circuit": name, "target": target_name, "qubits": qubits, "source_two_qubit_gates": wanted,
        "ours": timed(ours, layers), "ours_no_fewer": timed(ours, enough), "ours_symbolic": timed(symbolic),
        "qiskit": timed(by_qiskit, circuit, target, seeds),
        "tket_noise_aware": timed(by_tket, source, target, True), "tket_default": timed(by_tket, source, target, False),
    }  # fmt: skip


def bound(template: CircuitTemplate, seed: int) -> Circuit:
    """The template's circuit at random angles."""
    random, made = np.random.default_rng(seed), template.circuit.copy()
    made.symbol_substitution({Symbol(s): random.uniform(0, 2 * np.pi) for s in (*template.data, *template.weights)})
    return made


def row(name: str, target: str, seeds: int, seed: int, preserve: Keep) -> dict[str, Any]:
    """One circuit on one target."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return (kernel_row if name.startswith("kernel_") else public_row)(name, target, seeds, seed, preserve)


def geometric(ratios: list[float]) -> float:
    return round(math.exp(sum(map(math.log, ratios)) / len(ratios)), 4) if ratios else math.nan


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means of ratios to Qiskit by set and target, and where ours is worse.

    Gates and depth are compared as (n + 1)/(m + 1), since ours may have none.
    """
    made = []
    for which in ("public", "kernels"):
        for target in [None, *TARGETS]:
            chosen = [r for r in rows if r["set"] == which and target in (None, r["target"])]
            if not chosen:
                continue
            line: dict[str, Any] = {"summary": which, "target": target or "all", "rows": len(chosen)}
            for method in ("ours", "ours_by_esp", "ours_no_fewer", "ours_symbolic", "tket_noise_aware", "tket_default"):
                if method not in chosen[0]:
                    continue
                pairs = [(r[method], r["qiskit"]) for r in chosen]
                line[method] = {
                    "loss": geometric([a["loss"] / b["loss"] for a, b in pairs]),
                    "esp": geometric([a["esp"] / b["esp_best"] for a, b in pairs]),
                    **{
                        f"two_qubit_{what}": geometric(
                            [(a[f"two_qubit_{what}"] + 1) / (b[f"two_qubit_{what}"] + 1) for a, b in pairs]
                        )
                        for what in ("gates", "depth")
                    },
                }
            entangled = [r for r in chosen if r["ours"]["two_qubit_gates"]]
            line["ours_where_gates_are_left"] = geometric([r["ours"]["loss"] / r["qiskit"]["loss"] for r in entangled])
            line["worse"] = [
                (r["circuit"], r["target"], round(r["ours"]["loss"] / r["qiskit"]["loss"], 5))
                for r in chosen
                if r["ours"]["loss"] > r["qiskit"]["loss"] * (1 + 1e-9)
            ]
            by_esp = "ours_by_esp" if which == "public" else "ours"
            line["worse_by_esp"] = [
                (r["circuit"], r["target"], round(r[by_esp]["esp"] / r["qiskit"]["esp_best"], 5))
                for r in chosen
                if r[by_esp]["esp"] > r["qiskit"]["esp_best"] * (1 + 1e-9)
            ]
            made.append(line)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*(f"{n}_{q}" for n, q in MQT), *library(0)]
    kernels = [f"kernel_{name}_{size}" for name in KERNELS for size in SIZES]
    parser.add_argument("--circuits", nargs="*", default=[*names, *kernels])
    parser.add_argument("--targets", nargs="*", default=TARGETS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of random circuits and angles")
    parser.add_argument("--preserve", default="outcomes", choices=["outcomes", "state", "unitary"], help="for ours")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.out and options.out.exists():
        lines = [json.loads(line) for line in options.out.read_text().splitlines()]
        rows = [line for line in lines if "circuit" in line]
        options.out.write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = {(r["circuit"], r["target"]) for r in rows}
    wanted = [(c, t) for c in options.circuits for t in options.targets if (c, t) not in done]
    began = time.perf_counter()

    def keep(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")

    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        pending = {pool.submit(row, c, t, options.seeds, options.seed, options.preserve): (c, t) for c, t in wanted}
        for future in as_completed(pending):
            try:
                rows.append(future.result())
            except Exception as error:
                print(f"{pending[future]}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            keep(rows[-1])
    versions = {name: version(name) for name in ("qiskit", "pytket", "mqt.bench", "qiskit-ibm-runtime")}
    run = {"command": " ".join(sys.argv), "seconds": round(time.perf_counter() - began, 1), **versions}
    for line in summaries(rows):
        keep({**line, **run})


if __name__ == "__main__":
    main()
