"""Run tasks in this process and, where it pays, in others beside it, within a time budget.

The others are loky's: they do not run a user's script again, share no threads with torch, and are kept for later calls.
They are asked for only once the first tasks have shown that the rest would take longer than starting them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from typing import Any, TypeVar

from loky import get_reusable_executor

T = TypeVar("T")
_START_SECONDS = 5.0  # what starting processes costs
_KEPT_SECONDS = 300  # how long they wait for more
_ALONE = {"OMP_NUM_THREADS": "1", "QISKIT_IN_PARALLEL": "TRUE"}  # each process keeps to one core
_started = False


class Unfinished:
    """In place of the result of a task that failed or, if `late`, that the budget left out; `reason` says why."""

    def __init__(self, reason: str, *, late: bool = False) -> None:
        self.reason, self.late = reason, late


def can_start_before(deadline: float) -> bool:
    """Whether another process could do anything before the deadline."""
    return time.monotonic() + (0.0 if _started else _START_SECONDS) < deadline


def run_tasks(
    work: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    *,
    workers: int = 1,
    deadline: float | None = None,
    done: Callable[[], None] = lambda: None,
    here: bool = True,
) -> list[T | Unfinished]:
    """`work(*task)` for every task, in the tasks' order whoever ran them.

    Args:
        work: A module's function, so that it can be pickled.
        tasks: Its arguments.
        workers: Processes at most.
        deadline: On `time.monotonic()`'s clock; later tasks are left out, but the first always runs to its end.
        done: Called after each task.
        here: Whether this process begins; otherwise only the others work, which end at the deadline for certain.
    """
    results: list[T | Unfinished] = [Unfinished("the time was up", late=True)] * len(tasks)
    began = time.monotonic()
    if not here:
        _run_beside(work, tasks, 0, results, min(workers, len(tasks)), deadline, done)
        return results
    for number, task in enumerate(tasks):
        if number and _late(deadline):
            return results
        results[number] = _attempt(work, task)
        done()
        rest = (time.monotonic() - began) / (number + 1) * (len(tasks) - number - 1)
        if workers > 1 and rest > (0.2 if _started else _START_SECONDS):
            _run_beside(work, tasks, number + 1, results, min(workers, len(tasks) - number - 1), deadline, done)
            break
    return results


def _run_beside(
    work: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    first: int,
    results: list[T | Unfinished],
    workers: int,
    deadline: float | None,
    done: Callable[[], None],
) -> None:
    """Tasks from `first` on in other processes; at the deadline these are ended."""
    global _started
    executor = get_reusable_executor(max_workers=workers, timeout=_KEPT_SECONDS, env=_ALONE)
    _started = True
    numbers: dict[Future[Any], int] = {
        executor.submit(_attempt, work, tasks[number]): number for number in range(first, len(tasks))
    }
    try:
        for future in as_completed(numbers, None if deadline is None else max(0.0, deadline - time.monotonic())):
            error = future.exception()
            results[numbers[future]] = _unfinished(error) if error else future.result()
            done()
    except TimeoutError:
        _started = False
        executor.shutdown(wait=True, kill_workers=True)


def _late(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _attempt(work: Callable[..., T], task: tuple[Any, ...]) -> T | Unfinished:
    try:
        return work(*task)
    except Exception as error:  # a method that fails on a circuit leaves the others their chance
        return _unfinished(error)


def _unfinished(error: BaseException) -> Unfinished:
    return Unfinished(f"{type(error).__name__}: {error}"[:200])
