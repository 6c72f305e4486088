"""Compiled functions on several threads."""

from __future__ import annotations

import multiprocessing
import time

import numpy as np
from numpy.typing import NDArray

from qcascade.engine.threads import shares, spread


def test_a_forked_process_has_threads_of_its_own() -> None:
    assert _filled()
    time.sleep(0.1)  # the threads wait for work
    child = multiprocessing.get_context("fork").Process(target=_filled)
    child.start()
    child.join(30)
    found = child.exitcode  # None: it still waits
    child.kill()
    child.join()
    assert found == 0


def _filled() -> bool:
    """Whether every share is filled, by a thread each."""
    numbers = np.zeros(8)
    spread(_fill, shares(len(numbers), 4), numbers)
    assert numbers.all()
    return True


def _fill(start: int, stop: int, numbers: NDArray[np.float64]) -> None:
    time.sleep(0.01)
    numbers[start:stop] = 1
