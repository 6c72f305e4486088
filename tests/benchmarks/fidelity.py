"""Predicted fidelity against fidelity measured in simulation, circuit by circuit and target by target.

    python tests/benchmarks/fidelity.py [--targets NAME …] [--widest 10] [--seed 0] [--out fidelity.jsonl]

Circuits of mqt.bench, Trotter steps and the kernels' own, with random angles, are compiled by Qiskit at level 3 and then
1. predicted: `predict`, from the target's figures alone;
2. measured: Aer evolves the density matrix ρ with the target's noise (`executors.noise`: every gate, every wait, the
   waiting qubits scheduled as late as possible), all qubits but the measured ones are traced out, and what counts is
   ⟨ψ|ρ|ψ⟩ with the ideal state ψ, times the probability of reading every measured qubit right.
The probability of a right reading is the same number on both sides, so the lines also hold the state's fidelity alone,
predicted and measured, and, for information, the plain product of 1 − error (ESP, no idling), and the Hellinger fidelity
of the outcomes, readout errors included, to the ideal ones.

The last line sums up: Spearman's rank correlation and the median and largest absolute error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import qiskit
import qiskit_aer
from mqt.bench import get_benchmark_alg
from numpy.typing import NDArray
from pytket.circuit import Circuit
from pytket.extensions.qiskit import tk_to_qiskit
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import quantum_volume
from qiskit.quantum_info import DensityMatrix, Statevector, partial_trace
from qiskit_aer import AerSimulator
from scipy.stats import spearmanr

from qcascade.circuits.ansatze import offset_entangler, position_mixer, random_rotations, ring_ansatz
from qcascade.executors.noise import check_noisy_gates, prepare
from qcascade.routing.fidelity import predict_gates
from qcascade.targets import Target, get_target

TARGETS = ["ibm_torino", "ibm_marrakesh", "ibm_boston", "ibm_brisbane", "quantinuum_h1_1"]
PUBLIC = [
    ("ghz", 4), ("ghz", 10), ("qft", 4), ("qft", 6), ("qft", 8), ("wstate", 5), ("wstate", 8), ("qaoa", 5), ("qaoa", 8),
    ("vqe_real_amp", 6), ("vqe_su2", 8), ("vqe_two_local", 5), ("graphstate", 9), ("dj", 8), ("bv", 8), ("qpeexact", 6),
    ("ae", 5), ("qnn", 6), ("cdkm_ripple_carry_adder", 6), ("draper_qft_adder", 6), ("half_adder", 7), ("grover", 3),
]  # fmt: skip


def circuits(widest: int, seed: int) -> Iterator[tuple[str, QuantumCircuit]]:
    """Names and circuits without measurements."""
    random = np.random.default_rng(seed)
    for name, qubits in PUBLIC:
        if qubits <= widest:
            made = get_benchmark_alg(name, qubits)
            made = made.assign_parameters(random.uniform(0, 2 * np.pi, made.num_parameters))
            yield f"{name}_{qubits}", made.decompose(reps=6).remove_final_measurements(inplace=False)
    for qubits in (3, 5, 7):
        yield f"quantum_volume_{qubits}", quantum_volume(qubits, seed=seed).decompose()
    for qubits, steps in ((6, 2), (8, 3), (10, 4)):
        if qubits <= widest:
            yield f"heisenberg_{qubits}_{steps}", heisenberg(qubits, steps)
    for name, circuit in kernels():
        yield name, bound(circuit, random)


def heisenberg(qubits: int, steps: int) -> QuantumCircuit:
    """Trotter steps of a Heisenberg chain from the Néel state."""
    circuit = QuantumCircuit(qubits)
    circuit.x(range(0, qubits, 2))
    for _ in range(steps):
        for first in [*range(0, qubits - 1, 2), *range(1, qubits - 1, 2)]:
            circuit.rxx(0.4, first, first + 1)
            circuit.ryy(0.4, first, first + 1)
            circuit.rzz(0.4, first, first + 1)
    return circuit


def kernels() -> Iterator[tuple[str, Circuit]]:
    """The kernels' circuits."""
    for qubits, layers in ((4, 2), (5, 3)):
        yield f"position_mixer_{qubits}_{layers}", position_mixer(qubits, layers)[0]
    for qubits, layers in ((6, 2), (8, 4)):
        yield f"random_rotations_{qubits}_{layers}", random_rotations(qubits, layers, 3, seed=0)[0]
    for qubits, blocks in ((4, 2), (6, 1)):
        circuit = Circuit(qubits)
        offset_entangler(circuit, blocks, 2, "w")
        yield f"offset_entangler_{qubits}_{blocks}", circuit
    yield "ring_ansatz_6_2", ring_ansatz(6, 2)[0]


def bound(circuit: Circuit, random: np.random.Generator) -> QuantumCircuit:
    """With random angles, in Qiskit."""
    circuit = circuit.copy()
    symbols = sorted(circuit.free_symbols(), key=str)
    circuit.symbol_substitution(dict(zip(symbols, random.uniform(-np.pi, np.pi, len(symbols)), strict=True)))
    return tk_to_qiskit(circuit)


