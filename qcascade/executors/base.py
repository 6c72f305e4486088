"""What every executor is: given jobs, it returns estimates with standard errors, and keeps a record of what it ran.

A job is a template and the angles [N, A] of N bindings of its angle circuit, the one that `Executor.prepare` gives. All
jobs of a call leave in one submission. Gradients are taken by the caller (`executors.sampled`) from further jobs at
shifted angles, so that an executor only ever runs circuits.

A call has four parts, which a dispatcher may take apart (`qcascade.dispatch`): `tasks` turns jobs into circuits that are
read, `submit` sends them and gives a handle, `fetch` takes a handle and gives counts, `estimates` turns counts into values.
"""

from __future__ import annotations

import abc
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate, Measurement
from qcascade.engine import Program
from qcascade.errors import ExecutionError
from qcascade.executors.mitigation import Plan
from qcascade.executors.settings import is_number_of_shots, settings_of

Values = NDArray[np.float64]
GRADIENTS = ("shift", "spsa")
_HISTORY = 1000  # runs that an executor remembers
_COUNTING = threading.Lock()  # runs may end in any thread


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """N bindings of one template: `angles` [N, A] in radians, of the executor's own circuit for it."""

    template: CircuitTemplate
    angles: Values


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """N bindings of one circuit that reads `bits` bits; counts [N, 2^bits] come back."""

    circuit: Any  # in the executor's own form
    digest: bytes  # of the circuit's content: equal circuits have equal digests, in every process
    bits: int
    angles: Values  # [N, A] in radians

    @property
    def shape(self) -> Shape:
        """Rows and bits."""
        return len(self.angles), self.bits


Shape: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Run:
    """What was run for one call of `Executor.run`."""

    executor: str
    target: str | None  # None: no device
    method: str  # how samples came about, in a few words
    purpose: str  # "values" or "gradients"
    circuits: int  # bound circuits, all measurement settings and mitigation included
    submissions: int
    shots: int | None  # fewest that a circuit got; None: exact values
    seconds: float
    standard_error: float  # root mean square over all values
    notes: tuple[str, ...] = ()  # what differs from what was asked
    reused: int = 0  # circuits whose result was there already: shared in the call, or in a journal
    simulated: int = 0  # circuits that a dispatcher simulated in place of the device
    bytes_out: int = 0  # angles as encoded by a dispatcher (`dispatch.wire`)
    bytes_back: int = 0  # counts, likewise
    waiting: float = 0.0  # seconds, of `seconds`, in which a dispatcher had nothing to do but wait
    started: float = 0.0  # by `time.perf_counter`
    kernel: str | None = None  # whose circuits, and at which of its places, where those are chosen at run time
    place: str | None = None
    shots_taken: int = 0  # by all circuits that were run or simulated in the device's place, calibrations included


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Values [N, K] of a job's measurement, their standard errors [N, K] (0 where exact), and what was run for them."""

    values: Values
    standard_errors: Values
    run: Run


@dataclass(slots=True)
class Log:
    """Filled in while jobs run: what a `Run` is made of."""

    circuits: int = 0
    submissions: int = 0
    shots: int | None = None
    notes: list[str] = field(default_factory=list)
    reused: int = 0
    simulated: int = 0
    bytes_out: int = 0
    bytes_back: int = 0
    waiting: float = 0.0
    taken: int = 0  # shots, of all circuits together

    def took(self, tables: Sequence[Values], shots: int | None) -> None:
        """Count the shots of tables that were sampled; probabilities have none."""
        if shots is not None:
            self.taken += sum(int(table.sum()) for table in tables)


Counted: TypeAlias = "Callable[[Sequence[Task], int | None, Log], list[Values]]"  # runs tasks with so many shots


