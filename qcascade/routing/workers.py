"""Run tasks in this process and, where it pays, in others beside it, within a time budget.

The others are Python processes that import this module alone: unlike multiprocessing's they do not run a user's script
again, and unlike forked ones they share no threads with torch. They are kept for later calls and end with this process.
They are asked for only once the first tasks have shown that the rest would take longer than starting them.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_START_SECONDS = 5.0  # what starting a process costs
_idle: list[subprocess.Popen[bytes]] = []
_lock = threading.Lock()


def can_start_before(deadline: float) -> bool:
    """Whether another process could do anything before the deadline."""
    return bool(_idle) or time.monotonic() + _START_SECONDS < deadline


class Unfinished:
    """In place of the result of a task that failed, or that the budget left out: then it is `late`."""

    def __init__(self, reason: str, *, late: bool = False) -> None:
        self.reason, self.late = reason, late


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
        workers: Processes at most, this one among them.
        deadline: On `time.monotonic()`'s clock; later tasks are left out, but the first always runs to its end.
        done: Called after each task.
        here: Whether this process does its share; otherwise only the others do, which end at the deadline for certain.
    """
    results: list[T | Unfinished] = [Unfinished("the time was up", late=True)] * len(tasks)
    left = iter(range(len(tasks)))
    helpers: list[_Helper] = []
    began = time.monotonic()
    if not here:
        helpers = [_Helper(work, tasks, left, results, deadline, done) for _ in range(min(workers, len(tasks)))]
    for number in _shared(left) if here else ():
        if number and _late(deadline):
            break
        results[number] = _attempt(work, tasks[number])
        done()
        if workers > 1 and not helpers and number + 1 < len(tasks):
            finished = number + 1
            rest = (time.monotonic() - began) / finished * (len(tasks) - finished)
            if rest > (_START_SECONDS if not _idle else 0.2):
                count = min(workers - 1, len(tasks) - finished)
                helpers = [_Helper(work, tasks, left, results, deadline, done) for _ in range(count)]
    for helper in helpers:
        helper.finish(deadline)
    return results


def _late(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _shared(left: Iterator[int]) -> Iterator[int]:
    """Numbers of tasks, each given once whichever thread asks."""
    while True:
        with _lock:
            number = next(left, None)
        if number is None:
            return
        yield number


def _attempt(work: Callable[..., T], task: tuple[Any, ...]) -> T | Unfinished:
    try:
        return work(*task)
    except Exception as error:  # a method that fails on a circuit leaves the others their chance
        return Unfinished(f"{type(error).__name__}: {error}"[:200])


class _Helper:
    """A thread that hands tasks to one process."""

    def __init__(
        self,
        work: Callable[..., Any],
        tasks: Sequence[tuple[Any, ...]],
        left: Iterator[int],
        results: list[Any],
        deadline: float | None,
        done: Callable[[], None],
    ) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.thread = threading.Thread(target=self._run, args=(work, tasks, left, results, deadline, done), daemon=True)
        self.thread.start()

    def finish(self, deadline: float | None) -> None:
        """Wait for the thread; at the deadline end its process."""
        self.thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self.thread.is_alive() and self.process is not None:
            self.process.kill()
        self.thread.join()

    def _run(
        self,
        work: Callable[..., Any],
        tasks: Sequence[tuple[Any, ...]],
        left: Iterator[int],
        results: list[Any],
        deadline: float | None,
        done: Callable[[], None],
    ) -> None:
        try:
            self.process = process = _taken()
            assert process.stdin is not None and process.stdout is not None
            for number in _shared(left):
                if _late(deadline):
                    break
                pickle.dump((work, tasks[number]), process.stdin)
                process.stdin.flush()
                results[number] = pickle.load(process.stdout)
                done()
        except (OSError, EOFError, pickle.PickleError) as error:
            if self.process is not None:
                self.process.kill()
            if not _late(deadline):
                sys.stderr.write(f"a worker process of qcascade.routing ended early: {type(error).__name__}\n")
            return
        with _lock:
            _idle.append(process)


def _taken() -> subprocess.Popen[bytes]:
    with _lock:
        while _idle:
            process = _idle.pop()
            if process.poll() is None:
                return process
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", "from qcascade.routing.workers import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )


@atexit.register
def _end() -> None:
    for process in _idle:
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        process.wait()


def serve() -> None:
    """Read tasks from standard input and write results to standard output until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to standard error
    while True:
        try:
            work, task = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_attempt(work, task), answers)
        answers.flush()
