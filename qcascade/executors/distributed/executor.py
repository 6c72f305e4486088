"""An executor whose circuits are simulated by the workers of a pool: samples, noise, or the exact state with its gradients.

What comes in: the tasks of an inner executor, or inputs of `engine.simulate`. What goes out: what the inner executor gives, row for row:
tasks are divided into chunks (`chunks`), each of which any worker may run at any time, as often as it takes (`submission`). Samples come
from a seed for every row, so that results do not depend on chunks, workers, or which of them died.
"""

from __future__ import annotations

import hashlib
import itertools
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor as Futures
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import numpy as np
from torch import Tensor

from qcascade.circuits.template import Measurement
from qcascade.engine import Program, flops
from qcascade.engine.compiled import simulation
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors.base import Counted, Executor, Job, Log, Shape, Task, Values
from qcascade.executors.choose import make_executor
from qcascade.executors.deadline import check_deadline
from qcascade.executors.delegating import DelegatingExecutor
from qcascade.executors.distributed import adjoint
from qcascade.executors.distributed.chunks import Load, Rates, Slice, divide
from qcascade.executors.distributed.pools import dask_client, pool_of
from qcascade.executors.distributed.submission import LateError, Submission, late
from qcascade.executors.distributed.worker import Array, Exact, Parcel, Piece, Samples, version
from qcascade.executors.local import seeds_from
from qcascade.executors.shots import ShotsExecutor

_FLOPS = 2e9  # floating-point operations of a core a second, roughly
_BACKWARD = 5  # a forward and a backward pass take so many times a forward pass


@dataclass(slots=True)
class _Sent:
    submission: Submission
    tasks: list[tuple[bytes, Shape]]  # digests; those without rows too
    chunks: list[list[Slice]]
    shots: int | None


