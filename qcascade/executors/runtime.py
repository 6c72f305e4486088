"""IBM Runtime as an executor: one job of `SamplerV2` for all of a step, one PUB with a parameter array a circuit."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from pytket.circuit import OpType
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BitArray
from qiskit_aer.noise import NoiseModel
from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors.base import Shape, Task, Values
from qcascade.executors.deadline import check_deadline, within
from qcascade.executors.device import DeviceExecutor, one_qubit_gates
from qcascade.executors.native import NativeCircuit
from qcascade.executors.noise import noise_digest
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
        self.mode, self.sampler = mode, SamplerV2(mode=mode)
        service = getattr(mode, "service", None)
        self._service: Any = service if isinstance(service, QiskitRuntimeService) else None
        self._jobs: dict[str, tuple[Any, float]] = {}
        self._setting = threading.Lock()
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

    @cached_property
    def _noise(self) -> str:
        """The noise that a simulator in this process was given, which its name does not tell; nothing for others."""
        backend = getattr(self.mode, "_backend", self.mode)  # a session's
        model = getattr(getattr(backend, "options", None), "noise_model", None)
        return f"|{noise_digest(model, self._target.digest)}" if isinstance(model, NoiseModel) else ""

    @property
    def identity(self) -> str:
        """What results depend on beside circuits, angles and shots."""
        mode = getattr(self.mode, "name", type(self.mode).__name__)
        return f"{self.name}|{mode}|{self._target.name}|{self.seed}{self._noise}"

    @property
    def persistent(self) -> bool:
        """Whether jobs are kept by IBM; those of a fake backend are not."""
        return self._service is not None

    def submit(
        self, tasks: Sequence[Task], shots: int | None, *, tag: str | None = None, seeds: Sequence[bytes] | None = None
    ) -> str:
        """One job with a PUB for every task, tagged."""
        pubs = [(self._built(task.circuit), task.angles, shots) for task in tasks if len(task.angles)]
        started = time.monotonic()

        def work() -> Any:
            with self._setting:  # options belong to the sampler, not to a call
                if tag is not None and self._service is not None:
                    self.sampler.options.environment.job_tags = [tag]
                if seeds is not None and self.seed is not None:
                    joined = hashlib.blake2b(b"".join(seeds), digest_size=4).digest()
                    self.sampler.options.simulator.seed_simulator = int.from_bytes(joined, "little") % 2**31
                return self.sampler.run(pubs)

        try:
            job = within(self.deadline, work)
        except TimeoutError as error:
            raise BackendError(f"SamplerV2 took no job within the deadline of {self.deadline:g} s.") from error
        except Exception as error:
            raise BackendError(f"SamplerV2 raised {type(error).__name__}: {error}.") from error
        handle = str(job.job_id())
        self._jobs[handle] = (job, started)
        return handle

    def fetch(self, handle: str, shapes: Sequence[Shape], *, seconds: float | None = None) -> list[Values]:
        """Counts of a job, within the deadline."""
        if handle not in self._jobs:
            if self._service is None:
                raise BackendError(f"the job {handle} ran in a process that is gone.", [handle])
            try:
                self._jobs[handle] = (self._service.job(handle), time.monotonic())
            except Exception as error:
                raise BackendError(f"IBM Runtime raised {type(error).__name__}: {error}.", [handle]) from error
        job, started = self._jobs[handle]
        now = time.monotonic()
        limit = max(0.001, self.deadline - (now - started)) if seconds is None else seconds
        try:
            found = within(limit, lambda: [result.data.c for result in job.result()])
        except TimeoutError as error:
            raise BackendError(
                f"the job gave no result within the deadline of {limit:g} s ({time.monotonic() - now:.3g} s); "
                "it was not cancelled: `handles` has its id.",
                [handle],
            ) from error
        except Exception as error:
            raise BackendError(f"SamplerV2 raised {type(error).__name__}: {error}.", [handle]) from error
        kept = [shape for shape in shapes if shape[0]]
        if len(found) != len(kept):
            raise BackendError(f"SamplerV2 returned {len(found)} results for {len(kept)} circuits.", [handle], found)
        for bits, (rows, width) in zip(found, kept, strict=True):
            bindings = math.prod(bits.shape)
            if bits.num_bits != width or bindings != rows or not bits.num_shots:
                raise BackendError(
                    f"SamplerV2 returned {bindings} bindings of {bits.num_shots} shots and {bits.num_bits} bits for a circuit of "
                    f"{rows} bindings and {width} bits.",
                    [handle],
                    found,
                )
        del self._jobs[handle]
        rest = iter(found)
        return [_counts(next(rest), width, rows) if rows else np.empty((0, 2**width)) for rows, width in shapes]

    @property
    def findable(self) -> bool:
        """Jobs of IBM's service are found by tag."""
        return self._service is not None

    def find(self, tag: str) -> str | None:
        """The job with a tag."""
        if self._service is None:
            return super().find(tag)
        try:
            jobs = self._service.jobs(job_tags=[tag], limit=1)
        except Exception as error:
            raise BackendError(f"IBM Runtime raised {type(error).__name__}: {error}.") from error
        return str(jobs[0].job_id()) if jobs else None

    def cancel(self, handle: str) -> bool:
        """Cancel a job that is still waiting or running."""
        try:
            job = self._jobs[handle][0] if handle in self._jobs else None
            if job is None and self._service is not None:
                job = self._service.job(handle)
            if job is None:
                return False
            job.cancel()
            return str(getattr(job.status(), "name", job.status())).upper() == "CANCELLED"
        except Exception as error:
            raise BackendError(f"IBM Runtime could not cancel: {type(error).__name__}: {error}.", [handle]) from error

    def _built(self, circuit: NativeCircuit) -> QuantumCircuit:
        if circuit not in self._circuits:
            assert self._target.qubits is not None
            nodes = [qubit.index[0] for qubit in circuit.qubits]
            self._circuits[circuit] = circuit.parametrised(nodes, self._target.qubits)
        return self._circuits[circuit]

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
