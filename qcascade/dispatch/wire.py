"""The wire format: circuits once, then only angles out, and counts or samples back; lossless, versioned (docs/wire.md).

What comes in: arrays of float64 angles [N, A] and of counts [N, 2^bits]. What goes out: bytes, a header and one zstd frame.
Of angles whose rows repeat one another, as those of a shift rule do, only what changes from row to row is sent, and of several
circuits at the same angles the angles once; words are split into byte planes; every bit comes back. What cannot be decoded is one
`ExecutionError`; no more memory is taken than `limit` allows.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from qcascade.dispatch import packing
from qcascade.errors import ExecutionError

VERSION = 2
_KNOWN = (1, 2)  # versions that are read
LIMIT = 2**30  # bytes that a message may decode to
_MAGIC = b"QCW"
_CIRCUIT, _ANGLES, _COUNTS, _SAMPLES = range(4)
_PLAIN, _DELTA = 0, 1  # flags of a block of angles
_SINGLE, _CHANGES, _SAME = 2, 4, 8  # the last two since version 2
_DENSE, _SPARSE, _REAL = range(3)
_LEVELS = {_ANGLES: -1}  # of zstd: what makes encoding and sending at 100 MB/s shortest together
_LEVEL = 1  # of all else
_WINDOW = 2**27
_MOST_BITS = 26

Array = NDArray[np.float64]
_local = threading.local()  # a compressor is of one thread


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """N bindings of the circuit with this digest (16 bytes): angles [N, A] in radians."""

    digest: bytes
    angles: Array


def encode_circuit(digest: bytes, text: str) -> bytes:
    """A circuit with its symbols, sent once; `text` is whatever form both ends know, such as pytket's JSON.

    Example:
        >>> decode_circuit(encode_circuit(bytes(16), "{}"))[1]
        '{}'
    """
    _check_digest(digest)
    return _packed(_CIRCUIT, digest + text.encode())


def decode_circuit(message: bytes, *, limit: int = LIMIT) -> tuple[bytes, str]:
    """Digest and text.

    Raises:
        ExecutionError: The message is damaged, of another kind or version, or larger than `limit`.
    """
    reader = _Reader(message, _CIRCUIT, limit)
    digest, text = reader.take(16), reader.take(reader.left)
    try:
        return digest, text.decode()
    except UnicodeDecodeError as error:
        raise _damaged("its text is no UTF-8") from error


def encode_angles(blocks: Sequence[Block]) -> bytes:
    """Angles of any number of circuits.

    Example:
        >>> block = Block(bytes(16), np.linspace(0, 1, 6).reshape(3, 2))
        >>> bool((decode_angles(encode_angles([block]))[0].angles == block.angles).all())
        True
    """
    head, body = [_number(len(blocks))], []
    last: Array | None = None
    for block in blocks:
        _check_digest(block.digest)
        angles = np.ascontiguousarray(block.angles, np.float64)
        flags, data = (_SAME, b"") if last is not None and _identical(angles, last) else _angles(angles)
        last = angles
        head += [block.digest, _number(len(angles)), _number(angles.shape[1]), bytes([flags])]
        body.append(data)
    return _packed(_ANGLES, b"".join(head + body))


def decode_angles(message: bytes, *, limit: int = LIMIT) -> list[Block]:
    """The blocks, bit for bit.

    Raises:
        ExecutionError: The message is damaged, of another kind or version, or larger than `limit`.
    """
    reader = _Reader(message, _ANGLES, limit)
    heads = []
    for _ in range(reader.number(reader.left // 19)):
        digest, rows, width = reader.take(16), reader.number(limit), reader.number(limit)
        flags = reader.take(1)[0]
        if flags > (3 if reader.version == 1 else _SAME) or (flags & _CHANGES and (flags != _CHANGES or not rows)):
            raise _damaged("a block of angles has unknown flags")
        reader.charge(8 * rows * width)
        heads.append((digest, rows, width, flags))
    blocks: list[Block] = []
    for digest, rows, width, flags in heads:
        if flags == _SAME:
            if not blocks or blocks[-1].angles.shape != (rows, width):
                raise _damaged("a block of angles repeats one of another shape")
            blocks.append(Block(digest, blocks[-1].angles.copy()))
            continue
        if flags == _CHANGES:
            blocks.append(Block(digest, _changed_rows(reader, rows, width)))
            continue
        size = 4 if flags & _SINGLE else 8
        planes = np.frombuffer(reader.take(size * rows * width), np.uint8).reshape(size, rows * width)
        kind: type = np.uint32 if size == 4 else np.uint64
        words: NDArray[Any] = np.ascontiguousarray(planes.T).view(kind).reshape(rows, width)
        if flags & _DELTA:
            words = np.bitwise_xor.accumulate(words, 0)
        values = words.view(np.float32 if size == 4 else np.float64).astype(np.float64)
        blocks.append(Block(digest, values))
    reader.end()
    return blocks


def encode_counts(tables: Sequence[Array]) -> bytes:
    """Counts [N, 2^bits] of any number of tasks; values that are no whole numbers are kept as they are.

    Raises:
        ExecutionError: A table's width is no power of two.

    Example:
        >>> decode_counts(encode_counts([np.array([[0.0, 7.0], [3.0, 4.0]])]))[0].tolist()
        [[0.0, 7.0], [3.0, 4.0]]
    """
    head, body = [_number(len(tables))], []
    for table in tables:
        table = np.ascontiguousarray(table, np.float64)
        rows, width = table.shape
        bits = max(width, 1).bit_length() - 1
        if 2**bits != width or bits > _MOST_BITS:
            raise ExecutionError(
                f"a table of counts is {width} wide; 2 to the number of bits read, at most 2^{_MOST_BITS}, is needed."
            )
        how, data = _counts(table)
        head += [_number(rows), bytes([bits, how])]
        body.append(data)
    return _packed(_COUNTS, b"".join(head + body))


def decode_counts(message: bytes, *, limit: int = LIMIT) -> list[Array]:
    """The tables.

    Raises:
        ExecutionError: The message is damaged, of another kind or version, or larger than `limit`.
    """
    reader = _Reader(message, _COUNTS, limit)
    heads = []
    for _ in range(reader.number(reader.left // 3)):
        rows, (bits, how) = reader.number(limit), reader.take(2)
        if bits > _MOST_BITS or how > _REAL:
            raise _damaged("a table of counts has an unknown form")
        reader.charge(8 * rows << bits)
        heads.append((rows, bits, how))
    tables = []
    for rows, bits, how in heads:
        size = rows << bits
        if how == _REAL:
            planes = np.frombuffer(reader.take(8 * size), np.uint8).reshape(8, size)
            tables.append(np.ascontiguousarray(planes.T).view(np.float64).reshape(rows, -1))
        elif how == _DENSE:
            tables.append(reader.whole(size).astype(np.float64).reshape(rows, 1 << bits))
        else:
            entries = reader.number(size)
            gaps, numbers = reader.whole(entries), reader.whole(entries)
            places = np.cumsum(gaps.astype(np.int64)) - 1
            if entries and (places[-1] >= size or (gaps < 1).any()):
                raise _damaged("an outcome lies outside of its table")
            table = np.zeros(size)
            table[places] = numbers
            tables.append(table.reshape(rows, 1 << bits))
    reader.end()
    return tables


def counts_limit(shapes: Sequence[tuple[int, int]]) -> int:
    """A `limit` for the counts of tasks with so many rows and bits: their tables, and what is said of each.

    Example:
        >>> message = encode_counts([np.ones((3, 4))])
        >>> len(decode_counts(message, limit=counts_limit([(3, 2)])))
        1
    """
    return sum((8 * rows << bits) + 64 for rows, bits in shapes) + 64


def encode_samples(samples: NDArray[np.bool_]) -> bytes:
    """Bits [shots, m] in the order in which they were read, packed.

    Example:
        >>> decode_samples(encode_samples(np.eye(3, dtype=bool))).sum()
        np.int64(3)
    """
    shots, bits = samples.shape
    return _packed(_SAMPLES, _number(shots) + _number(bits) + np.packbits(samples, axis=None).tobytes())


def decode_samples(message: bytes, *, limit: int = LIMIT) -> NDArray[np.bool_]:
    """Bits [shots, m].

    Raises:
        ExecutionError: The message is damaged, of another kind or version, or larger than `limit`.
    """
    reader = _Reader(message, _SAMPLES, limit)
    shots, bits = reader.number(limit), reader.number(limit)
    reader.charge(shots * bits)
    packed = np.frombuffer(reader.take(math.ceil(shots * bits / 8)), np.uint8)
    reader.end()
    return np.unpackbits(packed, count=shots * bits).reshape(shots, bits).astype(bool)


def _angles(angles: Array) -> tuple[int, bytes]:
    """Flags and data of a block."""
    flat, words = angles.ravel(), angles.view(np.uint64)
    if len(flat) and packing.is_single(flat):
        words, flags = angles.astype(np.float32).view(np.uint32), _SINGLE
        if len(words) > 1:
            changes = words.copy()
            changes[1:] ^= words[:-1]
            if np.count_nonzero(changes[1:]) < 0.75 * changes[1:].size:
                words, flags = changes, flags | _DELTA
        return flags, packing.planes(words.ravel())
    if len(words) > 1:
        counts = np.empty(len(words) - 1, np.uint32)
        room = words.size // 4
        columns, changes = np.empty(room, np.uint32), np.empty(room, np.uint64)
        entries, stored = packing.changed(words, counts, columns, changes)
        if entries >= 0:
            lists = [_whole(counts), _number(entries), _whole(columns[:entries]), _number(stored)]
            return _CHANGES, b"".join([packing.planes(words[0]), *lists, packing.planes(changes[:stored])])
        different = words.copy()
        different[1:] ^= words[:-1]
        if np.count_nonzero(different[1:]) < 0.75 * different[1:].size:
            return _DELTA, packing.planes(different.ravel())
    return _PLAIN, packing.planes(words.ravel())


def _changed_rows(reader: _Reader, rows: int, width: int) -> Array:
    words = np.empty((rows, width), np.uint64)
    words[0] = reader.words(width)
    counts = reader.whole(rows - 1).astype(np.uint32)
    columns = reader.whole(reader.number(rows * width)).astype(np.uint32)
    changes = reader.words(reader.number(len(columns)))
    if not packing.restored(words, counts, columns, changes):
        raise _damaged("a row of angles changes where it has no place")
    return words.view(np.float64)


def _identical(one: Array, other: Array) -> bool:
    if one is other or one.shape != other.shape or not len(one):
        return one.shape == other.shape
    a, b = one.view(np.uint64), other.view(np.uint64)
    return np.array_equal(a[0], b[0]) and np.array_equal(a, b)  # others mostly differ in the first row already


def _counts(table: Array) -> tuple[int, bytes]:
    flat = table.ravel()
    numbers = np.empty(len(flat), np.uint32)
    count, most = packing.whole(flat, flat.view(np.uint64), numbers)
    if count < 0:
        return _REAL, packing.planes(flat.view(np.uint64))
    if count > 0.5 * len(flat):
        return _DENSE, _whole(numbers, int(most))
    gaps, found = np.empty(count + 1, np.uint32), np.empty(count + 1, np.uint32)
    widest = packing.entries(numbers, gaps, found)
    return _SPARSE, _number(count) + _whole(gaps[:count], int(widest)) + _whole(found[:count], int(most))


def _whole(values: NDArray[np.uint32], most: int | None = None) -> bytes:
    """Whole numbers in as few bytes each as the largest needs: that number of bytes, then byte planes."""
    most = int(values.max(initial=0)) if most is None else most
    size = next(s for s in (1, 2, 4) if most < 256**s)
    return bytes([size]) + packing.planes(values, size)


def _number(value: int) -> bytes:
    """LEB128."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _packed(kind: int, body: bytes) -> bytes:
    level = _LEVELS.get(kind, _LEVEL)
    made: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in made:  # its tables take longer than a small message
        made[level] = zstandard.ZstdCompressor(level=level, write_checksum=True)
    return _MAGIC + bytes([VERSION, kind]) + _number(len(body)) + made[level].compress(body)