def split(
    tasks: Sequence[Task], most: int | None, weight: Callable[[Task], int] = lambda _: 1
) -> list[tuple[list[int], list[Task]]]:
    """Tasks in groups of at most `most` circuits, none empty, each with its tasks' places; a task may be divided.

    Circuits count by `weight`; one that weighs more than `most` is a group of its own.

    Example:
        >>> task = Task(None, b"", 1, np.zeros((5, 2)))
        >>> [[len(t.angles) for t in some] for _, some in split([task, task], 4)]
        [[4], [1, 3], [2]]
        >>> [[len(t.angles) for t in some] for _, some in split([task, task], 4, lambda task: 2**task.bits)]
        [[2], [2], [1, 1], [2], [2]]
    """
    groups: list[tuple[list[int], list[Task]]] = []
    room = 0
    for place, task in enumerate(tasks):
        start, each = 0, weight(task)
        while start < len(task.angles):
            if not groups or room < each:
                groups.append(([], []))
                room = each * len(task.angles) + sum(len(t.angles) * weight(t) for t in tasks) if most is None else most
            stop = min(len(task.angles), start + max(1, room // each))
            part = task if stop - start == len(task.angles) else replace(task, angles=task.angles[start:stop])
            groups[-1][0].append(place)
            groups[-1][1].append(part)
            room, start = room - (stop - start) * each, stop
    return groups


class Executor(abc.ABC):
    """Runs circuits and estimates what they measure.

    Args:
        shots: Per circuit; None for exact values where the executor has them.
        gradients: "shift" (exact two-term rules, two circuits an angle) or "spsa" (two circuits a sample).
        spsa_step: Perturbation of every angle in radians, for "spsa".
        spsa_samples: Perturbations averaged, for "spsa".
        seed: Of samples and perturbations; None draws one.

    Attributes:
        history: The last thousand `Run`s, oldest first.

    Raises:
        ExecutionError: An option is out of range.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = False  # whether shots=None is possible
    most_circuits: int | None = None  # bound circuits that a submission may hold; None: any number
    gradients_ahead: bool = False  # whether shifted circuits leave together with the circuit that they are shifts of
    adjoint: bool = False  # whether `simulate` gives exact values with gradients of its own, so that nothing is shifted

    def __init__(
        self,
        shots: int | None,
        *,
        gradients: str = "shift",
        spsa_step: float = 0.1,
        spsa_samples: int = 1,
        seed: int | None = None,
    ) -> None:
        if shots is None and not self.exact:
            raise ExecutionError(f"{self.name} needs shots; give a whole number of at least 1.")
        if shots is not None and not is_number_of_shots(shots):
            accepted = "a whole number of at least 1, at most 2**53" + (
                ", or None for exact values" if self.exact else ""
            )
            raise ExecutionError(f"shots={shots!r}; {accepted} is accepted.")
        if gradients not in GRADIENTS:
            raise ExecutionError(f"gradients={gradients!r} is unknown; choose one of {', '.join(GRADIENTS)}.")
        if not spsa_step > 0 or spsa_samples < 1:
            raise ExecutionError(
                f"spsa_step={spsa_step}, spsa_samples={spsa_samples}: a positive step and at least 1 sample are accepted."
            )
        if seed is not None and (not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0):
            raise ExecutionError(
                f"seed={seed!r}; a whole number of at least 0, or None for another one every time, is accepted."
            )
        self.shots, self.gradients = None if shots is None else int(shots), gradients
        self.spsa_step, self.spsa_samples = spsa_step, spsa_samples
        self.seed = seed
        self.random = np.random.default_rng(seed)
        self.history: deque[Run] = deque(maxlen=_HISTORY)
        self.runs = 0  # how many there were in all
        self._prepared: WeakKeyDictionary[CircuitTemplate, AngleCircuit] = WeakKeyDictionary()

    @property
    @abc.abstractmethod
    def method(self) -> str:
        """How samples come about, in a few words."""

    @property
    def target_name(self) -> str | None:
        """The device's name; None where there is none."""
        return None

    @property
    def overhead(self) -> int:
        """Circuits that mitigation runs for each one asked for."""
        return 1

    @property
    def mitigation_plan(self) -> Plan:
        """What mitigation does, of each kind."""
        return Plan()

    def prepare(self, template: CircuitTemplate) -> AngleCircuit:
        """The circuit that a job's angles belong to; made once for a template and kept."""
        if template not in self._prepared:
            self._prepared[template] = self._prepare(template)
        return self._prepared[template]

    def circuits(self, template: CircuitTemplate) -> int:
        """Circuits that one binding takes: measurement settings times mitigation's overhead."""
        return len(settings_of(template.measurement, template.qubits)) * self.overhead

    def run(self, jobs: Sequence[Job], *, purpose: str = "values") -> list[Estimate]:
        """Run jobs in one submission.

        Raises:
            ExecutionError: Angles do not fit, or a circuit could not be run.
        """
        self._check(jobs)
        log, start = Log(shots=self.shots), time.perf_counter()
        found = self._run(jobs, log)
        return self._recorded(found, log, purpose, start, time.perf_counter() - start)

    def run_ahead(self, job: Job, later: Callable[[], Job]) -> tuple[Estimate, Callable[[], Estimate]]:
        """Run a job and, together with it, another one whose estimate is asked for later: by calling what comes second.

        `later` makes the other one, which may take a while: where it is sent apart, it is made behind the first.
        """
        now, ends = self.run([job, later()], purpose="values and gradients")
        return now, lambda: ends

    def _check(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            wanted = len(self.prepare(job.template).angles.constants)
            if job.angles.ndim != 2 or job.angles.shape[1] != wanted:
                raise ExecutionError(f"angles have shape {list(job.angles.shape)}; [bindings, {wanted}] is needed.")
            if not np.isfinite(job.angles).all():
                raise ExecutionError("an angle is not finite; check the data and weights for NaN and infinity.")

    def _recorded(
        self, found: Sequence[tuple[Values, Values]], log: Log, purpose: str, start: float, seconds: float
    ) -> list[Estimate]:
        """Estimates of values and standard errors, and the run written down."""
        squares = [errors.ravel() ** 2 for _, errors in found]
        total = sum(s.size for s in squares)
        error = float(np.sqrt(sum(s.sum() for s in squares) / total)) if total else 0.0
        run = self._remember(log, purpose, start, error, seconds)
        return [Estimate(values, errors, run) for values, errors in found]

    def _remember(
        self, log: Log, purpose: str, start: float, standard_error: float, seconds: float | None = None
    ) -> Run:
        """What a log comes to, put into the history."""
        run = Run(
            executor=self.name,
            target=self.target_name,
            method=self.method,
            purpose=purpose,
            circuits=log.circuits,
            submissions=log.submissions,
            shots=log.shots,
            seconds=time.perf_counter() - start if seconds is None else seconds,
            standard_error=standard_error,
            notes=tuple(dict.fromkeys(log.notes)),
            reused=log.reused,
            simulated=log.simulated,
            bytes_out=log.bytes_out,
            bytes_back=log.bytes_back,
            waiting=log.waiting,
            started=start,
            shots_taken=log.taken,
        )
        with _COUNTING:
            self.history.append(run)
            self.runs += 1
        return run

    @abc.abstractmethod
    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        """The circuit of a template, with a symbol for every angle."""

    def _run(self, jobs: Sequence[Job], log: Log) -> list[tuple[Values, Values]]:
        """Values and standard errors of every job; `log` takes what was run."""
        tasks = self.tasks(jobs, log, self.counted)
        return self.estimates(jobs, self.counted(tasks, self.shots, log), log)

    def counted(self, tasks: Sequence[Task], shots: int | None, log: Log) -> list[Values]:
        """Counts [N, 2^bits] of every task, by one submission that is waited for; none where there is nothing to run."""
        if not any(len(task.angles) for task in tasks):
            return [np.empty((0, 2**task.bits)) for task in tasks]
        found: list[list[Values]] = [[np.empty((0, 2**task.bits))] for task in tasks]
        for places, some in split(tasks, self.most_circuits):
            log.submissions += 1
            counts = self.fetch(self.submit(some, shots), [task.shape for task in some])
            log.took(counts, shots)
            for place, part in zip(places, counts, strict=True):
                found[place].append(part)
        return [np.concatenate(parts) if len(parts) > 2 else parts[-1] for parts in found]

    @property
    def persistent(self) -> bool:
        """Whether a handle still means something to another process."""
        return False

    @property
    def identity(self) -> str:
        """What results depend on beside circuits, angles and shots: device, noise and seed."""
        return f"{self.name}|{self.target_name}|{self.method}|{self.seed}"

    def tasks(self, jobs: Sequence[Job], log: Log, counted: Counted) -> list[Task]:
        """The circuits that jobs take; `counted` runs what has to be known before, such as calibrations."""
        raise ExecutionError(f"the {self.name} executor runs jobs whole, so that they cannot be dispatched.")

    def submit(
        self, tasks: Sequence[Task], shots: int | None, *, tag: str | None = None, seeds: Sequence[bytes] | None = None
    ) -> str:
        """Send tasks, of at most `most_circuits` circuits, and give a handle.

        Args:
            tasks: At least one circuit in all.
            shots: Per circuit; None for exact values where the executor has them.
            tag: A name for the submission, which `find` knows again where the backend takes names.
            seeds: One for every circuit, in order, for executors that sample themselves: their samples then depend on
                nothing else. None: the executor's own random numbers.

        Raises:
            BackendError: The backend did not take it, or it is not known whether it did.
        """
        raise ExecutionError(f"the {self.name} executor runs jobs whole, so that they cannot be dispatched.")

    def fetch(self, handle: str, shapes: Sequence[Shape], *, seconds: float | None = None) -> list[Values]:
        """Counts [N, 2^bits] of a submission's tasks, waited for; it can be called again after it failed.

        Args:
            handle: From `submit`; of another process only where `persistent`.
            shapes: Rows and bits of every task.
            seconds: To wait at most; None: the executor's own deadline.

        Raises:
            BackendError: They cannot be had, or not in time.
        """
        raise ExecutionError(f"the {self.name} executor runs jobs whole, so that they cannot be dispatched.")

    @property
    def findable(self) -> bool:
        """Whether `find` can tell if a submission arrived."""
        return False

    def find(self, tag: str) -> str | None:
        """The handle of the submission with a tag; None where the backend has none."""
        raise ExecutionError(f"the {self.name} executor cannot look a submission up.")

    def cancel(self, handle: str) -> bool:
        """Ask the backend to drop a submission; whether it says that it did.

        Raises:
            ExecutionError: There is no way to ask.
        """
        raise ExecutionError(f"the {self.name} executor cannot cancel.")

    def estimates(self, jobs: Sequence[Job], counts: Sequence[Values], log: Log) -> list[tuple[Values, Values]]:
        """Values and standard errors of every job from the counts of its tasks."""
        raise ExecutionError(f"the {self.name} executor runs jobs whole, so that they cannot be dispatched.")

    def grain(self, task: Task) -> int:
        """Rows of a task that are simulated together, for who divides work; results do not depend on it."""
        return 16

    def predicted(self, task: Task, shots: int | None) -> float:
        """Seconds that a row of a task may take on one core, roughly: for who divides work before anything is measured."""
        return 1e-3

    def packed(self, circuit: Any) -> Any:
        """A task's circuit as it travels to another process, with what takes long to make of it."""
        return circuit

    def unpacked(self, packed: Any) -> Any:
        """The circuit again, in the executor there."""
        return packed

    def simulate(
        self,
        program: Program,
        measurement: Measurement | None = None,
        *,
        data: Tensor | None = None,
        weights: Tensor | None = None,
        amplitudes: Tensor | None = None,
        squeeze: bool = False,
    ) -> Tensor:
        """What `engine.simulate` gives, differentiable; where `adjoint` says so."""
        raise ExecutionError(f"the {self.name} executor has no gradients of its own.")

    def signs(self, angles: Values, samples: int, moved: int) -> Values:
        """±1 [samples, N, moved] for "spsa"."""
        found: Values = self.random.choice((-1.0, 1.0), (samples, len(angles), moved))
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Executor:
        return self  # copies of a model use the same device

    def __getstate__(self) -> dict[str, Any]:
        """Settings without what was compiled or run."""
        return {**self.__dict__, "_prepared": None, "history": None, "runs": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _prepared=WeakKeyDictionary(), history=deque(maxlen=_HISTORY))
