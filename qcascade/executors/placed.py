"""Executors that hand on: to one of several places (`PlacedExecutor`), or to another executor while its runs are told (`Metered`)."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

from torch import Tensor

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import Program
from qcascade.errors import ExecutionError
from qcascade.executors.base import Estimate, Executor, Job, Log, Run, Values
from qcascade.executors.delegating import DelegatingExecutor


class PlacedExecutor(Executor):
    """Decides for each call of a kernel where it runs; exact simulation can be among the places."""

    name = "placed"
    exact = True

    @abc.abstractmethod
    def measured(
        self,
        template: CircuitTemplate,
        program: Program,
        *,
        data: Tensor | None = None,
        weights: Tensor | None = None,
        amplitudes: Tensor | None = None,
        squeeze: bool = False,
    ) -> Tensor:
        """As `sampled.measured`."""

    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        raise ExecutionError("this executor decides for whole calls of a kernel; circuits are prepared by its places.")

    def _run(self, jobs: Sequence[Job], log: Log) -> list[tuple[Values, Values]]:
        raise ExecutionError("this executor decides for whole calls of a kernel; jobs are run by its places.")


class Metered(DelegatingExecutor):
    """Another executor, each of whose runs is told to someone.

    Example:
        >>> from pytket.circuit import Circuit
        >>> import numpy as np
        >>> from qcascade.executors.shots import ShotsExecutor
        >>> runs, template = [], CircuitTemplate(Circuit(1), (), ())
        >>> estimates = Metered(ShotsExecutor(10), runs.append).run([Job(template, np.zeros((2, 0)))])
        >>> runs[0].circuits
        2
    """

    name = "metered"

    def __init__(self, inner: Executor, tell: Callable[[Run], None]) -> None:
        super().__init__(inner)
        self.tell = tell
        self.gradients_ahead = inner.gradients_ahead

    def run(self, jobs: Sequence[Job], *, purpose: str = "values") -> list[Estimate]:
        """By the inner executor."""
        found = self.inner.run(jobs, purpose=purpose)
        for estimate in found[:1]:  # all have the same run
            self.tell(estimate.run)
        return found

    def run_ahead(self, job: Job, later: Callable[[], Job]) -> tuple[Estimate, Callable[[], Estimate]]:
        """By the inner executor; the later run is told when it is asked for, unless it is the same one."""
        estimate, ends = self.inner.run_ahead(job, later)
        self.tell(estimate.run)

        def told() -> Estimate:
            found = ends()
            if found.run is not estimate.run:
                self.tell(found.run)
            return found

        return estimate, told

    def signs(self, angles: Values, samples: int, moved: int) -> Values:
        """The inner executor's."""
        return self.inner.signs(angles, samples, moved)

    def _run(self, jobs: Sequence[Job], log: Log) -> list[tuple[Values, Values]]:
        raise AssertionError  # `run` is the inner executor's
