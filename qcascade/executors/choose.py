"""What `use(...)` takes: a name with options, or an executor."""

from __future__ import annotations

import inspect

from qcascade.errors import ExecutionError
from qcascade.executors.base import Executor
from qcascade.executors.shots import ShotsExecutor

_NAMES = ("statevector", "shots", "noisy")


def make_executor(executor: str | Executor, **options: object) -> Executor | None:
    """The executor that is asked for; None where the engine simulates exactly.

    Args:
        executor: "statevector", "shots", "noisy", or an `Executor`.
        options: Of the named executor.

    Raises:
        ExecutionError: The executor is unknown, or takes no such option or value.

    Example:
        >>> make_executor("shots", shots=1024).shots
        1024
        >>> make_executor("statevector") is None
        True
    """
    if isinstance(executor, Executor):
        if options:
            raise ExecutionError(f"{', '.join(options)}: an executor that is made already takes no options.")
        return executor
    if executor == "statevector":
        if options:
            raise ExecutionError(f"'statevector' takes no options, got {', '.join(options)}.")
        return None
    if executor not in _NAMES:
        known = ", ".join(map(repr, _NAMES))
        raise ExecutionError(f"executor {executor!r} is unknown; {known}, or an Executor, is accepted.")
    kind: type[Executor] = ShotsExecutor if executor == "shots" else _noisy()
    names = _options(kind)
    if unknown := [name for name in options if name not in names]:
        raise ExecutionError(f"{executor!r} has no option {', '.join(unknown)}; it has {', '.join(names)}.")
    if "target" in names and options.get("target") is None:
        raise ExecutionError(
            f"{executor!r} needs the target whose noise it simulates; give target='ibm_torino' or another."
        )
    return kind(**options)  # type: ignore[arg-type]


def _noisy() -> type[Executor]:
    from qcascade.executors.noisy import NoisyExecutor  # Aer takes a second to import

    return NoisyExecutor


def _options(kind: type[Executor]) -> list[str]:
    """Names of what an executor is made with, its own first."""
    classes = [cls for cls in kind.__mro__ if issubclass(cls, Executor) and "__init__" in cls.__dict__]
    names = [name for cls in classes for name in inspect.signature(cls.__init__).parameters]
    return [name for name in dict.fromkeys(names) if name not in ("self", "options")]
