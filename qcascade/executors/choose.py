"""What `use(...)` takes: a name with options, or an executor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from qcascade.errors import ExecutionError
from qcascade.executors.base import Executor
from qcascade.executors.shots import ShotsExecutor

_NAMED: Mapping[str, type[Executor]] = {"shots": ShotsExecutor}


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
    kind = _NAMED.get(executor) if isinstance(executor, str) else None
    if kind is None:
        known = ", ".join(repr(name) for name in ("statevector", *_NAMED))
        raise ExecutionError(f"executor {executor!r} is unknown; {known}, or an Executor, is accepted.")
    accepted = {**inspect.signature(Executor.__init__).parameters, **inspect.signature(kind.__init__).parameters}
    names = [name for name in accepted if name not in ("self", "options")]
    if unknown := [name for name in options if name not in names]:
        raise ExecutionError(f"{executor!r} has no option {', '.join(unknown)}; it has {', '.join(names)}.")
    return kind(**options)  # type: ignore[arg-type]
