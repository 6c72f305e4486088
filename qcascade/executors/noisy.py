"""A target's noise, simulated on the circuits compiled for it.

Qubits that idle all the time are dropped and waiting qubits decohere (`executors.noise`, which makes Aer's noise model).
Circuits of up to 12 qubits are simulated exactly in the Pauli basis, one binding after the other, and sampled; wider ones by Aer,
a trajectory a shot, all bindings as parameter arrays of one run, or, with a seed for every binding, in a run of its own each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pytket.circuit import OpType
from qiskit.circuit import QuantumCircuit
from qiskit_aer import AerSimulator

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import BackendError, ExecutionError, TargetError
from qcascade.executors.base import Shape, Task, Values
from qcascade.executors.device import DeviceExecutor, one_qubit_gates
from qcascade.executors.local import LocalQueue, drawn, seeds_from
from qcascade.executors.native import NativeCircuit
from qcascade.executors.noise import check_noisy_gates, prepare
from qcascade.executors.sampling import FEW
from qcascade.executors.transfer import TransferCircuit
from qcascade.targets import Target, get_target

METHODS = ("automatic", "transfer", "density_matrix", "trajectories")
_WIDEST = 12  # a state of 64 MiB in the Pauli basis, one for every thread
_Run = tuple[QuantumCircuit, "TransferCircuit | AerSimulator"]


class NoisyExecutor(DeviceExecutor):
    """Samples of a noisy device.

    Args:
        target: Whose noise, or its name; it must be calibrated.
        shots: Per circuit; None gives the exact values under noise, of circuits of up to 12 qubits.
        simulation: "transfer" (exact, in the Pauli basis), "density_matrix" or "trajectories" (both by Aer), or
            "automatic": the first up to 12 qubits, the last beyond.
        seed: Of the samples. "trajectories" and "density_matrix" draw other ones where every circuit has a seed of its own: behind a
            dispatcher, or divided among workers.
        options: `mitigation`, and see `Executor`.

    Raises:
        ExecutionError: The target is ideal or unknown, or an option is out of range.

    Example:
        >>> from qcascade.targets import Gate, QubitProperties
        >>> gates = tuple(Gate(name, (0,), error) for name, error in (("sx", 1e-3), ("x", 1e-3), ("rz", 0.0)))
        >>> target = Target("one", "one qubit", 1, gates, (QubitProperties(0.02),))
        >>> NoisyExecutor(target, shots=100).target.name
        'one'
    """

    name = "noisy"
    exact: ClassVar[bool] = True

    def __init__(
        self,
        target: Target | str,
        shots: int | None = 1024,
        *,
        simulation: str = "automatic",
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shots, seed=seed, **options)
        try:
            self._target = get_target(target) if isinstance(target, str) else target
        except TargetError as error:
            raise ExecutionError(f"noise of which target? {error}") from error
        if not self._target.calibrated_gates:
            raise ExecutionError(
                f"target {self._target.name!r} has no noise to simulate; give a calibrated one, such as "
                "use('noisy', target='ibm_torino'), or use('shots')."
            )
        if simulation not in METHODS:
            raise ExecutionError(f"simulation={simulation!r} is unknown; choose one of {', '.join(METHODS)}.")
        self.simulation, self._how = simulation, simulation
        self._noise = hashlib.blake2b(self._target.to_json().encode(), digest_size=8).hexdigest()
        self._built: dict[NativeCircuit, _Run] = {}
        self._known: dict[tuple[int, ...], dict[Any, Values]] = {}  # matrices by the nodes whose noise they have
        self._queue = LocalQueue()

    @property
    def target(self) -> Target:
        """What circuits are compiled for."""
        return self._target

    @property
    def native_gates(self) -> frozenset[OpType]:
        """The device's gates."""
        return one_qubit_gates(self._target)

    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        return self._compiled(template, self._target)

    @property
    def identity(self) -> str:
        """What results depend on beside circuits, angles and shots."""
        return f"{self.name}|{self._target.name}|{self._noise}|{self.simulation}|{self.seed}"

    def submit(
        self, tasks: Sequence[Task], shots: int | None, *, tag: str | None = None, seeds: Sequence[bytes] | None = None
    ) -> str:
        """Keep tasks for `fetch`, which simulates them."""
        return self._queue.put(tasks, shots, seeds)

    def fetch(self, handle: str, shapes: Sequence[Shape], *, seconds: float | None = None) -> list[Values]:
        """Simulate."""
        return self._queue.take(handle, self._simulated)

    def grain(self, task: Task) -> int:
        """Row by row."""
        return 1

    def predicted(self, task: Task, shots: int | None) -> float:
        """By gates, entries of the state that two-qubit gates act on, and shots; constants as measured on one core."""
        gates, qubits = task.circuit.gates, len(task.circuit.qubits)
        if self.simulation == "trajectories" or (self.simulation == "automatic" and qubits > _WIDEST):
            return 1e-3 + 5e-8 * float(len(gates) * (shots or 1) * 2**qubits)
        pairs, drawn_one_by_one = sum(len(gate.qubits) > 1 for gate in gates), min(shots or 0, FEW)
        return 2e-6 + 8e-8 * len(gates) + 3e-10 * pairs * 4.0**qubits + 3e-9 * drawn_one_by_one * (task.bits + 3)

    def packed(self, circuit: Any) -> Any:
        """With its transfer matrices, which take a second to make."""
        _, simulator = self._prepared_run(circuit)
        return circuit, None if isinstance(simulator, AerSimulator) else self._built[circuit]

    def unpacked(self, packed: Any) -> Any:
        """The circuit, which need not be prepared again."""
        circuit, built = packed
        if built is not None:
            self._built[circuit] = built
        return circuit

    def _simulated(self, tasks: Sequence[Task], shots: int | None, seeds: Sequence[bytes] | None) -> list[Values]:
        found, used = [], 0
        for task in tasks:
            own = None if seeds is None else seeds[used : used + len(task.angles)]
            used += len(task.angles)
            found.append(self._one(task, shots, own) if len(task.angles) else np.empty((0, 2**task.bits)))
        return found

    def _one(self, task: Task, shots: int | None, seeds: Sequence[bytes] | None) -> Values:
        """Each circuit by itself, so that it does not matter what runs together."""
        circuit, simulator = self._prepared_run(task.circuit)
        if isinstance(simulator, AerSimulator):
            if shots is None:
                raise ExecutionError(
                    f"exact values are had with simulation='transfer', up to {_WIDEST} qubits; this circuit has "
                    f"{circuit.num_qubits}. Give shots."
                )
            if seeds is None:
                return self._by_aer(circuit, simulator, task.angles, shots, int(self.random.integers(2**31)))
            # Aer has one seed for a run
            rows = [
                self._by_aer(
                    circuit, simulator, task.angles[k : k + 1], shots, int.from_bytes(seed[:8], "little") % 2**31
                )
                for k, seed in enumerate(seeds)
            ]
            return np.concatenate(rows)
        chance = simulator.probabilities(task.angles, double=shots is None)
        if shots is None:
            return chance
        return drawn(chance, shots, seeds_from(self.random, len(chance)) if seeds is None else seeds)

    def _by_aer(
        self, circuit: QuantumCircuit, simulator: AerSimulator, angles: Values, shots: int, seed: int
    ) -> Values:
        # Aer binds a circuit without parameters once
        times = 1 if circuit.parameters else len(angles)
        bind = {symbol: angles[:, int(symbol.index)].tolist() for symbol in circuit.parameters}
        threads = torch.get_num_threads()
        result = simulator.run(
            [circuit] * times,
            parameter_binds=[bind] * times,
            shots=shots,
            seed_simulator=seed,
            max_parallel_threads=threads,
            max_parallel_experiments=threads,
        ).result()
        if not result.success:
            raise BackendError(f"Aer failed: {result.status}.")
        found = iter(result.results)
        return np.stack([_counts(next(found).data.counts, 2**circuit.num_clbits) for _ in angles])

    def _prepared_run(self, native: NativeCircuit) -> _Run:
        """The scheduled circuit on the qubits in use, and what simulates it; kept, since the next step runs it again."""
        if native not in self._built:
            assert self._target.qubits is not None
            made = native.parametrised([qubit.index[0] for qubit in native.qubits], self._target.qubits)
            noisy = prepare([made], self._target)
            (circuit,) = noisy.circuits
            kind = self.simulation
            if kind == "automatic":
                kind = "transfer" if len(noisy.nodes) <= _WIDEST else "trajectories"
            if kind == "transfer":
                known = self._known.setdefault(noisy.nodes, {})
                self._built[native] = (circuit, TransferCircuit(circuit, noisy.noise_model, known))
            else:
                check_noisy_gates(circuit, noisy.noise_model)
                method = "density_matrix" if kind == "density_matrix" else "statevector"
                self._built[native] = (circuit, AerSimulator(method=method, noise_model=noisy.noise_model))
        circuit, simulator = self._built[native]
        kind = f"Aer, {simulator.options.method}" if isinstance(simulator, AerSimulator) else "transfer matrices"
        self._how = f"{kind}, {circuit.num_qubits} qubits"
        return self._built[native]

    @property
    def method(self) -> str:
        """How circuits run."""
        return self._how

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_built": {}, "_known": {}}


def _counts(found: dict[str, int], size: int) -> Values:
    """Counts [2^m] of Aer's, whose outcomes are hexadecimal."""
    counts = np.zeros(size)
    for outcome, number in found.items():
        counts[int(outcome, 16)] = number
    return counts
