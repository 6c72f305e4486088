"""What parcels are sent to: a Dask cluster, any `concurrent.futures.Executor`, or a function that makes one.

A Dask cluster runs what was on a worker that died on another one, and gives work to workers that join. The pools of the
standard library break when a process dies; one that was given as a function is made again.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Executor as Futures
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from qcascade.errors import BackendError, ExecutionError
from qcascade.executors.distributed.chunks import MESSAGE_BYTES
from qcascade.executors.distributed.worker import Parcel, given, run, run_with

_COUNTED = 1.0  # seconds for which the number of workers is believed
Pending: TypeAlias = Any  # a future: of Dask or of concurrent.futures, with result(), cancel() and add_done_callback()


class Pool(Protocol):
    """Sends parcels."""

    @property
    def text(self) -> str:
        """What it is, in a few words."""

    @property
    def shares_threads(self) -> bool:
        """Whether it runs parcels in this process, whose threads are not to be touched."""

    def workers(self) -> int:
        """How many parcels run at a time, at least 1."""

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Pending]:
        """Start parcels, in order.

        Raises:
            BackendError: The pool takes none.
        """

    def cancel(self, pending: list[Pending]) -> None:
        """Drop those that have not ended."""

    def failure(self, error: BaseException) -> BackendError | None:
        """What an error says of the pool; None where it is the work's own."""

    def renewed(self) -> bool:
        """Make a broken pool again; whether that is possible."""


class FuturesPool:
    """A `concurrent.futures.Executor`, or a function that makes one."""

    shares_threads: bool

    def __init__(self, given: Futures | Callable[[], Futures], workers: int | None) -> None:
        self._make = None if isinstance(given, Futures) else given
        self._lock, self._workers = threading.Lock(), workers
        self._pool = given if isinstance(given, Futures) else self._made()
        self.shares_threads = isinstance(self._pool, ThreadPoolExecutor)

    def _made(self) -> Futures:
        assert self._make is not None
        made = self._make()
        if not isinstance(made, Futures):
            raise ExecutionError(
                f"the function that makes the pool gave a {type(made).__name__}; a concurrent.futures.Executor is needed."
            )
        return made

    @property
    def text(self) -> str:
        """Its class."""
        return type(self._pool).__name__

    def workers(self) -> int:
        """As given, or as the pool's own attributes say, or as many as there are cores."""
        if self._workers is not None:
            return self._workers
        for name in ("_max_workers", "num_workers"):  # of the standard library and loky; of mpi4py
            if isinstance(found := getattr(self._pool, name, None), int):
                return max(1, found)
        return os.cpu_count() or 1

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Pending]:
        """One by one."""
        for parcel in parcels:
            try:
                yield self._pool.submit(run, parcel)
            except BrokenExecutor:
                if not self.renewed():
                    raise
                yield self._pool.submit(run, parcel)
            except RuntimeError as error:
                raise BackendError(f"the {self.text} takes no more work: {error}.") from error

    def cancel(self, pending: list[Pending]) -> None:
        """Those that have not begun; the others' results are not asked for."""
        for future in pending:
            future.cancel()

    def failure(self, error: BaseException) -> BackendError | None:
        """A process that died, or a future that another cancelled."""
        if isinstance(error, BrokenExecutor):
            return BackendError(
                f"a worker of the {self.text} died, which ends the pool ({error}). Give a function that makes the pool, as in "
                "DistributedExecutor(lambda: ProcessPoolExecutor(4)), and it is made again."
            )
        if isinstance(error, FutureCancelledError):
            return BackendError(f"work was cancelled in the {self.text}.")
        return None

    def renewed(self) -> bool:
        """By the function that was given; once for all the parcels that broke with it."""
        if self._make is None:
            return False
        with self._lock:
            if _broken(self._pool):
                self._pool = self._made()
        return True


