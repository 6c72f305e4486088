"""What runs in a worker: parcels of bindings come in, counts or values with gradients go out.

Executors, circuits and programs are named by a digest of their content and kept by the worker, so that each travels once: a
parcel that names something that is not there (the worker is new, or forgot it) is answered with `Missing`, and sent again
with it. Nothing here depends on which rows came together: rows are simulated in blocks of their own, samples by a seed for
every row, and gradients of weights are given for every block.

A parcel is unpickled code of whoever sent it: workers are for those who trust one another.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

from qcascade.circuits.template import Measurement
from qcascade.engine import Program, simulate
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors.base import Executor, Task, Values

_CONTENTS = 2**28  # bytes of pickles that a worker keeps
_OWNERS = 8  # executors and programs that a thread keeps unpickled, each with its circuits
_SIZES = (np.uint8, np.uint16, np.uint32)
Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Missing:
    """Digests of what a parcel named and the worker does not have."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Counts [N, K] in few bytes: of every outcome, or those that are not zero with their places."""

    shape: tuple[int, int]
    numbers: Array
    places: NDArray[np.uint32] | None

    @classmethod
    def of(cls, table: Values, shots: int | None) -> Packed:
        """Whole counts as small integers; probabilities (`shots` None) as they are.

        Example:
            >>> Packed.of(np.array([[3.0, 0.0], [0.0, 3.0]]), 3).table()
            array([[3., 0.],
                   [0., 3.]])
        """
        rows, width = table.shape
        if shots is None:
            return cls((rows, width), table, None)
        kind = next((kind for kind in _SIZES if shots <= np.iinfo(kind).max), np.float64)
        places = np.flatnonzero(table)
        size = np.dtype(kind).itemsize
        if table.size < 2**32 and len(places) * (4 + size) < table.size * size:
            return cls((rows, width), table.ravel()[places].astype(kind), places.astype(np.uint32))
        return cls((rows, width), table.astype(kind), None)

    def table(self) -> Values:
        """The counts again."""
        if self.places is None:
            return self.numbers.astype(np.float64)
        table = np.zeros(self.shape)
        table.ravel()[self.places] = self.numbers
        return table


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows of one circuit."""

    digest: bytes  # the task's
    bits: int
    angles: Values
    seeds: bytes  # 16 a row


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of every piece and the seconds they took."""

    tables: tuple[Packed, ...]
    seconds: tuple[float, ...]
    method: str


@dataclass(frozen=True, slots=True)
class Samples:
    """Pieces for an executor that simulates them, named by its digest."""

    executor: bytes
    shots: int | None
    pieces: tuple[Piece, ...]

    @property
    def needs(self) -> tuple[bytes, ...]:
        """Digests of what must be there, the owner's first."""
        return tuple(dict.fromkeys((self.executor, *(piece.digest for piece in self.pieces))))

    @property
    def size(self) -> int:
        """Bytes of angles and seeds."""
        return sum(piece.angles.nbytes + len(piece.seeds) for piece in self.pieces)

    def run(self, kept: Kept) -> Counted:
        """Simulate."""
        executor = cast(Executor, kept.object(self.executor))
        tables, seconds = [], []
        for piece in self.pieces:
            circuit = kept.object(piece.digest, self.executor, executor.unpacked)
            started = time.perf_counter()
            task = Task(circuit, piece.digest, piece.bits, piece.angles)
            seeds = [piece.seeds[k : k + 16] for k in range(0, len(piece.seeds), 16)]
            (table,) = executor.fetch(executor.submit([task], self.shots, seeds=seeds), [task.shape])
            seconds.append(time.perf_counter() - started)
            tables.append(Packed.of(table, self.shots))
        return Counted(tuple(tables), tuple(seconds), executor.method)


@dataclass(frozen=True, slots=True, eq=False)
class Differentiated:
    """Values [rows, K], or gradients for data [rows, D], weights [blocks, W] and amplitudes [rows, 2^q]."""

    arrays: tuple[Array | None, ...]
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Exact:
    """Blocks of rows for the engine: their values, or with cotangents their gradients by the adjoint method."""

    program: bytes  # its digest
    measurement: Measurement | None
    sizes: tuple[int, ...]  # rows of every block
    data: Array  # [rows, D]
    weights: Array  # [blocks, W]
    amplitudes: Array | None  # [rows, 2^q]
    cotangents: Array | None = None  # [rows, K]
    needed: tuple[bool, bool, bool] = (False, False, False)  # gradients of data, weights, amplitudes

    @property
    def needs(self) -> tuple[bytes, ...]:
        """Digests of what must be there."""
        return (self.program,)

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.data, self.weights, self.amplitudes, self.cotangents)
        return sum(array.nbytes for array in arrays if array is not None)

    def run(self, kept: Kept) -> Differentiated:
        """Simulate every block by itself."""
        started = time.perf_counter()
        found, row = list[tuple[Array | None, ...]](), 0
        for block, size in enumerate(self.sizes):
            found.append(self._block(kept.object(self.program), block, slice(row, row + size)))
            row += size
        joined = []
        for place, parts in enumerate(zip(*found, strict=True)):
            some = [part for part in parts if part is not None]
            stacked = self.cotangents is not None and place == 1
            joined.append((np.stack if stacked else np.concatenate)(some) if some else None)
        return Differentiated(tuple(joined), time.perf_counter() - started)

    def _block(self, program: Program, block: int, rows: slice) -> tuple[Array | None, ...]:
        """Values of a block, or its gradients where they are needed."""
        arrays = (self.data[rows], self.weights[block], None if self.amplitudes is None else self.amplitudes[rows])
        given = [None if array is None else torch.from_numpy(np.array(array)) for array in arrays]
        wanted = []
        for tensor, need in zip(given, self.needed, strict=True):
            if tensor is not None and need and self.cotangents is not None:
                wanted.append(tensor.requires_grad_())
        data, weights, amplitudes = given
        with torch.set_grad_enabled(bool(wanted)):
            values = simulate(
                program, self.measurement, data=data, weights=weights, amplitudes=amplitudes, squeeze=True
            )
        if self.cotangents is None:
            return (values.numpy(),)
        cotangents = torch.from_numpy(np.array(self.cotangents[rows]))
        found = iter(torch.autograd.grad(values, wanted, cotangents, allow_unused=True, materialize_grads=True))
        return tuple(
            next(found).resolve_conj().numpy() if tensor is not None and tensor.requires_grad else None
            for tensor in given
        )


