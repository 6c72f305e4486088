"""Names of circuits by their content, for many rows of angles at once, and rows that share a name.

A row's name is 128 bits: two lanes of multilinear hashing, each word shifted by a random number of its place and mixed by
the finaliser of MurmurHash3 (Appleby 2011), the sum mixed again. The random numbers come from BLAKE2b of a prefix (executor,
shots, circuit; or a secret), so that rows of different prefixes have unrelated names. Two of 10^9 rows share one by chance with
probability 10^-21. It is no defence against someone who looks for collisions, for which there is no one here.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qcascade.engine.gates import jit

Words = NDArray[np.uint64]


def names(prefix: bytes, rows: NDArray[np.float64] | NDArray[np.int64], *, secret: bytes = b"") -> Words:
    """Names [N, 2] of rows [N, A] of eight-byte numbers, by their bits.

    Example:
        >>> rows = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])
        >>> [bool((names(b"a", rows)[0] == name).all()) for name in names(b"a", rows)]
        [True, False, True]
    """
    words = np.ascontiguousarray(rows).view(np.uint64)
    found = np.empty((len(words), 2), np.uint64)
    _name(words, _shifts(prefix, secret, words.shape[1]), found)
    return found


@lru_cache(maxsize=1024)
def _shifts(prefix: bytes, secret: bytes, width: int) -> Words:
    """Random numbers [2, A + 1]; every step of a training asks for those of the same circuits."""
    key = hashlib.blake2b(prefix, key=secret[:64], digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(key, "little")).random_raw(2 * (width + 1)).reshape(2, -1)


def as_bytes(found: Words) -> list[bytes]:
    """Each name as 16 bytes.

    Example:
        >>> as_bytes(np.zeros((1, 2), np.uint64)) == [bytes(16)]
        True
    """
    whole: list[bytes] = np.ascontiguousarray(found, "<u8").view("V16").ravel().tolist()
    return whole


def distinct(found: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each different name comes first, in that order [U], and for every row which of them it has [N].

    Example:
        >>> distinct(np.array([[7, 1], [3, 1], [7, 1]], np.uint64))
        (array([0, 1]), array([0, 1, 0]))
    """
    if not len(found):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    ascending = np.sort(found[:, 0])
    if (ascending[1:] != ascending[:-1]).all():  # as is usual
        every = np.arange(len(found))
        return every, every
    order = np.lexsort((found[:, 1], found[:, 0]))  # stable: the first of equal ones stays first
    ordered = found[order]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(1)])
    first = order[new]
    rank = np.argsort(np.argsort(first))
    which = np.empty(len(found), np.int64)
    which[order] = rank[np.cumsum(new) - 1]
    return np.sort(first), which


@jit
def _mixed(word):  # type: ignore[no-untyped-def]
    word = (word ^ (word >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    word = (word ^ (word >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return word ^ (word >> np.uint64(33))


@jit
def _name(words, shifts, found):  # type: ignore[no-untyped-def]
    """Fill found [N, 2] with the names of words [N, A], by shifts [2, A + 1]."""
    rows, width = words.shape
    for lane in range(2):
        for row in range(rows):
            total = shifts[lane, width]
            for column in range(width):
                total += _mixed(words[row, column] + shifts[lane, column])
            found[row, lane] = _mixed(total)
