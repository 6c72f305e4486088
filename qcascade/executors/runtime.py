"""IBM Runtime as an executor: one job of `SamplerV2` for all of a step, one PUB with a parameter array a circuit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from pytket.circuit import OpType
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BitArray
from qiskit_ibm_runtime import SamplerV2

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors.base import Log, Values
from qcascade.executors.deadline import check_deadline, within
from qcascade.executors.device import DeviceExecutor, Task, one_qubit_gates
from qcascade.executors.native import NativeCircuit
from qcascade.targets import Target, get_target


class RuntimeExecutor(DeviceExecutor):
    """Runs circuits by qiskit-ibm-runtime's SamplerV2.

    Args:
        mode: A backend, session or batch; a fake backend runs here, in the client's own local mode.
        shots: Per circuit.
        target: What to compile for, or its name; read from the backend where None, which a session does not allow.
        deadline: Seconds that a job may take, queue included.
        seed: Of the samples in local mode, and of SPSA.
        options: `mitigation`, and see `Executor`.

    Raises:
        ExecutionError: The backend does not describe itself, or an option is out of range.

    Example:
        >>> from qiskit_ibm_runtime.fake_provider import FakeManilaV2
        >>> RuntimeExecutor(FakeManilaV2(), shots=100).target.qubits
        5
    """

    name = "runtime"

    def __init__(
        self,
        mode: Any,
        shots: int = 1024,
        *,
        target: Target | str | None = None,
        deadline: float = 86400.0,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shots, seed=seed, **options)
        if target is None and not hasattr(mode, "target"):
            raise ExecutionError(f"{type(mode).__name__} does not describe its gates; give target= as well.")
        described = Target.from_qiskit(mode) if target is None else target
        self._target = get_target(described) if isinstance(described, str) else described
        self.deadline = check_deadline(deadline)
        self.sampler = SamplerV2(mode=mode)
        if seed is not None:
            self.sampler.options.simulator.seed_simulator = seed
        self._circuits: WeakKeyDictionary[NativeCircuit, QuantumCircuit] = WeakKeyDictionary()

    @property
    def target(self) -> Target:
        """What circuits are compiled for."""
        return self._target

    @property
    def method(self) -> str:
        """What runs the circuits."""
        return "SamplerV2"

    @property
    def native_gates(self) -> frozenset[OpType]:
        """The device's gates."""
        return one_qubit_gates(self._target)

    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        return self._compiled(template, self._target)

    def _submit(self, tasks: Sequence[Task], shots: int | None, log: Log) -> list[Values]:
        assert shots is not None
        pubs = [(self._built(circuit), angles, shots) for circuit, angles in tasks if len(angles)]
        log.submissions += 1
        found = iter(self._arrays(pubs))
        return [
            _counts(next(found), len(circuit.reads), len(angles))
            if len(angles)
            else np.empty((0, 2 ** len(circuit.reads)))
            for circuit, angles in tasks
        ]

    def _built(self, circuit: NativeCircuit) -> QuantumCircuit:
        if circuit not in self._circuits:
            assert self._target.qubits is not None
            nodes = [qubit.index[0] for qubit in circuit.qubits]
            self._circuits[circuit] = circuit.parametrised(nodes, self._target.qubits)
        return self._circuits[circuit]

    def _arrays(self, pubs: Sequence[tuple[QuantumCircuit, Values, int]]) -> list[BitArray]:
        jobs: list[Any] = []
        started = time.monotonic()

        def work() -> list[BitArray]:
            jobs.append(self.sampler.run(pubs))
            return [result.data.c for result in jobs[0].result()]

        def handles() -> list[str]:
            return [str(job.job_id()) for job in jobs]

        try:
            found = within(self.deadline, work)
        except TimeoutError as error:
            raise BackendError(
                f"the job gave no result within the deadline of {self.deadline:g} s ({time.monotonic() - started:.3g} s); "
                "it was not cancelled: `handles` has its id.",
                handles(),
            ) from error
        except Exception as error:
            raise BackendError(f"SamplerV2 raised {type(error).__name__}: {error}.", handles()) from error
        if len(found) != len(pubs):
            raise BackendError(f"SamplerV2 returned {len(found)} results for {len(pubs)} circuits.", handles(), found)
        for bits, (circuit, angles, _) in zip(found, pubs, strict=True):
            bindings = math.prod(bits.shape)
            if bits.num_bits != circuit.num_clbits or bindings != len(angles) or not bits.num_shots:
                raise BackendError(
                    f"SamplerV2 returned {bindings} bindings of {bits.num_shots} shots and {bits.num_bits} bits for a circuit of "
                    f"{len(angles)} bindings and {circuit.num_clbits} bits.",
                    handles(),
                    found,
                )
        return found

    def __getstate__(self) -> dict[str, Any]:
        raise ExecutionError(
            "a RuntimeExecutor holds a live client and cannot be saved; call use('statevector') first."
        )


def _counts(bits: BitArray, width: int, rows: int) -> Values:
    """Counts [N, 2^m] of packed bits [N, shots, bytes], most significant first."""
    packed = bits.array.reshape(rows, bits.num_shots, -1).astype(np.int64)
    outcomes = np.zeros(packed.shape[:2], np.int64)
    for place in range(packed.shape[2]):
        outcomes = outcomes << 8 | packed[:, :, place]
    flat = (outcomes + np.arange(rows)[:, None] * 2**width).ravel()
    return np.bincount(flat, minlength=rows * 2**width).reshape(rows, -1).astype(np.float64)
