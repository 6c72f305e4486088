"""A target's noise, simulated by Aer on the circuits compiled for it.

Qubits that idle all the time are dropped and waiting qubits decohere (`executors.noise`). All bindings of a call go to
Aer as parameter arrays of one run. Small circuits run as density matrices, whose cost does not depend on shots; wide
ones as a trajectory a shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pytket.circuit import OpType
from qiskit.circuit import QuantumCircuit
from qiskit_aer import AerSimulator

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import BackendError, ExecutionError, TargetError
from qcascade.executors.base import Log, Values
from qcascade.executors.device import DeviceExecutor, Task, compiled, one_qubit_gates
from qcascade.executors.native import NativeCircuit
from qcascade.executors.noise import check_noisy_gates, prepare
from qcascade.targets import Target, get_target

METHODS = ("automatic", "density_matrix", "trajectories")
_WIDEST_DENSITY = 13  # a density matrix of 1 GiB
_Built = tuple[tuple[QuantumCircuit, ...], AerSimulator, str]


class NoisyExecutor(DeviceExecutor):
    """Samples of a noisy device.

    Args:
        target: Whose noise, or its name; it must be calibrated.
        shots: Per circuit.
        simulation: "density_matrix", "trajectories" (a state vector a shot), or "automatic" (by width and shots).
        seed: Of the samples.
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

    def __init__(
        self,
        target: Target | str,
        shots: int = 1024,
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
        self.simulation, self.method = simulation, "Aer"
        self._built: dict[tuple[NativeCircuit, ...], _Built] = {}

    @property
    def target(self) -> Target:
        return self._target

    @property
    def native_gates(self) -> frozenset[OpType]:
        return one_qubit_gates(self._target)

    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        return compiled(template, self._target)

    def _submit(self, tasks: Sequence[Task], shots: int, log: Log) -> list[Values]:
        run = [task for task in tasks if len(task[1])]
        circuits, simulator, self.method = self._prepared_run(tuple(circuit for circuit, _ in run), shots)
        binds = [
            {symbol: angles[:, int(symbol.index)].tolist() for symbol in circuit.parameters}
            for circuit, (_, angles) in zip(circuits, run, strict=True)
        ]
        # Aer binds a circuit without parameters once
        repeated = [c for c, (_, a) in zip(circuits, run, strict=True) for _ in range(1 if c.parameters else len(a))]
        every = [b for b, (_, a) in zip(binds, run, strict=True) for _ in range(1 if b else len(a))]
        log.submissions += 1
        threads = torch.get_num_threads()
        job = simulator.run(
            repeated,
            parameter_binds=every,
            shots=shots,
            seed_simulator=int(self.random.integers(2**31)),
            max_parallel_threads=threads,
            max_parallel_experiments=threads,
        )
        result = job.result()
        if not result.success:
            raise BackendError(f"Aer failed: {result.status}.")
        found = iter(result.results)
        return [
            np.stack([_counts(next(found).data.counts, 2 ** len(circuit.reads)) for _ in angles])
            if len(angles)
            else np.empty((0, 2 ** len(circuit.reads)))
            for circuit, angles in tasks
        ]

    def _prepared_run(self, natives: tuple[NativeCircuit, ...], shots: int) -> _Built:
        """Scheduled circuits on the qubits in use, and their simulator; kept, since the next step runs them again."""
        if natives not in self._built:
            assert self._target.qubits is not None
            made = [
                circuit.parametrised([qubit.index[0] for qubit in circuit.qubits], self._target.qubits)
                for circuit in natives
            ]
            noisy = prepare(made, self._target)
            for circuit in noisy.circuits:
                check_noisy_gates(circuit, noisy.noise_model)
            width = len(noisy.nodes)
            density = self.simulation == "density_matrix" or (
                self.simulation == "automatic" and width <= _WIDEST_DENSITY and 2**width <= 4 * shots
            )
            simulator = AerSimulator(
                method="density_matrix" if density else "statevector", noise_model=noisy.noise_model
            )
            method = f"Aer, {'density matrix' if density else 'trajectories'} of {width} qubits"
            self._built[natives] = (noisy.circuits, simulator, method)
        return self._built[natives]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_built": {}}


def _counts(found: dict[str, int], size: int) -> Values:
    """Counts [2^m] of Aer's, whose outcomes are hexadecimal."""
    counts = np.zeros(size)
    for outcome, number in found.items():
        counts[int(outcome, 16)] = number
    return counts
