"""What executors that simulate in this process share: a queue of submissions, and samples by seed.

A submission is simulated when it is fetched, one at a time. With a seed for every circuit its samples depend on that seed
and its probabilities alone, and angles are given to the engine in whole blocks, so that how circuits are grouped changes nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from qcascade.errors import BackendError
from qcascade.executors.base import Task, Values
from qcascade.executors.sampling import FEW, draw, words

_BLOCK = 8  # rows that the engine takes at a time
_Simulate: TypeAlias = Callable[[Sequence[Task], "int | None", "Sequence[bytes] | None"], list[Values]]


class LocalQueue:
    """Submissions that wait to be simulated.

    Example:
        >>> queue = LocalQueue()
        >>> queue.take(queue.put([], 10, None), lambda tasks, shots, seeds: [])
        []
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Sequence[Task], int | None, Sequence[bytes] | None]] = {}
        self._numbers = itertools.count()
        self._one = threading.Lock()

    def __reduce__(self) -> tuple[type[LocalQueue], tuple[()]]:
        return LocalQueue, ()  # what waits belongs to this process

    def put(self, tasks: Sequence[Task], shots: int | None, seeds: Sequence[bytes] | None) -> str:
        """A handle, of this process alone."""
        handle = f"local-{next(self._numbers)}"
        self._waiting[handle] = (tasks, shots, seeds)
        return handle

    def take(self, handle: str, simulate: _Simulate) -> list[Values]:
        """Simulate a submission.

        Raises:
            BackendError: The handle is unknown: it was fetched, or is of another process.
        """
        if handle not in self._waiting:
            raise BackendError(f"no submission {handle!r} waits in this process.", [handle])
        with self._one:
            found = simulate(*self._waiting[handle])
        del self._waiting[handle]
        return found


def in_blocks(angles: Values) -> Values:
    """Rows [N, A] with the last one repeated up to whole blocks of the engine's, of which there are at least two.

    Example:
        >>> in_blocks(np.zeros((3, 2))).shape, in_blocks(np.zeros((17, 2))).shape
        ((16, 2), (24, 2))
    """
    wanted = max(2 * _BLOCK, -(-len(angles) // _BLOCK) * _BLOCK)
    return np.concatenate([angles, np.repeat(angles[-1:], wanted - len(angles), 0)]) if len(angles) else angles


def drawn(chance: Values, shots: int, seeds: Sequence[bytes]) -> Values:
    """Counts [N, 2^m] of so many shots, by a seed of 16 bytes for every row (`executors.sampling`)."""
    shares = np.maximum(chance, 0)
    shares /= shares.sum(1, keepdims=True)
    counts = np.empty_like(shares)
    if shots <= FEW:
        draw(shares, shots, words(seeds), counts)
        return counts
    for row, generator in enumerate(generators(seeds)):
        counts[row] = generator.multinomial(shots, shares[row])
    return counts


def seeds_from(random: np.random.Generator, rows: int) -> list[bytes]:
    """A seed of 16 bytes for every row: the same ones for all rows at once as for some after the others.

    Example:
        >>> once, parts = (np.random.default_rng(0) for _ in range(2))
        >>> seeds_from(once, 3) == seeds_from(parts, 1) + seeds_from(parts, 2)
        True
    """
    drawn = random.bytes(16 * rows)
    return [drawn[start : start + 16] for start in range(0, len(drawn), 16)]


def generators(seeds: Sequence[bytes]) -> Iterator[np.random.Generator]:
    """One generator, set anew to the beginning of each seed's own stream (Philox): making one takes ten times as long.

    Example:
        >>> [int(g.integers(100)) for g in generators([bytes(16)] * 2)]
        [3, 3]
    """
    bits = np.random.Philox(0)
    generator, state = np.random.Generator(bits), bits.state
    for seed in seeds:
        inner = {"counter": np.zeros(4, np.uint64), "key": np.frombuffer(seed[:16], np.uint64)}
        bits.state = {**state, "state": inner, "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}  # type: ignore[typeddict-item]
        yield generator
