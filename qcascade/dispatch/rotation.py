"""Micro-batches: parts of a batch that take turns, so that one computes while the others wait for the device.

Each part runs in a thread of its own, and only one of them at a time: the turn is handed on, always in the same order, when
a part starts to wait (`waiting`), and taken back, in its place, when it goes on. So what runs in which order does not
depend on how long anything takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
_mine = threading.local()


class _Stopped(BaseException):
    """Another part failed, so that this one need not go on."""


class _Rotation:
    def __init__(self, parts: int) -> None:
        self.left, self.turn = list(range(parts)), 0
        self.failure: BaseException | None = None
        self.changed = threading.Condition()

    def enter(self, part: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.failure is not None or self.turn == part)
            if self.failure is not None:
                raise _Stopped

    def leave(self, part: int, *, finished: bool = False) -> None:
        with self.changed:
            later = [other for other in self.left if other > part] or self.left
            self.turn = later[0]
            if finished:
                self.left.remove(part)
            self.changed.notify_all()

    def fail(self, failure: BaseException) -> None:
        with self.changed:
            self.failure = self.failure or failure
            self.changed.notify_all()


@contextmanager
def waiting() -> Iterator[None]:
    """Hand the turn on while the body waits for something; outside of `take_turns` this does nothing."""
    rotation: _Rotation | None = getattr(_mine, "rotation", None)
    if rotation is None:
        yield
        return
    part: int = _mine.part
    rotation.leave(part)
    try:
        yield
    finally:
        rotation.enter(part)


def take_turns(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Results of functions that take turns; the first failure is raised, and the others stop at their next turn.

    Torch's gradient and autocast modes are those of the caller.

    Example:
        >>> take_turns([lambda: 1, lambda: 2])
        [1, 2]
    """
    rotation = _Rotation(len(functions))
    results: dict[int, T] = {}
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    cast, kind = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def work(part: int) -> None:
        _mine.rotation, _mine.part = rotation, part
        try:
            rotation.enter(part)
            with (
                torch.inference_mode(inference),
                torch.set_grad_enabled(gradients),
                torch.autocast("cpu", dtype=kind, enabled=cast),
            ):
                results[part] = functions[part]()
            rotation.leave(part, finished=True)
        except _Stopped:
            pass
        except BaseException as error:  # handed on to the caller's thread
            rotation.fail(error)

    threads = [
        threading.Thread(target=work, args=(part,), name=f"qcascade-part-{part}", daemon=True)
        for part in range(len(functions))
    ]
    try:
        for thread in threads:
            thread.start()
        with rotation.changed:
            rotation.changed.wait_for(lambda: rotation.failure is not None or len(results) == len(functions))
    except BaseException as error:
        rotation.fail(error)
        raise
    if rotation.failure is not None:
        raise rotation.failure
    return [results[part] for part in range(len(functions))]