class DistributedExecutor(DelegatingExecutor):
    """An executor whose circuits many processes simulate.

    Args:
        pool: A Dask client, a `concurrent.futures.Executor` (of processes, threads, loky, MPI), or a function that makes one, which is
            called again when the pool breaks.
        executor: "shots", "noisy" (with target=), "statevector" (exact, with gradients by the adjoint method in the workers), or an
            `Executor` that simulates in its own process and takes seeds.
        threads: Of torch and Aer in a worker while it simulates. Threads of this process (`ThreadPoolExecutor`) are left alone.
        workers: How many chunks run at a time; None asks the pool.
        deadline: Seconds for one submission, where no dispatcher has a deadline of its own.
        options: Of a named executor. With a `seed`, "shots" and "noisy" draw what they draw without workers, but trajectories (circuits
            of more than 12 qubits) draw other samples, the same ones for any division.

    Attributes:
        busy: Seconds that workers have simulated so far, by their own clocks.

    Raises:
        ExecutionError: The pool or the executor cannot be used, or an option is unknown or out of range.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from pytket.circuit import Circuit
        >>> from qcascade.circuits.template import CircuitTemplate
        >>> template = CircuitTemplate(Circuit(1).X(0), (), ())
        >>> with ThreadPoolExecutor(2) as pool:
        ...     DistributedExecutor(pool, "shots", shots=100, seed=0).run([Job(template, np.zeros((1, 0)))])[0].values
        array([[0., 1.]])
    """

    name = "distributed"

    def __init__(
        self,
        pool: Any,
        executor: str | Executor = "shots",
        *,
        threads: int = 1,
        workers: int | None = None,
        deadline: float = 3600.0,
        **options: Any,
    ) -> None:
        inner = make_executor(executor, **options)
        self.adjoint = inner is None
        inner = ShotsExecutor(None) if inner is None else inner
        self._content = _content(inner)
        super().__init__(inner)
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            raise ExecutionError(f"threads={threads!r}; a whole number of at least 1 is accepted.")
        if self.adjoint:
            self.name = "statevector"  # type: ignore[misc]
        self.deadline = check_deadline(deadline)
        self.pool = pool_of(pool, workers)
        self._threads = 0 if self.pool.shares_threads else threads
        self._how = "exact state" if self.adjoint else inner.method
        self._owner = _digest(self._content)
        self._pickles: dict[bytes, bytes] = {self._owner: self._content}
        self._there: set[bytes] = set()  # digests that came with parcels whose replies are here
        self._programs: dict[Program, bytes] = {}  # digests
        self._sent: dict[str, _Sent] = {}
        self._numbers, self._rates = itertools.count(), Rates()
        self.busy = 0.0
        self._lock = threading.Lock()

    @property
    def method(self) -> str:
        """How values come about, and where."""
        return f"{self._how}, by {self.pool.text}"

    def tasks(self, jobs: Sequence[Job], log: Log, counted: Counted) -> list[Task]:
        """The inner executor's."""
        return self.inner.tasks(jobs, log, counted)

    def estimates(self, jobs: Sequence[Job], counts: Sequence[Values], log: Log) -> list[tuple[Values, Values]]:
        """The inner executor's."""
        return self.inner.estimates(jobs, counts, log)

    def grain(self, task: Task) -> int:
        """The inner executor's."""
        return self.inner.grain(task)

    def predicted(self, task: Task, shots: int | None) -> float:
        """The inner executor's."""
        return self.inner.predicted(task, shots)

    def submit(
        self, tasks: Sequence[Task], shots: int | None, *, tag: str | None = None, seeds: Sequence[bytes] | None = None
    ) -> str:
        """Send chunks to the workers at once; `fetch` waits for them."""
        rows = sum(len(task.angles) for task in tasks)
        own = seeds_from(self.random, rows) if seeds is None and shots is not None else seeds or ()
        drawn = b"".join(own)
        loads = []
        for task in tasks:
            seconds = self._rates.get((task.digest, shots), self.inner.predicted(task, shots))
            size = max(8 * task.angles.shape[1] + 16, (8 if shots is None else 2) * 2**task.bits)
            loads.append(Load(len(task.angles), self.inner.grain(task), seconds, size))
            with self._lock:
                if task.digest not in self._pickles:
                    self._pickles[task.digest] = pickle.dumps(self.inner.packed(task.circuit))
        starts = [0, *itertools.accumulate(load.rows for load in loads)]
        chunks = divide(loads, self.pool.workers())

        def piece(place: int, start: int, stop: int) -> Piece:
            task, first = tasks[place], starts[place]
            rows = slice(16 * (first + start), 16 * (first + stop))
            return Piece(task.digest, task.bits, task.angles[start:stop], drawn[rows])

        works = [Samples(self._owner, shots, tuple(piece(*one) for one in chunk)) for chunk in chunks]
        sent = _Sent(self._submission(works), [(task.digest, task.shape) for task in tasks], chunks, shots)
        handle = f"pool-{next(self._numbers)}"
        self._sent[handle] = sent
        return handle

    def fetch(self, handle: str, shapes: Sequence[Shape], *, seconds: float | None = None) -> list[Values]:
        """Wait for the chunks; those that a broken pool lost are sent again by the next call."""
        sent = self._sent.get(handle)
        if sent is None:
            raise BackendError(f"no submission {handle!r} waits in this process.", [handle])
        limit = self.deadline if seconds is None else seconds
        try:
            replies = sent.submission.wait(limit)
        except LateError as error:
            if seconds is None:
                self.cancel(handle)
            raise late(self.pool, error, limit) from error
        except BaseException:
            if seconds is None:
                self.cancel(handle)
            raise
        self._sent.pop(handle, None)
        tables = [np.empty((rows, 2**bits)) for _, (rows, bits) in sent.tasks]
        spent = [0.0] * len(tables)
        for chunk, reply in zip(sent.chunks, replies, strict=True):
            for (place, start, stop), packed, took in zip(chunk, reply.tables, reply.seconds, strict=True):
                tables[place][start:stop] = packed.table()
                spent[place] += took
            self._how = reply.method
        for (digest, (rows, _)), took in zip(sent.tasks, spent, strict=True):
            self._rates.put(
                (digest, sent.shots), rows, took
            )  # of all together: a row of a few takes longer than one of many
        self.busy += sum(spent)
        self._there.update((self._owner, *(digest for digest, (rows, _) in sent.tasks if rows)))
        return tables

    def cancel(self, handle: str) -> bool:
        """Drop a submission: nothing of it is run any more, or its results are not taken."""
        sent = self._sent.pop(handle, None)
        if sent is not None:
            sent.submission.cancel()
        return True

    def simulate(
        self,
        program: Program,
        measurement: Measurement | None = None,
        *,
        data: Tensor | None = None,
        weights: Tensor | None = None,
        amplitudes: Tensor | None = None,
        squeeze: bool = False,
    ) -> Tensor:
        """What `engine.simulate` gives, by the workers, with gradients by the adjoint method."""
        return adjoint.simulate(
            self._ran, program, measurement, data=data, weights=weights, amplitudes=amplitudes, squeeze=squeeze
        )

    def _ran(self, program: Program, work: Exact) -> list[Array | None]:
        """All blocks of some work, by as many workers as there are."""
        backward, loaded, started = work.cotangents is not None, work.amplitudes is not None, time.perf_counter()
        rows, blocks = len(work.data), len(work.sizes)
        if not rows:
            return _nothing(program, work)
        work = replace(work, program=self._named(program))
        key = (work.program, work.measurement, backward)
        guess = flops(program, work.measurement, loaded=loaded) * (_BACKWARD if backward else 1) / _FLOPS
        arrays = [a for a in (work.data, work.amplitudes, work.cotangents) if a is not None]
        size = sum(a.nbytes for a in arrays) // blocks + work.weights.nbytes // blocks
        seconds = self._rates.get(key, guess + 2e-5) * rows / blocks
        chunks = divide([Load(blocks, 1, seconds, size)], self.pool.workers())
        ends = [0, *itertools.accumulate(work.sizes)]
        spans = [(start, stop) for chunk in chunks for _, start, stop in chunk]
        submission = self._submission([_part(work, ends, start, stop) for start, stop in spans])
        try:
            replies = submission.wait(self.deadline)
        except LateError as error:
            submission.cancel()
            raise late(self.pool, error, self.deadline) from error
        self._there.add(work.program)
        took = sum(reply.seconds for reply in replies)
        self._rates.put(key, rows, took)
        self.busy += took
        log = Log(circuits=rows, submissions=1)
        self._remember(log, "gradients" if backward else "values", started, 0.0)
        parts = zip(*(reply.arrays for reply in replies), strict=True)
        return [None if some[0] is None else np.concatenate(some) for some in parts]

    def _submission(self, works: Sequence[Samples | Exact]) -> Submission:
        """Sent, with what workers are not known to have."""
        parcels = []
        for work in works:
            new = [digest for digest in work.needs if digest not in self._there]
            parcels.append(Parcel(work, self._contents(new), self._threads, version()))
        return Submission(self.pool, parcels, self._contents)

    def _contents(self, digests: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return {digest: self._pickles[digest] for digest in digests}

    def _named(self, program: Program) -> bytes:
        """The digest of a program, which is pickled once."""
        with self._lock:
            if program not in self._programs:
                content = pickle.dumps(program)
                self._programs[program] = digest = _digest(content)
                self._pickles[digest] = content
            return self._programs[program]

    def __getstate__(self) -> dict[str, Any]:
        raise ExecutionError(
            f"a {type(self).__name__} holds a live connection and cannot be saved; call use('statevector') first."
        )


class DaskExecutor(DistributedExecutor):
    """A `DistributedExecutor` on a Dask cluster.

    Workers may join and die while it runs. Everything about the cluster is Dask's: `dask scheduler`, `dask worker tcp://HOST:8786`.

    Args:
        client: A Dask client or the address of a scheduler; any other pool that `DistributedExecutor` takes is accepted too.
        executor: As for `DistributedExecutor`.
        options: Likewise.

    Raises:
        ExecutionError: Dask is not installed, or see `DistributedExecutor`.
        BackendError: No scheduler answers at the address.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> DaskExecutor(ThreadPoolExecutor(1), "shots", shots=100).shots
        100
    """

    def __init__(
        self, client: Any | str | Futures | Callable[[], Futures], executor: str | Executor = "shots", **options: Any
    ) -> None:
        super().__init__(dask_client(client) if isinstance(client, str) else client, executor, **options)


def _content(inner: Executor) -> bytes:
    """The executor as workers get it.

    Raises:
        ExecutionError: It cannot be sent.
    """
    what = type(inner).__name__
    if hasattr(inner, "inner"):
        raise ExecutionError(
            f"a {what} cannot be distributed; give the executor in it, and let use(..., journal=...) put a dispatcher before."
        )
    if type(inner).submit is Executor.submit:
        raise ExecutionError(f"{what} runs jobs whole, so that its circuits cannot be divided among workers.")
    try:
        content: bytes = cloudpickle.dumps(inner)
    except (ExecutionError, TypeError, AttributeError, pickle.PicklingError) as error:
        raise ExecutionError(
            f"{what} cannot be sent to workers: {error} 'shots', 'noisy', 'statevector', or an Executor that simulates in its own "
            "process, is accepted."
        ) from error
    return content


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _part(work: Exact, ends: Sequence[int], start: int, stop: int) -> Exact:
    """Some blocks."""
    rows = slice(ends[start], ends[stop])
    return replace(
        work,
        sizes=work.sizes[start:stop],
        data=work.data[rows],
        weights=work.weights[start:stop],
        amplitudes=None if work.amplitudes is None else work.amplitudes[rows],
        cotangents=None if work.cotangents is None else work.cotangents[rows],
    )


def _nothing(program: Program, work: Exact) -> list[Array | None]:
    """Of no rows."""
    if work.cotangents is not None:
        arrays = (work.data, work.weights, work.amplitudes)
        return [
            None if a is None or not need else np.zeros_like(a) for a, need in zip(arrays, work.needed, strict=True)
        ]
    kind = work.weights.dtype if work.measurement is not None else np.result_type(work.weights.dtype, np.complex64)
    return [np.zeros((0, simulation(program, work.measurement).width), kind)]