Reply: TypeAlias = "Counted | Differentiated | Missing"


@dataclass(frozen=True, slots=True)
class Parcel:
    """Work with what the worker may not have yet."""

    work: Samples | Exact
    contents: Mapping[bytes, bytes]  # pickles by digest
    threads: int  # of torch while it runs; 0 leaves them alone
    version: str


@cache
def version() -> str:
    """Of QCascade as it is installed."""
    try:
        return metadata.version("qcascade")
    except metadata.PackageNotFoundError:
        return "not installed"


def run(parcel: Parcel) -> Reply:
    """Run a parcel.

    Raises:
        ExecutionError: It is of another version of QCascade, or its circuits cannot run.

    Example:
        >>> run(Parcel(Samples(b"nothing", 10, ()), {}, 0, version()))
        Missing(digests=(b'nothing',))
    """
    if parcel.version != version():
        raise ExecutionError(
            f"a worker has QCascade {version()}, the work is of {parcel.version}; install the same version on every machine."
        )
    for digest, content in parcel.contents.items():
        _CONTENT.put(digest, content)
    kept = _kept()
    if missing := tuple(digest for digest in parcel.work.needs if not kept.has(digest, parcel.work.needs[0])):
        return Missing(missing)
    with _threads(parcel.threads):
        try:
            return parcel.work.run(kept)
        except BaseException:
            kept.forget()  # what failed half-way is made anew
            raise


def run_with(parcel: Parcel, contents: bytes) -> Reply:
    """Run a parcel whose pickles came by themselves, in a pickle of all of them by digest.

    Example:
        >>> run_with(Parcel(Samples(b"nothing", 10, ()), {}, 0, version()), pickle.dumps({}))
        Missing(digests=(b'nothing',))
    """
    kept = _kept()
    if all(kept.has(digest, parcel.work.needs[0]) for digest in parcel.work.needs):
        return run(parcel)
    return run(replace(parcel, contents=pickle.loads(contents)))


def given(contents: bytes) -> bytes:
    """What a scheduler computes again where the worker that had it died."""
    return contents


class Contents:
    """Pickles by digest, those used last; shared by the threads of a process."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._held: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, digest: bytes, content: bytes) -> None:
        """Keep one; those that were used longest ago go, never this one."""
        with self._lock:
            if digest in self._held:
                self._held.move_to_end(digest)
                return
            self._held[digest] = content
            self._bytes += len(content)
            while self._bytes > self._most and len(self._held) > 1:
                self._bytes -= len(self._held.popitem(last=False)[1])

    def get(self, digest: bytes) -> bytes | None:
        """One, or None."""
        with self._lock:
            if digest in self._held:
                self._held.move_to_end(digest)
            return self._held.get(digest)


class Kept:
    """What a thread has unpickled: executors and programs, and the circuits of each."""

    def __init__(self) -> None:
        self._owners: OrderedDict[bytes, dict[bytes, Any]] = OrderedDict()

    def has(self, digest: bytes, owner: bytes) -> bool:
        """Whether `object` would find it."""
        return digest in self._owners.get(owner, ()) or _CONTENT.get(digest) is not None

    def object(
        self, digest: bytes, owner: bytes | None = None, unpacked: Callable[[Any], Any] = lambda found: found
    ) -> Any:
        """The object of a digest, kept as long as its owner is, which is itself by default; `unpacked` makes it of the pickle's."""
        held = self._owners.setdefault(owner or digest, {})
        self._owners.move_to_end(owner or digest)
        if digest not in held:
            content = _CONTENT.get(digest)
            if content is None:
                raise BackendError(f"a worker forgot a circuit while it ran: it keeps {_CONTENTS} bytes of them.")
            held[digest] = unpacked(pickle.loads(content))
        while len(self._owners) > _OWNERS:
            self._owners.popitem(last=False)
        return held[digest]

    def forget(self) -> None:
        """Let go of all."""
        self._owners.clear()


_CONTENT = Contents(_CONTENTS)
_local = threading.local()


def _kept() -> Kept:
    if not hasattr(_local, "kept"):
        _local.kept = Kept()
    kept: Kept = _local.kept
    return kept


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many threads of torch's as a parcel may use, since other workers have the other cores."""
    before = torch.get_num_threads()
    if count in (0, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
