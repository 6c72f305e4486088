"""Compiled functions on several threads: they let go of Python's lock, so that each thread runs a share of the rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any


def shares(count: int, threads: int) -> tuple[tuple[int, int], ...]:
    """First and last of every thread's share of so many.

    Example:
        >>> shares(5, 2)
        ((0, 2), (2, 5))
    """
    return tuple(pairwise(count * k // threads for k in range(threads + 1)))


def spread(function: Callable[..., None], parts: Sequence[tuple[int, int]], *arguments: Any) -> None:
    """Call function(first, last, *arguments) for every part, the first by this thread."""
    first, *others = parts
    waiting = [_pool(len(others)).submit(function, *part, *arguments) for part in others]
    function(*first, *arguments)
    for part in waiting:
        part.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="qcascade")


if hasattr(os, "register_at_fork"):  # a forked process has the pool, but none of its threads: it would wait for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)
