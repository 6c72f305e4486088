"""Any pytket Backend as an executor: circuits compiled once, bound by numbers, one `process_circuits` for all of a step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pytket.backends.backend import Backend
from pytket.backends.backendresult import BackendResult
from pytket.backends.resulthandle import ResultHandle
from pytket.circuit import Bit, Circuit, OpType
from qiskit_aer.noise import NoiseModel

from qcascade.circuits.angles import AngleCircuit, angle_circuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import BackendError, ExecutionError, TargetError
from qcascade.executors.base import Log, Values
from qcascade.executors.deadline import check_deadline, within
from qcascade.executors.device import DeviceExecutor, Task, one_qubit_gates
from qcascade.executors.native import native
from qcascade.executors.noise import check_noisy_gates
from qcascade.targets import Target, get_target

_ATTEMPTS, _PAUSE = 3, 0.2  # fetching a result again costs nothing; seconds between


class PytketExecutor(DeviceExecutor):
    """Runs circuits on a pytket Backend.

    A circuit that the backend accepts as it is, is submitted as it is; otherwise it is compiled for `target`.

    Args:
        backend: Any that supports counts.
        shots: Per circuit. A backend may return fewer, which the `Run` then says.
        target: What to compile for, or its name; read from the backend where None. Give it for an `AerBackend` with a
            noise model, whose own compilation uses gates that the noise does not know.
        deadline: Seconds that a submission and fetching its results may take together.
        seed: Of the samples, for backends that take one, and of SPSA.
        options: `mitigation`, and see `Executor`.

    Raises:
        ExecutionError: The backend gives no counts, or an option is out of range.

    Example:
        >>> from pytket.extensions.qiskit import AerBackend
        >>> PytketExecutor(AerBackend(), shots=100).shots
        100
    """

    name = "pytket"

    def __init__(
        self,
        backend: Backend,
        shots: int = 1024,
        *,
        target: Target | str | None = None,
        deadline: float = 3600.0,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(backend, Backend):
            raise ExecutionError(f"{type(backend).__name__} is no pytket Backend; give one, such as AerBackend().")
        if not (backend.supports_counts or backend.supports_shots):
            raise ExecutionError(f"{type(backend).__name__} gives neither counts nor shots, so nothing can be sampled.")
        super().__init__(shots, seed=seed, **options)
        self.backend, self.deadline = backend, check_deadline(deadline)
        self._seeded = seed is not None
        self._target = get_target(target) if isinstance(target, str) else target

    @property
    def target(self) -> Target | None:
        """What circuits are compiled for."""
        return self._target

    @property
    def target_name(self) -> str | None:
        """The device's name; None where there is none."""
        info = self.backend.backend_info
        return self._target.name if self._target else None if info is None else info.device_name

    @property
    def method(self) -> str:
        """What runs the circuits."""
        return type(self.backend).__name__

    @property
    def native_gates(self) -> frozenset[OpType]:
        """The device's gates."""
        if self._target is not None:
            return one_qubit_gates(self._target)
        info = self.backend.backend_info
        return frozenset({OpType.Rx, OpType.Ry, OpType.Rz} if info is None else info.gate_set)

    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        if self._target is None:
            plain = angle_circuit(template)
            if self.backend.valid_circuit(_example(plain)):
                self._check_noise(plain)
                return plain
            try:
                self._target = Target.from_pytket(self.backend)
            except TargetError as error:
                raise ExecutionError(f"the circuit does not fit the backend, which says too little: {error}") from error
        made = self._compiled(template, self._target)
        self._check_noise(made)
        example = _example(made)
        for predicate in self.backend.required_predicates:
            if not predicate.verify(example):
                raise ExecutionError(
                    f"the circuit compiled for {self._target.name} does not meet the backend's {predicate}; give the target "
                    "that describes this backend."
                )
        return made

    def _check_noise(self, circuit: AngleCircuit) -> None:
        """Where the backend simulates noise, every gate must have some, or be a change of frame."""
        model = getattr(self.backend, "_noise_model", None)
        if isinstance(model, NoiseModel):
            width = len(circuit.circuit.qubits)
            check_noisy_gates(native(circuit, (), (), 1).parametrised(range(width), width), model)

    def _submit(self, tasks: Sequence[Task], shots: int | None, log: Log) -> list[Values]:
        circuits = [circuit.bound(row) for circuit, angles in tasks for row in angles]
        assert shots is not None
        log.submissions += 1
        results = iter(self._results(circuits, shots))
        return [
            np.stack([_counts(next(results), len(circuit.reads)) for _ in angles])
            if len(angles)
            else np.empty((0, 2 ** len(circuit.reads)))
            for circuit, angles in tasks
        ]

    def _results(self, circuits: list[Circuit], shots: int) -> list[BackendResult]:
        """Submit and fetch, within the deadline; what was paid for goes with every error."""
        name, started = type(self.backend).__name__, time.monotonic()
        handles: list[ResultHandle] = []
        results: list[BackendResult] = []
        seeds = {"seed": int(self.random.integers(2**31))} if self._seeded else {}

        def failed(what: str) -> BackendError:
            kept = ""
            if handles:
                kept = f" {len(results)} of {len(circuits)} results were fetched; `results` holds them, `handles` what was submitted."
            return BackendError(f"{name} {what}.{kept}", [str(h) for h in handles], results)

        def work() -> None:
            handles.extend(self.backend.process_circuits(circuits, n_shots=shots, valid_check=False, **seeds))
            for handle in handles:
                result = _fetched(self.backend, handle)
                _check(result, circuits[len(results)], name, shots)
                results.append(result)

        try:
            within(self.deadline, work)
        except TimeoutError as error:
            taken = time.monotonic() - started
            raise failed(f"gave no answer within the deadline of {self.deadline:g} s ({taken:.3g} s)") from error
        except BackendError as error:
            raise failed(str(error)) from error
        except Exception as error:
            raise failed(f"raised {type(error).__name__}: {error}") from error
        if len(results) != len(circuits):
            raise failed(f"returned {len(results)} results for {len(circuits)} circuits")
        return results

    def __getstate__(self) -> dict[str, Any]:
        raise ExecutionError(
            "a PytketExecutor holds a live backend and cannot be saved; call use('statevector') first."
        )


def _example(circuit: AngleCircuit) -> Circuit:
    """Bound to something, to be checked."""
    made = native(circuit, circuit.measured, [], 1)
    return made.bound(np.full(made.angles, 0.1))


def _fetched(backend: Backend, handle: ResultHandle) -> BackendResult:
    for attempt in range(_ATTEMPTS):
        try:
            return backend.get_result(handle)
        except Exception:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE)
    raise AssertionError


def _check(result: BackendResult, circuit: Circuit, name: str, shots: int) -> None:
    if set(result.c_bits) != set(circuit.bits):
        raise BackendError(f"returned a result of bits {sorted(result.c_bits)} for a circuit that reads {circuit.bits}")
    if not sum(result.get_counts().values()):
        raise BackendError(f"returned no shots for a circuit; {shots} were asked for")


def _counts(result: BackendResult, bits: int) -> Values:
    """Counts [2^m]."""
    counts = np.zeros(2**bits)
    for outcome, number in result.get_counts([Bit(b) for b in range(bits)]).items():
        counts[int("".join(map(str, outcome)), 2)] = number
    return counts