def _check_digest(digest: bytes) -> None:
    if len(digest) != 16:
        raise ExecutionError(f"a circuit's digest has 16 bytes, got {len(digest)}.")


def _damaged(what: str) -> ExecutionError:
    return ExecutionError(f"the message cannot be decoded: {what}. It is damaged, or no message of QCascade.")


class _Reader:
    """A message's body, read from its beginning."""

    def __init__(self, message: bytes, kind: int, limit: int) -> None:
        self.data, self.place, self.limit, self.charged = bytes(message), 0, limit, 0
        if self.data[:3] != _MAGIC or len(self.data) < 6:
            raise _damaged("it does not begin as one")
        self.version = self.data[3]
        if self.version not in _KNOWN:
            raise ExecutionError(
                f"the message has version {self.version}; versions {' and '.join(map(str, _KNOWN))} are known here."
            )
        if self.data[4] != kind:
            raise _damaged(f"it is of kind {self.data[4]}, and {kind} was expected")
        self.place = 5
        size = self.number(limit)
        if _frame_size(self.data[self.place :]) != size:
            raise _damaged("the frame is not as large as it should be")
        try:
            frame = io.BytesIO(self.data[self.place :])
            reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(frame)
            body = reader.read(size + 1)
            rest = reader.read(1) if len(body) == size else b"more"
        except zstandard.ZstdError as error:
            raise _damaged(str(error)) from error
        if len(body) != size or rest:
            raise _damaged(f"it says that it holds {size} bytes, and does not")
        self.data, self.place = body, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.place

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _damaged("it ends too early")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, most: int) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if value > most:
                    raise _damaged(f"it holds the size {value}; at most {most} is accepted here")
                return value
        raise _damaged("a number in it does not end")

    def whole(self, count: int) -> NDArray[np.unsignedinteger]:
        size = self.take(1)[0]
        if size not in (1, 2, 4, 8):
            raise _damaged(f"numbers of {size} bytes are unknown")
        planes = np.frombuffer(self.take(size * count), np.uint8).reshape(size, count)
        return np.ascontiguousarray(planes.T).view(f"<u{size}").ravel()

    def words(self, count: int) -> NDArray[np.uint64]:
        """Words of eight bytes, from byte planes."""
        split = np.frombuffer(self.take(8 * count), np.uint8).reshape(8, count)
        return np.ascontiguousarray(split.T).view(np.uint64).ravel()

    def charge(self, size: int) -> None:
        """Count memory that will be taken."""
        self.charged += size
        if self.charged > self.limit:
            raise _damaged(f"it decodes to more than {self.limit} bytes")

    def end(self) -> None:
        if self.left:
            raise _damaged(f"{self.left} bytes are left over")


def _frame_size(frame: bytes) -> int:
    """What the frame's own header says of its content."""
    try:
        return int(zstandard.get_frame_parameters(frame).content_size)
    except zstandard.ZstdError as error:
        raise _damaged(str(error)) from error
