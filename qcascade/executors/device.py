"""What executors that read counts have in common: settings, folding, readout, estimates.

What comes in: templates compiled once. What leaves: one submission for all jobs of a call, each job one native circuit
for every measurement setting and noise factor with its array of angles. What comes back: counts of every outcome.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from pytket.circuit import OpType, Qubit

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.errors import ExecutionError
from qcascade.executors.base import Counted, Executor, Job, Log, Task, Values
from qcascade.executors.mitigation import Mitigation, Plan, ReadoutInversion, confusion_inverse, plan_of
from qcascade.executors.native import Gate, NativeCircuit, flip, native, turn
from qcascade.executors.settings import MAX_BITS, Setting, estimate, settings_of, width_of
from qcascade.routing import compile_template
from qcascade.targets import Target

ONE_QUBIT = {"sx": OpType.SX, "x": OpType.X, "rz": OpType.Rz, "rx": OpType.Rx, "ry": OpType.Ry, "r": OpType.PhasedX}


@dataclass(frozen=True, eq=False)
class _Variant:
    setting: Setting
    place: int  # of its noise factor
    circuit: NativeCircuit


class DeviceExecutor(Executor):
    """An executor whose results are counts.

    Args:
        shots: Per circuit; None for exact values where the executor has them.
        mitigation: At most one `ReadoutInversion` and one `ZeroNoiseExtrapolation`.
        compile_seeds: Seeds of the routing methods (`routing.compile_template`).
        compile_seconds: Time for compiling a circuit; None: no limit.
        most_circuits: Bound circuits that the device takes in one submission; None: any number.
        options: See `Executor`.
    """

    def __init__(
        self,
        shots: int | None,
        *,
        mitigation: Sequence[Mitigation] = (),
        compile_seeds: int = 10,
        compile_seconds: float | None = None,
        most_circuits: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shots, **options)
        self.compile_seeds, self.compile_seconds = compile_seeds, compile_seconds
        if most_circuits is not None and most_circuits < 1:
            raise ExecutionError(f"most_circuits={most_circuits}; a whole number of at least 1, or None, is accepted.")
        self.most_circuits = most_circuits
        self.mitigation = tuple(mitigation)
        self._plan = plan_of(self.mitigation)
        self._variants: WeakKeyDictionary[CircuitTemplate, tuple[_Variant, ...]] = WeakKeyDictionary()
        self._confusion: dict[Qubit, Values] = {}  # inverses that were measured

    @property
    def overhead(self) -> int:
        """Circuits that mitigation runs for each one asked for."""
        return self._plan.overhead

    @property
    def mitigation_plan(self) -> Plan:
        """What mitigation does, of each kind."""
        return self._plan

    @property
    @abc.abstractmethod
    def native_gates(self) -> frozenset[OpType]:
        """The device's gates on one qubit."""

    @property
    def target(self) -> Target | None:
        """The device's description; None where there is none."""
        return None

    @property
    def target_name(self) -> str | None:
        """The device's name; None where there is none."""
        return None if self.target is None else self.target.name

    def tasks(self, jobs: Sequence[Job], log: Log, counted: Counted) -> list[Task]:
        """One native circuit for every measurement setting and noise factor; readout is calibrated before."""
        variants = [self._variants_of(job.template) for job in jobs]
        if self._plan.readout is not None:
            self._calibrate([v for made in variants for v in made], self._plan.readout, log, counted)
        tasks = [_task(v.circuit, job.angles) for job, made in zip(jobs, variants, strict=True) for v in made]
        log.circuits += sum(len(task.angles) for task in tasks)
        return tasks

    def estimates(self, jobs: Sequence[Job], counts: Sequence[Values], log: Log) -> list[tuple[Values, Values]]:
        """Mitigated values and their standard errors."""
        rest = iter(counts)
        found = []
        for job in jobs:
            variants = self._variants_of(job.template)
            some = [next(rest) for _ in variants]
            found.append(self._estimate(job, variants, some, log) if len(job.angles) else _nothing(job))
        return found

    def _estimate(
        self, job: Job, variants: tuple[_Variant, ...], counts: list[Values], log: Log
    ) -> tuple[Values, Values]:
        template = job.template
        width = width_of(template.measurement, template.qubits)
        values = np.empty((len(self._plan.factors), len(job.angles), width))
        variances = np.empty_like(values)
        for variant, found in zip(variants, counts, strict=True):
            if self.shots is not None:
                taken = int(found.sum(1).min())
                if taken < self.shots:
                    log.notes.append(f"fewer shots than the {self.shots} asked for")
                log.shots = min(log.shots or taken, taken)
            inverses = None if self._plan.readout is None else self._inverses(variant.circuit, self._plan.readout)
            some, spread = estimate(found, variant.setting, inverses)
            values[variant.place][:, variant.setting.columns] = some
            variances[variant.place][:, variant.setting.columns] = spread if self.shots is not None else 0.0
        if self._plan.noise is None:
            return values[0], np.sqrt(variances[0])
        mixed = 0.0 if isinstance(template.measurement, Expectations) else 2.0**-template.qubits
        best, variance = self._plan.noise.extrapolate(values, variances, mixed)
        return best, np.sqrt(variance)

    def _compiled(self, template: CircuitTemplate, target: Target) -> AngleCircuit:
        """A template's circuit in a target's gates.

        Raises:
            ExecutionError: The target is too small.
        """
        if target.qubits is not None and template.qubits > len(target.nodes):
            raise ExecutionError(
                f"the circuit has {template.qubits} qubits and {target.name} {len(target.nodes)} that can be used; "
                "use a larger target, or compile the model with Limits(max_qubits=…)."
            )
        # as many processes as torch has threads; none for one
        return compile_template(
            template,
            target,
            seeds=self.compile_seeds,
            seconds=self.compile_seconds,
            workers=torch.get_num_threads(),
        ).circuit

    def _variants_of(self, template: CircuitTemplate) -> tuple[_Variant, ...]:
        """Every setting at every noise factor, built once."""
        if template not in self._variants:
            prepared, made = self.prepare(template), []
            for setting in settings_of(template.measurement, template.qubits):
                if len(setting.qubits) > MAX_BITS:
                    raise ExecutionError(
                        f"{len(setting.qubits)} qubits are read at once; at most {MAX_BITS} are. Measure expectation values of fewer."
                    )
                reads = prepared.reads(setting.qubits)
                turns = [turn(a, q, self.native_gates) for a, q in zip(setting.axes, reads, strict=True)]
                for place, factor in enumerate(self._plan.factors):
                    made.append(_Variant(setting, place, native(prepared, reads, turns, factor)))
            self._variants[template] = tuple(made)
        return self._variants[template]

    def _calibrate(self, variants: Sequence[_Variant], readout: ReadoutInversion, log: Log, counted: Counted) -> None:
        """Measure the confusion of qubits that are read for the first time."""
        if readout.calibration_shots is None:
            return
        wanted = dict.fromkeys(v.circuit.qubits[read] for v in variants for read in v.circuit.reads)
        qubits = tuple(q for q in wanted if q not in self._confusion)
        if not qubits:
            return
        reads, empty = tuple(range(len(qubits))), np.zeros((1, 0))
        flips: tuple[Gate, ...] = tuple(gate for q in reads for gate in flip(q, self.native_gates))
        bits = [reads[start : start + MAX_BITS] for start in range(0, len(reads), MAX_BITS)]
        tasks = [_task(NativeCircuit(qubits, gates, some, 0), empty) for some in bits for gates in ((), flips)]
        found = counted(tasks, readout.calibration_shots, log)
        log.circuits += len(tasks)
        log.notes.append(f"readout of {len(qubits)} qubits calibrated by {len(tasks)} circuits")
        for some, (zeros, ones) in zip(bits, zip(found[::2], found[1::2], strict=True), strict=True):
            for bit, read in enumerate(some):
                wrong = [_share_of_ones(counts, bit, len(some)) for counts in (zeros, ones)]
                self._confusion[qubits[read]] = confusion_inverse(wrong[0], 1 - wrong[1])

    def _inverses(self, circuit: NativeCircuit, readout: ReadoutInversion) -> list[Values]:
        """One inverse a read bit."""
        qubits = [circuit.qubits[read] for read in circuit.reads]
        if readout.calibration_shots is not None:
            return [self._confusion[qubit] for qubit in qubits]
        target = self.target
        errors = [target.properties[q.index[0]].readout_error if target and target.properties else None for q in qubits]
        if None in errors:
            raise ExecutionError(
                f"readout errors of {self.target_name or 'this backend'} are not known; give ReadoutInversion(calibration_shots=…)."
            )
        return [confusion_inverse(error, error) for error in errors if error is not None]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_variants": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_variants": WeakKeyDictionary()})


def _task(circuit: NativeCircuit, angles: Values) -> Task:
    return Task(circuit, circuit.digest, len(circuit.reads), angles)


def _nothing(job: Job) -> tuple[Values, Values]:
    empty = np.empty((0, width_of(job.template.measurement, job.template.qubits)))
    return empty, empty


def _share_of_ones(counts: Values, bit: int, bits: int) -> float:
    table = counts[0].reshape(2**bit, 2, -1)
    return float(table[:, 1].sum() / counts[0].sum())


def one_qubit_gates(target: Target) -> frozenset[OpType]:
    """A target's gates on one qubit, as pytket names them."""
    return frozenset(ONE_QUBIT[name] for name in target.operations if name in ONE_QUBIT)