class DaskPool:
    """A Dask cluster, by its client.

    Parcels that are sent together are one group of Dask's tasks, which depends on at most one other task. So the scheduler keeps those
    that no worker has room for, and hands them out one by one (`worker-saturation`). It would give the tasks of a group that depends on
    five others or more to workers at once, by what tasks took on average, and look once a second whether a worker stands idle.
    """

    shares_threads = False

    def __init__(self, client: Any, workers: int | None) -> None:
        if client.asynchronous:
            raise ExecutionError("an asynchronous Dask client was given; make it with asynchronous=False.")
        self.client, self._workers = client, workers
        self._known, self._when = 1, -_COUNTED
        self._numbers = itertools.count()
        self._contents: dict[str, Pending] = {}  # bundles of pickles that the cluster holds, by name
        self._name = os.urandom(6).hex()
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """The scheduler's address."""
        address = getattr(self.client.scheduler, "address", None)
        return f"Dask at {address}" if address else "Dask"

    def workers(self) -> int:
        """Threads of all workers that are connected now."""
        if self._workers is not None:
            return self._workers
        if time.monotonic() - self._when > _COUNTED:
            try:
                self._known = max(1, sum(self.client.nthreads().values()))
            except (OSError, RuntimeError, ValueError) as error:
                raise BackendError(f"{self.text} does not answer: {error}.") from error
            self._when = time.monotonic()
        return self._known

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Pending]:
        """In messages of some megabytes; the pickles they come with go to each worker once, from worker to worker."""
        group = f"qcascade-{self._name}-{next(self._numbers)}"
        contents = {digest: content for parcel in parcels for digest, content in parcel.contents.items()}
        bare = [replace(parcel, contents={}) for parcel in parcels]
        start = 0
        try:
            bundle = self._bundle(contents) if contents else None
            for count in _messages([parcel.work.size for parcel in parcels]):
                some, keys = bare[start : start + count], [(group, start + place) for place in range(count)]
                if bundle is None:
                    sent = self.client.map(run, some, key=keys, pure=False)
                else:
                    sent = self.client.map(run_with, some, [bundle] * count, key=keys, pure=False)
                start += count
                yield from sent
        except (OSError, RuntimeError, ValueError) as error:
            raise BackendError(f"{self.text} takes no work: {error}.") from error

    def _bundle(self, contents: Mapping[bytes, bytes]) -> Pending:
        """Pickles as something that the cluster computes, so that they are there again after workers died."""
        name = hashlib.blake2b(b"".join(sorted(contents)), digest_size=16).hexdigest()
        with self._lock:
            held = self._contents.get(name)
            if held is None or held.status not in ("pending", "finished"):
                key = (f"qcascade-content-{name}", 0)  # a group of its own
                held = self._contents[name] = self.client.submit(given, pickle.dumps(dict(contents)), key=key)
            return held

    def cancel(self, pending: list[Pending]) -> None:
        """All; what a worker has begun it ends, and its result is dropped."""
        try:
            self.client.cancel(pending, force=True)
        except (OSError, RuntimeError, ValueError):
            return  # the cluster is gone, and the work with it

    def failure(self, error: BaseException) -> BackendError | None:
        """Workers that died again and again with the same parcel, or a scheduler that is gone."""
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            return BackendError(
                f"{error} It may need more memory than a worker has: start workers with more (--memory-limit), or use a smaller "
                "batch or fewer threads a worker."
            )
        if isinstance(error, CancelledError | FutureCancelledError):
            return BackendError(f"{self.text} dropped the work, or the connection to it was lost: {error}.")
        return None

    def renewed(self) -> bool:
        """Dask replaces its workers itself."""
        return False


def pool_of(given: Any, workers: int | None) -> Pool:
    """The pool for a Dask client, a `concurrent.futures.Executor` or a function that makes one.

    Raises:
        ExecutionError: It is none of these.
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise ExecutionError(f"workers={workers!r}; a whole number of at least 1, or None, is accepted.")
    if isinstance(given, Futures):
        return FuturesPool(given, workers)
    if type(given).__module__.split(".")[0] == "distributed" and hasattr(given, "nthreads"):
        return DaskPool(given, workers)
    if callable(given) and not isinstance(given, type):
        return FuturesPool(given, workers)
    raise ExecutionError(
        f"{type(given).__name__} is no pool; a Dask Client, a concurrent.futures.Executor, or a function that makes one, is accepted."
    )


def dask_client(address: str) -> Any:
    """A client of the scheduler at an address.

    Raises:
        ExecutionError: Dask is not installed.
        BackendError: Nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ExecutionError(
            f"DaskExecutor({address!r}) needs Dask, which is not installed: pip install 'qcascade[distributed]'. Without it, any "
            "concurrent.futures.Executor is accepted."
        ) from error
    try:
        return Client(address)
    except (OSError, ValueError) as error:
        raise BackendError(f"no Dask scheduler answers at {address!r}: {error}.") from error


def _messages(sizes: Sequence[int]) -> Iterator[int]:
    """How many parcels go with each message."""
    count = size = 0
    for one in sizes:
        if count and size + one > MESSAGE_BYTES:
            yield count
            count = size = 0
        count, size = count + 1, size + one
    if count:
        yield count


def _broken(pool: Futures) -> bool:
    """As the standard library and loky mark it."""
    flags = getattr(pool, "_flags", None)  # loky's
    return bool(getattr(pool, "_broken", False) or getattr(flags, "broken", None) or getattr(flags, "shutdown", False))
