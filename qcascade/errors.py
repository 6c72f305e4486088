"""The errors QCascade raises: each says what was wrong, what is accepted and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class QCascadeError(Exception):
    """Base class of every error that QCascade raises on purpose."""


class CaptureError(QCascadeError):
    """The model could not be captured as a graph, or its inputs could not be inferred."""


class PlanError(QCascadeError):
    """An argument of `compile` or `plan` is not usable (kernel, objective, limits, include/exclude)."""


class TargetError(QCascadeError):
    """A target is unknown or its description is invalid."""


class CircuitError(QCascadeError):
    """A circuit cannot be built, lowered or measured as asked."""


class ExecutionError(QCascadeError):
    """A hybrid, kernel or circuit was called with inputs it cannot run on."""


class BackendError(ExecutionError):
    """A backend raised, was too slow, or returned something else than what was asked.

    Attributes:
        handles: What was submitted and is paid for, as text that the backend's own client takes to fetch it again.
        results: What had been fetched, in the backend's own form, in the order of submission.
    """

    def __init__(self, message: str, handles: Sequence[str] = (), results: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.handles, self.results = tuple(handles), tuple(results)


class BundleError(QCascadeError):
    """A bundle cannot be written or read."""
