"""Compute something once for each target."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from qcascade.targets import Target

T = TypeVar("T")
_MOST = 16


def once_per_target(function: Callable[[Target], T]) -> Callable[[Target], T]:
    """Remember a function's results for the last targets, told apart by their digests; hashing all gates takes long."""
    results: dict[str, T] = {}

    @wraps(function)
    def remembered(target: Target) -> T:
        if target.digest not in results:
            if len(results) >= _MOST:
                results.pop(next(iter(results)))
            results[target.digest] = function(target)
        return results[target.digest]

    return remembered
