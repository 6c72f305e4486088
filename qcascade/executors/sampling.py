"""Counts of shots drawn from probabilities, by a seed of 16 bytes for every row, in compiled code.

Random numbers are those of Philox4x32-10 (Salmon et al. 2011): half of the seed is the key, the other half the upper words of the
counter, so that every seed has a stream of its own of 2^64 blocks. Up to `FEW` shots, each is looked up in the row's cumulated
probabilities, at a resolution of 2^-32; more are drawn by numpy's multinomial, whose time does not grow with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcascade.engine.gates import jit

FEW = 4096


@jit
def _philox(counter, key, block):  # type: ignore[no-untyped-def]
    """Four random words [4] of a counter [4] and a key [2]; all hold 32 bits in 64."""
    a, b, c, d = counter[0], counter[1], counter[2], counter[3]
    k, m = key[0], key[1]
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for _ in range(10):
        one = np.uint64(0xD2511F53) * a
        two = np.uint64(0xCD9E8D57) * c
        a, b, c, d = (two >> half) ^ b ^ k, two & low, (one >> half) ^ d ^ m, one & low
        k = (k + np.uint64(0x9E3779B9)) & low
        m = (m + np.uint64(0xBB67AE85)) & low
    block[0], block[1], block[2], block[3] = a, b, c, d


@jit
def draw(shares, shots, seeds, counts):  # type: ignore[no-untyped-def]
    """Fill counts [N, K] with `shots` of probabilities [N, K] that add up to 1, by seeds [N, 4] of 32 bits each."""
    rows, width = shares.shape
    edges = np.empty(width)
    counter, key, block = np.empty(4, np.uint64), np.empty(2, np.uint64), np.empty(4, np.uint64)
    for row in range(rows):
        total = 0.0
        for column in range(width):
            total += shares[row, column]
            edges[column] = total
            counts[row, column] = 0.0
        last = width - 1
        while last > 0 and shares[row, last] == 0.0:  # rounding does not draw what cannot be
            last -= 1
        key[0], key[1], counter[2], counter[3] = seeds[row, 0], seeds[row, 1], seeds[row, 2], seeds[row, 3]
        for shot in range(shots):
            if shot % 4 == 0:
                counter[0], counter[1] = np.uint64(shot // 4), np.uint64(0)
                _philox(counter, key, block)
            point = total * (np.float64(block[shot % 4]) + 0.5) / 4294967296.0
            low, high = 0, last
            while low < high:
                middle = (low + high) // 2
                if point < edges[middle]:
                    high = middle
                else:
                    low = middle + 1
            counts[row, low] += 1.0


@jit
def draw_signs(seeds, signs):  # type: ignore[no-untyped-def]
    """Fill signs [S, N, A] with −1 and 1, by seeds [N, 4] of 32 bits each; a row's do not depend on the other rows."""
    samples, rows, width = signs.shape
    counter, key, block = np.empty(4, np.uint64), np.empty(2, np.uint64), np.empty(4, np.uint64)
    for row in range(rows):
        key[0], key[1], counter[2], counter[3] = seeds[row, 0], seeds[row, 1], seeds[row, 2], seeds[row, 3]
        drawn = 0
        for sample in range(samples):
            for column in range(width):
                if drawn % 128 == 0:
                    counter[0], counter[1] = np.uint64(drawn // 128), np.uint64(0)
                    _philox(counter, key, block)
                bit = (block[drawn // 32 % 4] >> np.uint64(drawn % 32)) & np.uint64(1)
                signs[sample, row, column] = 1.0 if bit else -1.0
                drawn += 1


def words(seeds: Sequence[bytes]) -> NDArray[np.uint64]:
    """Seeds of 16 bytes as four words [N, 4] of 32 bits.

    Example:
        >>> words([bytes([1]) + bytes(15)]).tolist()
        [[1, 0, 0, 0]]
    """
    return np.frombuffer(b"".join(seeds), "<u4").reshape(-1, 4).astype(np.uint64)
