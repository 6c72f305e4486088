"""The wire format's inner loops, compiled: byte planes, changed words of rows, entries of tables of counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcascade.engine.gates import jit


@jit
def _split(words, planes):  # type: ignore[no-untyped-def]
    size, count = planes.shape
    for byte in range(size):
        for place in range(count):
            planes[byte, place] = np.uint8((words[place] >> type(words[0])(8 * byte)) & type(words[0])(255))


@jit
def changed(words, counts, columns, changes):  # type: ignore[no-untyped-def]
    """Where each row of words [N, A] differs from the one before it.

    Fills counts [N − 1] with how many words of a row do; columns with 2 · column, + 1 where the word is that of two rows before; and
    changes with the XOR of the others. Gives how many there are of the last two; −1 where there are more than there is room for.
    """
    rows, width = words.shape
    entries = stored = 0
    for row in range(1, rows):
        before = entries
        for column in range(width):
            word = words[row, column]
            if word != words[row - 1, column]:
                if entries == len(columns):
                    return -1, -1
                if row > 1 and word == words[row - 2, column]:
                    columns[entries] = 2 * column + 1
                else:
                    columns[entries] = 2 * column
                    changes[stored] = word ^ words[row - 1, column]
                    stored += 1
                entries += 1
        counts[row - 1] = entries - before
    return entries, stored


@jit
def restored(words, counts, columns, changes):  # type: ignore[no-untyped-def]
    """Fill all rows of words [N, A] but the first; False where that is not what `changed` gave."""
    rows, width = words.shape
    entry = stored = 0
    for row in range(1, rows):
        for column in range(width):
            words[row, column] = words[row - 1, column]
        for _ in range(counts[row - 1]):
            if entry == len(columns):
                return False
            column = columns[entry] >> 1
            if column >= width:
                return False
            if columns[entry] & 1:
                if row < 2:
                    return False
                words[row, column] = words[row - 2, column]
            else:
                if stored == len(changes):
                    return False
                words[row, column] ^= changes[stored]
                stored += 1
            entry += 1
    return entry == len(columns) and stored == len(changes)


@jit
def whole(flat, bits, numbers):  # type: ignore[no-untyped-def]
    """Fill numbers with doubles that are whole numbers from 0 to 2^31 − 1; `bits` are the same doubles as words.

    Gives how many are not 0, and the largest; −1 where one is no such number. Without branches, so that it runs on vectors.
    """
    found, most, signs, fine = 0, np.int32(0), np.uint64(0), True
    for place in range(len(flat)):
        value = flat[place]
        inside = value < 2147483648.0
        number = np.int32(value if inside else 0.0)
        fine &= np.float64(number) == value
        signs |= bits[place]
        found += number != 0
        most = max(most, number)
        numbers[place] = number
    return (found if fine and signs >> np.uint64(63) == 0 else -1), most


@jit
def entries(numbers, gaps, found):  # type: ignore[no-untyped-def]
    """Fill gaps between numbers that are not 0, and found with those; both have room for one more. Gives the largest gap."""
    count, last, widest = 0, -1, 0
    for place in range(len(numbers)):
        gap = place - last
        gaps[count], found[count] = gap, numbers[place]
        if numbers[place] != 0:
            count += 1
            last = place
            widest = max(widest, gap)
    return widest


@jit
def is_single(values):  # type: ignore[no-untyped-def]
    """Whether every double is exactly a float, of the same bits."""
    for place in range(len(values)):
        value = values[place]
        single = np.float64(np.float32(value))
        if single != value or (value == 0.0 and np.signbit(value)):
            return False
    return True


def planes(words: NDArray[np.unsignedinteger], size: int | None = None) -> bytes:
    r"""First bytes of all words, second bytes, and so on; of the first `size` bytes of each, little endian.

    Example:
        >>> planes(np.array([0x0102, 0x0304], np.uint32), 2)
        b'\x02\x04\x01\x03'
    """
    if size == 1:
        return words.astype(np.uint8).tobytes()
    found = np.empty((words.itemsize if size is None else size, len(words)), np.uint8)
    if words.itemsize == 8:
        _split(words, found)
    else:
        _split(words.astype(np.uint32, copy=False), found)
    return found.tobytes()
