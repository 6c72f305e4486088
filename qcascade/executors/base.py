"""What every executor is: given jobs, it returns estimates with standard errors, and keeps a record of what it ran.

A job is a template and the angles [N, A] of N bindings of its angle circuit, the one that `Executor.prepare` gives. All
jobs of a call leave in one submission. Gradients are taken by the caller (`executors.sampled`) from further jobs at
shifted angles, so that an executor only ever runs circuits.
"""

from __future__ import annotations

import abc
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import ExecutionError
from qcascade.executors.settings import settings_of

Values = NDArray[np.float64]
GRADIENTS = ("shift", "spsa")
_HISTORY = 1000  # runs that an executor remembers


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """N bindings of one template: `angles` [N, A] in radians, of the executor's own circuit for it."""

    template: CircuitTemplate
    angles: Values


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
        if shots is not None and (not isinstance(shots, int | np.integer) or isinstance(shots, bool) or shots < 1):
            accepted = "a whole number of at least 1" + (", or None for exact values" if self.exact else "")
            raise ExecutionError(f"shots={shots!r}; {accepted} is accepted.")
        if gradients not in GRADIENTS:
            raise ExecutionError(f"gradients={gradients!r} is unknown; choose one of {', '.join(GRADIENTS)}.")
        if not spsa_step > 0 or spsa_samples < 1:
            raise ExecutionError(
                f"spsa_step={spsa_step}, spsa_samples={spsa_samples}: a positive step and at least 1 sample are accepted."
            )
        self.shots, self.gradients = None if shots is None else int(shots), gradients
        self.spsa_step, self.spsa_samples = spsa_step, spsa_samples
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
        for job in jobs:
            wanted = len(self.prepare(job.template).angles.constants)
            if job.angles.ndim != 2 or job.angles.shape[1] != wanted:
                raise ExecutionError(f"angles have shape {list(job.angles.shape)}; [bindings, {wanted}] is needed.")
            if not np.isfinite(job.angles).all():
                raise ExecutionError("an angle is not finite; check the data and weights for NaN and infinity.")
        log, start = Log(shots=self.shots), time.perf_counter()
        found = self._run(jobs, log)
        seconds = time.perf_counter() - start
        squares = [errors.ravel() ** 2 for _, errors in found]
        total = sum(s.size for s in squares)
        run = Run(
            executor=self.name,
            target=self.target_name,
            method=self.method,
            purpose=purpose,
            circuits=log.circuits,
            submissions=log.submissions,
            shots=log.shots,
            seconds=seconds,
            standard_error=float(np.sqrt(sum(s.sum() for s in squares) / total)) if total else 0.0,
            notes=tuple(dict.fromkeys(log.notes)),
        )
        self.history.append(run)
        self.runs += 1
        return [Estimate(values, errors, run) for values, errors in found]

    @abc.abstractmethod
    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        """The circuit of a template, with a symbol for every angle."""

    @abc.abstractmethod
    def _run(self, jobs: Sequence[Job], log: Log) -> list[tuple[Values, Values]]:
        """Values and standard errors of every job; `log` takes what was run."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Executor:
        return self  # copies of a model use the same device

    def __getstate__(self) -> dict[str, Any]:
        """Settings without what was compiled or run."""
        return {**self.__dict__, "_prepared": None, "history": None, "runs": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _prepared=WeakKeyDictionary(), history=deque(maxlen=_HISTORY))
