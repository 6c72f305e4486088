"""Finite sampling of the exact state: the engine gives every setting's probabilities, outcomes are drawn from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from pytket.circuit import Circuit

from qcascade.circuits.angles import AngleCircuit, angle_circuit, angle_name
from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import Program, lower, probabilities
from qcascade.engine.compiled import WIDE_QUBITS
from qcascade.errors import ExecutionError
from qcascade.executors.base import Counted, Executor, Job, Log, Shape, Task, Values
from qcascade.executors.local import LocalQueue, drawn, in_blocks, seeds_from
from qcascade.executors.settings import MAX_BITS, estimate, exact, settings_of, width_of

_AMPLITUDES = 2**24  # simulated at a time


class ShotsExecutor(Executor):
    """Samples of an ideal device.

    Args:
        shots: Per circuit; None gives exact values through the same circuits and gradient rules.
        seed: Of the samples: one for every circuit is drawn from it, in the order in which circuits run, so that they are the same
            here and divided among workers (`DistributedExecutor`).
        options: See `Executor`.

    Example:
        >>> from sympy import Symbol
        >>> template = CircuitTemplate(Circuit(1).Ry(Symbol("x"), 0), ("x",), ())
        >>> executor = ShotsExecutor(shots=100, seed=0)
        >>> executor.run([Job(template, np.zeros((1, 1)))])[0].values
        array([[1., 0.]])
    """

    name = "shots"
    exact: ClassVar[bool] = True

    def __init__(self, shots: int | None = 1024, *, seed: int | None = None, **options: object) -> None:
        super().__init__(shots, seed=seed, **options)  # type: ignore[arg-type]
        self._programs: WeakKeyDictionary[CircuitTemplate, dict[int, Program]] = WeakKeyDictionary()
        self._digests: WeakKeyDictionary[CircuitTemplate, bytes] = WeakKeyDictionary()
        self._queue = LocalQueue()

    @property
    def method(self) -> str:
        """How samples come about."""
        return "exact state" + ("" if self.shots is None else ", sampled")

    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        return angle_circuit(template)

    def _run(self, jobs: Sequence[Job], log: Log) -> list[tuple[Values, Values]]:
        log.submissions = 1
        return [self._one(job, log) for job in jobs]

    def tasks(self, jobs: Sequence[Job], log: Log, counted: Counted) -> list[Task]:
        """One circuit for every measurement setting."""
        made = []
        for job in jobs:
            for place, setting in enumerate(settings_of(job.template.measurement, job.template.qubits)):
                if len(setting.qubits) > MAX_BITS:
                    raise ExecutionError(
                        f"{len(setting.qubits)} qubits are read at once; at most {MAX_BITS} are. Measure expectation values of fewer."
                    )
                content = f"{self._digest(job.template).hex()} {setting.qubits} {setting.axes}".encode()
                digest = hashlib.blake2b(content, digest_size=16).digest()
                made.append(Task((job.template, place), digest, len(setting.qubits), job.angles))
                log.circuits += len(job.angles)
        return made

    def submit(
        self, tasks: Sequence[Task], shots: int | None, *, tag: str | None = None, seeds: Sequence[bytes] | None = None
    ) -> str:
        """Keep tasks for `fetch`, which simulates them."""
        return self._queue.put(tasks, shots, seeds)

    def fetch(self, handle: str, shapes: Sequence[Shape], *, seconds: float | None = None) -> list[Values]:
        """Simulate."""
        return self._queue.take(handle, self._simulated)

    def estimates(self, jobs: Sequence[Job], counts: Sequence[Values], log: Log) -> list[tuple[Values, Values]]:
        """Values and their standard errors."""
        rest, found = iter(counts), []
        for job in jobs:
            values = np.empty((len(job.angles), width_of(job.template.measurement, job.template.qubits)))
            variances = np.zeros_like(values)
            for setting in settings_of(job.template.measurement, job.template.qubits):
                some = next(rest)
                if self.shots is None:
                    values[:, setting.columns] = exact(some, setting)
                elif len(some):
                    values[:, setting.columns], variances[:, setting.columns] = estimate(some, setting)
            found.append((values, np.sqrt(variances)))
        return found

    def _simulated(self, tasks: Sequence[Task], shots: int | None, seeds: Sequence[bytes] | None) -> list[Values]:
        """Counts [N, 2^m], or probabilities where `shots` is None."""
        found, used = [], 0
        for task in tasks:
            template, place = task.circuit
            counts = np.empty((len(task.angles), 2**task.bits))
            own = None if seeds is None else seeds[used : used + len(task.angles)]
            used += len(task.angles)
            for rows, some in self._sampled(template, place, task.angles, shots, own):
                counts[rows] = some
            found.append(counts)
        return found

    def _sampled(
        self, template: CircuitTemplate, place: int, angles: Values, shots: int | None, seeds: Sequence[bytes] | None
    ) -> Iterator[tuple[slice, Values]]:
        """Counts or probabilities of a setting, some rows at a time; without seeds, they are drawn from the executor's own."""
        reads, program = self._reads(template, place), self._program(template, place)
        together = max(1, _AMPLITUDES >> template.qubits)
        for start in range(0, len(angles), together):
            rows = slice(start, min(len(angles), start + together))
            some = angles[rows]
            padded = in_blocks(some) if template.qubits < WIDE_QUBITS else some  # wider rows run one by one
            chance = read_probabilities(program, reads, padded, shots is None)[: len(some)]
            if shots is not None:
                chance = drawn(chance, shots, seeds_from(self.random, len(some)) if seeds is None else seeds[rows])
            yield rows, chance

    def _digest(self, template: CircuitTemplate) -> bytes:
        if template not in self._digests:
            prepared = self.prepare(template)
            content = json.dumps([prepared.circuit.to_dict(), prepared.measured], sort_keys=True)
            self._digests[template] = hashlib.blake2b(content.encode(), digest_size=16).digest()
        return self._digests[template]

    def _one(self, job: Job, log: Log) -> tuple[Values, Values]:
        template, count = job.template, len(job.angles)
        values = np.empty((count, width_of(template.measurement, template.qubits)))
        variances = np.zeros_like(values)
        for place, setting in enumerate(settings_of(template.measurement, template.qubits)):
            log.circuits += count
            log.taken += count * (self.shots or 0)
            for rows, some in self._sampled(template, place, job.angles, self.shots, None):
                if self.shots is None:
                    values[rows, setting.columns] = exact(some, setting)
                else:
                    values[rows, setting.columns], variances[rows, setting.columns] = estimate(some, setting)
        return values, np.sqrt(variances)

    def grain(self, task: Task) -> int:
        """Whole blocks of the engine's."""
        return 1 if task.circuit[0].qubits >= WIDE_QUBITS else 16

    def predicted(self, task: Task, shots: int | None) -> float:
        """By gates and amplitudes."""
        template, _ = task.circuit
        return 2e-5 + 2e-9 * float((template.circuit.n_gates + 10) * 2**template.qubits)

    def _reads(self, template: CircuitTemplate, place: int) -> list[int]:
        """Qubits that a setting reads, as the circuit has them."""
        setting = settings_of(template.measurement, template.qubits)[place]
        return self.prepare(template).reads(setting.qubits)

    def _program(self, template: CircuitTemplate, place: int) -> Program:
        """A setting's program, with the angles as its data."""
        made = self._programs.setdefault(template, {})
        if place not in made:
            made[place] = lower(turned(template, self.prepare(template), place))
        return made[place]

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_programs": None, "_digests": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__({**state, "_programs": WeakKeyDictionary(), "_digests": WeakKeyDictionary()})


