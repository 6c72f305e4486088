"""A deadline of our own around anything that a backend does: clients were seen to wait for a cancelled job for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from numbers import Real
from typing import TypeVar

from qcascade.errors import ExecutionError

T = TypeVar("T")


def within(seconds: float, function: Callable[[], T]) -> T:
    """The function's result, or its exception; there is no deadline where the seconds are infinite.

    It runs in a thread of its own, which is left behind when time is up.

    Raises:
        TimeoutError: It took longer.

    Example:
        >>> within(5, lambda: 1 + 1)
        2
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # handed on to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="qcascade-backend", daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError
    return results[0]


def check_deadline(seconds: float) -> float:
    """A deadline in seconds; infinity is none.

    Raises:
        ExecutionError: It is not a positive number.
    """
    if not isinstance(seconds, Real) or isinstance(seconds, bool) or not seconds > 0:
        raise ExecutionError(f"deadline={seconds!r}; a positive number of seconds is accepted.")
    return float(seconds)
