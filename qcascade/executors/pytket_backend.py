"""Any pytket Backend as an executor: circuits compiled once, bound by numbers, one `process_circuits` for all of a step."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pytket.backends.backend import Backend
from pytket.backends.backendresult import BackendResult
from pytket.backends.resulthandle import ResultHandle
from pytket.backends.status import StatusEnum
from pytket.circuit import Bit, Circuit, OpType
from qiskit_aer.noise import NoiseModel

from qcascade.circuits.angles import AngleCircuit, angle_circuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import BackendError, ExecutionError, TargetError
from qcascade.executors.base import Shape, Task, Values
from qcascade.executors.deadline import check_deadline, within
from qcascade.executors.device import DeviceExecutor, one_qubit_gates
from qcascade.executors.native import native
from qcascade.executors.noise import check_noisy_gates, noise_digest
from qcascade.targets import Target, get_target

_ATTEMPTS, _PAUSE = 3, 0.2  # fetching a result again costs nothing; seconds between


@dataclass(slots=True)
class _Fetched:
    """A submission's results so far, by circuit: a backend need not give one twice."""

    started: float
    results: dict[int, BackendResult]


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
        find: For a backend whose service can look jobs up by name: a function from the name that a submission's circuits
            start with (``name/0``, ``name/1``, …) to their handles in order, or None where there are none. With it, a
            dispatcher can tell after a lost connection whether a submission arrived.
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
        find: Callable[[str], Sequence[ResultHandle] | None] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(backend, Backend):
            raise ExecutionError(f"{type(backend).__name__} is no pytket Backend; give one, such as AerBackend().")
        if not (backend.supports_counts or backend.supports_shots):
            raise ExecutionError(f"{type(backend).__name__} gives neither counts nor shots, so nothing can be sampled.")
        super().__init__(shots, seed=seed, **options)
        self.backend, self.deadline = backend, check_deadline(deadline)
        self._seeded, self._find = seed is not None, find
        self._fetched: dict[str, _Fetched] = {}
        self._target = self._given = get_target(target) if isinstance(target, str) else target

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
        model = self._noise_model
        if model is not None:
            width = len(circuit.circuit.qubits)
            check_noisy_gates(native(circuit, (), (), 1).parametrised(range(width), width), model)

    @property
    def _noise_model(self) -> NoiseModel | None:
        """Of a backend that simulates noise."""
        model = getattr(self.backend, "_noise_model", None)
        return model if isinstance(model, NoiseModel) else None

    @cached_property
    def _noise(self) -> str:
        """The noise that a backend simulates, which its name does not tell; nothing for others, whose names do."""
        model = self._noise_model
        if model is None:
            return ""
        target = None if self._given is None else self._given.digest
        return f"|{noise_digest(model, target, getattr(self.backend, '_crosstalk_params', None))}"

    @property
    def identity(self) -> str:
        """What results depend on beside circuits, angles and shots."""
        return f"{self.name}|{type(self.backend).__name__}|{self.target_name}|{self.seed}{self._noise}"

    @property
    def persistent(self) -> bool:
        """As the backend says."""
        return bool(self.backend.persistent_handles)

    def submit(
        self, tasks: Sequence[Task], shots: int | None, *, tag: str | None = None, seeds: Sequence[bytes] | None = None
    ) -> str:
        """One `process_circuits`; circuits are named after the tag, which some services show as the job's name."""
        assert shots is not None
        circuits = [task.circuit.bound(row) for task in tasks for row in task.angles]
        for number, circuit in enumerate(circuits if tag else ()):
            circuit.name = f"{tag}/{number}"
        options: dict[str, Any] = {}
        if self._seeded:
            joined = None if seeds is None else hashlib.blake2b(b"".join(seeds), digest_size=4).digest()
            seed = self.random.integers(2**31) if joined is None else int.from_bytes(joined, "little") % 2**31
            options["seed"] = int(seed)
        name, started = type(self.backend).__name__, time.monotonic()
        try:
            handles = within(
                self.deadline,
                lambda: self.backend.process_circuits(circuits, n_shots=shots, valid_check=False, **options),
            )
        except TimeoutError as error:
            raise BackendError(f"{name} took no job within the deadline of {self.deadline:g} s.") from error
        except Exception as error:
            raise BackendError(f"{name} raised {type(error).__name__}: {error}.") from error
        texts = [str(handle) for handle in handles]
        if len(handles) != len(circuits) or len(set(texts)) < len(texts):
            raise BackendError(
                f"{name} returned {len(set(texts))} different handles for {len(circuits)} circuits.", texts
            )
        handle = json.dumps(texts)
        self._fetched[handle] = _Fetched(started, {})
        return handle

    def fetch(self, handle: str, shapes: Sequence[Shape], *, seconds: float | None = None) -> list[Values]:
        """Counts, within the deadline; what was paid for goes with every error, and what was fetched is kept."""
        name = type(self.backend).__name__
        handles = [ResultHandle.from_str(text) for text in json.loads(handle)]
        bits = [width for rows, width in shapes for _ in range(rows)]
        fetched = self._fetched.setdefault(handle, _Fetched(time.monotonic(), {}))
        now = time.monotonic()
        limit = max(0.001, self.deadline - (now - fetched.started)) if seconds is None else seconds

        def failed(what: str) -> BackendError:
            kept = (
                f" {len(fetched.results)} of {len(bits)} results were fetched; `results` holds them, `handles` what was "
                "submitted."
            )
            results = [fetched.results[place] for place in sorted(fetched.results)]
            return BackendError(f"{name} {what}.{kept}", [str(h) for h in handles], results)

        def work() -> None:
            for place, (one, width) in enumerate(zip(handles, bits, strict=True)):
                if place not in fetched.results:
                    result = _fetched(self.backend, one)
                    _check(result, width, name)
                    fetched.results[place] = result

        if len(handles) != len(bits):
            raise failed(f"was given {len(handles)} circuits where {len(bits)} are wanted")
        try:
            within(limit, work)
        except TimeoutError as error:
            taken = time.monotonic() - now
            wanted = self.deadline if seconds is None else seconds
            raise failed(f"gave no answer within the deadline of {wanted:g} s ({taken:.3g} s)") from error
        except BackendError as error:
            raise failed(str(error)) from error
        except Exception as error:
            raise failed(f"raised {type(error).__name__}: {error}") from error
        counts = iter([_counts(fetched.results[place], width) for place, width in enumerate(bits)])
        del self._fetched[handle]
        return [
            np.stack([next(counts) for _ in range(rows)]) if rows else np.empty((0, 2**width)) for rows, width in shapes
        ]

    @property
    def findable(self) -> bool:
        """Whether `find=` was given."""
        return self._find is not None

    def find(self, tag: str) -> str | None:
        """By the function that `find=` gave."""
        if self._find is None:
            return super().find(tag)
        handles = self._find(tag)
        return None if handles is None else json.dumps([str(handle) for handle in handles])

    def cancel(self, handle: str) -> bool:
        """Every circuit's job; False where one had ended."""
        handles = [ResultHandle.from_str(text) for text in json.loads(handle)]
        try:
            for one in handles:
                self.backend.cancel(one)
            states = [self.backend.circuit_status(one).status for one in handles]
        except Exception as error:
            what = f"{type(self.backend).__name__} could not cancel: {type(error).__name__}: {error}."
            raise BackendError(what, json.loads(handle)) from error
        return all(state == StatusEnum.CANCELLED for state in states)

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


def _check(result: BackendResult, bits: int, name: str) -> None:
    wanted = {Bit(b) for b in range(bits)}
    if set(result.c_bits) != wanted:
        raise BackendError(
            f"returned a result of bits {sorted(result.c_bits)} for a circuit that reads {sorted(wanted)}"
        )
    if not sum(result.get_counts().values()):
        raise BackendError("returned no shots for a circuit")


def _counts(result: BackendResult, bits: int) -> Values:
    """Counts [2^m]."""
    counts = np.zeros(2**bits)
    for outcome, number in result.get_counts([Bit(b) for b in range(bits)]).items():
        counts[int("".join(map(str, outcome)), 2)] = number
    return counts