def compare(name: str, source: QuantumCircuit, target: Target, seed: int) -> dict[str, object]:
    """One line: what was predicted and what came out."""
    circuit = source.copy()
    circuit.measure_all()
    compiled = transpile(circuit, target=target.to_qiskit(), optimization_level=3, seed_transpiler=seed)
    gates = [
        (i.operation.name, tuple(compiled.find_bit(q).index for q in i.qubits))
        for i in compiled.data
        if i.operation.name not in ("measure", "barrier")
    ]
    measured = sorted(compiled.find_bit(i.qubits[0]).index for i in compiled.data if i.operation.name == "measure")
    start = time.perf_counter()
    predicted = predict_gates(gates, target, measured)
    seconds = time.perf_counter() - start
    prepared = prepare([compiled], target)
    check_noisy_gates(prepared.circuits[0], prepared.noise_model)
    kept = [prepared.nodes.index(node) for node in measured]
    real, ideal = evolved(prepared.circuits[0], prepared.noise_model, kept)
    state = float(np.real(ideal.conj() @ real @ ideal))
    assert predicted.fidelity is not None and predicted.readout is not None
    readouts = [target.properties[node].readout_error or 0.0 for node in measured]
    return {
        "circuit": name,
        "target": target.name,
        "qubits": source.num_qubits,
        "two_qubit_gates": sum(len(q) > 1 for _, q in gates),
        "predicted": predicted.fidelity,
        "measured": state * float(np.prod([1 - r for r in readouts])),
        "state_predicted": predicted.fidelity / predicted.readout,
        "state_measured": state,
        "gates": predicted.gates,
        "readout": predicted.readout,
        "idle": predicted.idle,
        "duration": predicted.duration,
        "esp": float(np.prod([1 - (target.places[gate].error or 0.0) for gate in gates])) * predicted.readout
        if all(gate in target.places for gate in gates)
        else None,
        "hellinger": hellinger(np.real(np.diag(real)), np.abs(ideal) ** 2, readouts),
        "prediction_seconds": round(seconds, 5),
    }


def evolved(circuit: QuantumCircuit, noise: object, kept: list[int]) -> tuple[NDArray[np.complex128], ...]:
    """The noisy density matrix and the ideal state vector of the kept qubits, given in ascending order."""
    circuit = circuit.remove_final_measurements(inplace=False)
    rest = [k for k in range(circuit.num_qubits) if k not in kept]
    weights, vectors = np.linalg.eigh(partial_trace(Statevector(circuit), rest).data)
    assert weights[-1] > 1 - 1e-6, "the measured qubits are entangled with others"
    circuit.save_density_matrix(kept)
    simulator = AerSimulator(method="density_matrix", noise_model=noise, max_parallel_threads=2)
    real = DensityMatrix(simulator.run(circuit).result().data()["density_matrix"])
    return real.data, vectors[:, -1]


def hellinger(real: NDArray[np.float64], ideal: NDArray[np.float64], readouts: list[float]) -> float:
    """(Σ √(p q))² with readout errors on the real side. Qubits ascend, in `readouts` too."""
    table = real.reshape((2,) * len(readouts))
    for axis, wrong in enumerate(reversed(readouts)):
        table = np.moveaxis(np.tensordot([[1 - wrong, wrong], [wrong, 1 - wrong]], table, (1, axis)), 0, axis)
    return float(np.sqrt(np.clip(table.ravel(), 0, None) * ideal).sum() ** 2)


def main() -> None:
    """Print and write one line a pair, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--widest", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    common = {
        "command": "python " + " ".join(sys.argv),
        "qiskit": qiskit.__version__,
        "qiskit_aer": qiskit_aer.__version__,
    }
    lines: list[dict[str, object]] = []
    for target in map(get_target, options.targets):
        for name, circuit in circuits(options.widest, options.seed):
            found = compare(name, circuit, target, options.seed)
            lines.append(found)
            print(
                f"{target.name:<16} {name:<24} {found['two_qubit_gates']:4} predicted {found['predicted']:.4f} "
                f"measured {found['measured']:.4f} Hellinger {found['hellinger']:.4f}",
                flush=True,
            )
    lines.append(summary(lines))
    print(json.dumps(lines[-1]))
    if options.out:
        options.out.write_text("".join(json.dumps({**line, **common}) + "\n" for line in lines))


def summary(lines: list[dict[str, object]]) -> dict[str, object]:
    """Rank correlation and absolute errors, of the whole and of the state alone."""
    found: dict[str, object] = {"summary": True, "pairs": len(lines)}
    for label, first, second in (
        ("", "predicted", "measured"),
        ("state_", "state_predicted", "state_measured"),
    ):
        predicted, measured = (np.array([line[key] for line in lines], dtype=float) for key in (first, second))
        errors = np.abs(predicted - measured)
        found[f"{label}spearman"] = round(float(spearmanr(predicted, measured).statistic), 4)
        found[f"{label}median_error"] = round(float(np.median(errors)), 5)
        found[f"{label}largest_error"] = round(float(errors.max()), 4)
        found[f"{label}bias"] = round(float((predicted - measured).mean()), 4)
    return found


if __name__ == "__main__":
    main()
