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


def first_line(error: BaseException, *, named: bool = False) -> str:
    r"""The first line of an error's message, at most 300 characters, its class where there is none or before it if `named`.

    Example:
        >>> first_line(ValueError("no such name\nTraceback ...")), first_line(KeyError()), first_line(OSError("full"), named=True)
        ('no such name', 'KeyError', 'OSError: full')
    """
    kind, lines = type(error).__name__, str(error).strip().splitlines()
    if not lines:
        return kind
    return f"{kind}: {lines[0][:300]}" if named else lines[0][:300]
