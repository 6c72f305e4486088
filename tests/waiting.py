"""Wait in tests for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(true: Callable[[], bool], most: float = 60) -> None:
    """Ask again and again, for at most so many seconds; then the assertion fails."""
    end = time.monotonic() + most
    while not true():
        assert time.monotonic() < end, f"still not so after {most:g} s"
        time.sleep(0.02)