def turned(template: CircuitTemplate, prepared: AngleCircuit, place: int) -> CircuitTemplate:
    """The circuit that a measurement setting takes, its angles as data, turned so that Z is read."""
    setting = settings_of(template.measurement, template.qubits)[place]
    circuit = prepared.circuit.copy()
    for qubit, axis in zip(prepared.reads(setting.qubits), setting.axes, strict=True):
        _turn(circuit, qubit, axis)
    return CircuitTemplate(circuit, tuple(angle_name(k) for k in range(len(prepared.angles.constants))), ())


def _turn(circuit: Circuit, qubit: int, axis: str) -> None:
    """Make Z at the end what `axis` was before."""
    if axis == "X":
        circuit.H(qubit)
    elif axis == "Y":
        circuit.V(qubit)


def read_probabilities(program: Program, reads: Sequence[int], angles: Values, double: bool) -> Values:
    """Probabilities [N, 2^m] of the qubits at the places `reads`, the first most significant."""
    data = torch.from_numpy(np.ascontiguousarray(angles))
    with torch.no_grad():
        chance = probabilities(program, data=data if double else data.float())[0].double().numpy()
    if len(chance) < len(angles):  # no angle at all: one state for every binding
        chance = np.repeat(chance, len(angles), 0)
    axes = [1 + place for place in reads]
    chance = chance.reshape(-1, *(2,) * program.qubits)
    rest = tuple(a for a in range(1, program.qubits + 1) if a not in axes)
    order = np.argsort(np.argsort(axes))  # places of the axes that are left
    read: Values = chance.sum(rest).transpose(0, *(1 + order)).reshape(len(chance), -1)
    if double:
        return read
    shares = np.maximum(read, 0)
    shares /= shares.sum(1, keepdims=True)
    return shares
