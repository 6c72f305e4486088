"""Bind and submit many angle sets of a noisy circuit: `NoisyExecutor` beside pytket's own way, interleaved.

    python tests/benchmarks/executors.py [--sets 200] [--qubits 8] [--layers 4] [--shots 1024] [--rounds 3] [--out FILE]

Both run the same native gates, compiled once for the ibm_torino snapshot, with the snapshot's noise, on the same number of
threads. pytket's way is `symbol_substitution` for every set and one `AerBackend(noise_model).process_circuits`; results
are fetched in both. In "gates" the target's T1 and T2 are left out, so that both simulate exactly the same noise; in
"gates and waits" ours also has idle qubits decohere, which pytket's backend has no way to do. "ours by Aer" is
`simulation="density_matrix"`: one run of Aer with parameter arrays in place of transfer matrices of our own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pytket.circuit import Bit, Circuit, OpType
from pytket.extensions.qiskit import AerBackend
from qiskit_ibm_runtime.fake_provider import FakeTorino
from sympy import Symbol, pi

from qcascade.circuits.observables import single_z
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.executors import Job, NoisyExecutor
from qcascade.executors.noise import noise_model
from qcascade.targets import Target


def without_waits(target: Target) -> Target:
    """The same without T1 and T2: only gates and readout err."""
    return dataclasses.replace(
        target, properties=tuple(dataclasses.replace(p, t1=None, t2=None) for p in target.properties)
    )


def chain(qubits: int, layers: int) -> CircuitTemplate:
    """Layers of RY and RZ on every qubit and CNOTs along a chain; ⟨Z⟩ of every qubit."""
    circuit, weights = Circuit(qubits), list[str]()
    for _ in range(layers):
        for kind in (OpType.Ry, OpType.Rz):
            for qubit in range(qubits):
                weights.append(f"w{len(weights)}")
                circuit.add_gate(kind, Symbol(weights[-1]) / pi, [qubit])
        for qubit in range(qubits - 1):
            circuit.CX(qubit, qubit + 1)
    return CircuitTemplate(circuit, (), tuple(weights), measurement=Expectations(single_z(qubits)))


def by_pytket(circuit: Circuit, backend: AerBackend, angles: np.ndarray, shots: int) -> np.ndarray:
    """Expectation values of Z on every bit."""
    bound = []
    for row in angles:
        copy = circuit.copy()
        copy.symbol_substitution({Symbol(f"a{k}"): float(value) for k, value in enumerate(row)})
        bound.append(copy)
    results = backend.get_results(backend.process_circuits(bound, n_shots=shots, seed=1))
    return np.array([1 - 2 * np.array(r.get_shots()).mean(0) for r in results])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("sets", 200), ("qubits", 8), ("layers", 4), ("shots", 1024), ("rounds", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    full = Target.from_qiskit(FakeTorino(), name="ibm_torino")
    for noise, target in (("gates", without_waits(full)), ("gates and waits", full)):
        template = chain(options.qubits, options.layers)
        executor = NoisyExecutor(target, options.shots, seed=0)
        by_aer = NoisyExecutor(target, options.shots, seed=0, simulation="density_matrix")
        prepared = executor.prepare(template)
        measured = prepared.circuit.copy()
        for bit, place in enumerate(prepared.measured):
            measured.add_bit(Bit(bit))
            measured.Measure(prepared.circuit.qubits[place], Bit(bit))
        backend = AerBackend(noise_model(without_waits(full)))
        for name in ("max_parallel_threads", "max_parallel_experiments"):
            backend._qiskit_backend.set_options(**{name: options.threads})
        angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (options.sets, len(prepared.angles.constants)))
        by_pytket(measured, backend, angles[:2], options.shots)
        for way in (executor, by_aer):
            way.run([Job(template, angles[:2])])
        seconds: dict[str, list[float]] = {"ours": [], "ours by Aer": [], "pytket": []}
        for _ in range(options.rounds):
            start = time.perf_counter()
            ours = executor.run([Job(template, angles)])[0]
            between = time.perf_counter()
            by_aer.run([Job(template, angles)])
            later = time.perf_counter()
            theirs = by_pytket(measured, backend, angles, options.shots)
            seconds["ours"].append(between - start)
            seconds["ours by Aer"].append(later - between)
            seconds["pytket"].append(time.perf_counter() - later)
        record = {
            "command": shlex.join(["python", *sys.argv]),
            "noise": noise,
            "qubits": options.qubits,
            "two_qubit_gates": measured.n_2qb_gates(),
            "angles": angles.shape[1],
            "sets": options.sets,
            "shots": options.shots,
            "method": executor.method,
            "seconds": {name: [round(s, 3) for s in values] for name, values in seconds.items()},
            "ratio": {
                name: round(median(o / p for o, p in zip(seconds[name], seconds["pytket"], strict=True)), 3)
                for name in ("ours", "ours by Aer")
            },
            "largest_difference_in_standard_errors": round(
                float((np.abs(ours.values - theirs) / np.hypot(ours.standard_errors, ours.standard_errors)).max()), 2
            ),
            "threads": options.threads,
            "machine": platform.processor() or platform.machine(),
            **{name: version(name) for name in ("qiskit-aer", "pytket", "pytket-qiskit")},
        }
        print(json.dumps(record), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
