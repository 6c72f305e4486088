"""The errors QCascade raises: each says what was wrong, what is accepted and what to do."""


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


class BundleError(QCascadeError):
    """A bundle cannot be written or read."""
