"""How circuits run: this version simulates them exactly."""

from __future__ import annotations

from collections.abc import Mapping

from qcascade.errors import ExecutionError


def check_executor(executor: str, options: Mapping[str, object]) -> None:
    """Accept what `use` may be given.

    Raises:
        ExecutionError: The executor is unknown or takes no such option.

    Example:
        >>> check_executor("statevector", {})
    """
    if executor != "statevector" or options:
        given = ", ".join([repr(executor), *(f"{k}={v!r}" for k, v in options.items())])
        raise ExecutionError(f"use({given}) is not available; 'statevector', without options, is.")
