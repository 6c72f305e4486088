"""Parcels under way: sent, waited for, sent again where the worker lacked something or its pool broke, cancelled."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qcascade.errors import BackendError, ExecutionError
from qcascade.executors.distributed.pools import Pending, Pool
from qcascade.executors.distributed.worker import Missing, Parcel

_RENEWALS = 3  # of a pool that breaks, for one submission


class LateError(Exception):
    """Replies did not come in time."""


class Submission:
    """Parcels that were sent together; their replies in order.

    Args:
        pool: Where they go.
        parcels: What is sent.
        contents: Gives the pickles of digests that a worker lacks.

    Raises:
        BackendError: The pool takes none.
    """

    def __init__(
        self,
        pool: Pool,
        parcels: Sequence[Parcel],
        contents: Callable[[Sequence[bytes]], Mapping[bytes, bytes]],
    ) -> None:
        self._pool, self._contents, self._parcels = pool, contents, list(parcels)
        self._ended: queue.SimpleQueue[Pending] = queue.SimpleQueue()
        self._places: dict[int, int] = {}  # of futures under way, by their id
        self._under_way: dict[int, Pending] = {}
        self._replies: dict[int, Any] = {}
        self._renewals, self._cancelled = 0, False
        self._start()

    def wait(self, seconds: float) -> list[Any]:
        """All replies. After any failure it can be called again: what has not come back is then sent again.

        Raises:
            LateError: They take longer; they stay under way.
            BackendError: The pool gave up, or this was cancelled.
            Exception: The first that a worker raised. Then, as after Ctrl-C, nothing stays under way.
        """
        end = time.monotonic() + seconds
        self._start()
        try:
            while len(self._replies) < len(self._parcels):
                if self._cancelled:
                    raise BackendError(f"this work was cancelled in {self._pool.text}.")
                try:
                    left = min(end - time.monotonic(), threading.TIMEOUT_MAX)
                    future = self._ended.get(timeout=max(0.0, left))
                except queue.Empty:
                    came = f"{len(self._replies)} of {len(self._parcels)} chunks came back"
                    raise LateError(came) from None
                self._take(future)
        except LateError:
            raise
        except BaseException:
            self._drop()
            raise
        return [self._replies[place] for place in range(len(self._parcels))]

    def cancel(self) -> None:
        """Drop what has not come back, for good."""
        self._cancelled = True
        self._drop()

    def _start(self) -> None:
        """Send what is neither there nor under way."""
        places = range(0 if self._cancelled else len(self._parcels))
        try:
            self._send([place for place in places if place not in self._replies and place not in self._under_way])
        except BaseException as error:
            self._drop()
            if (failure := self._pool.failure(error)) is not None:
                raise failure from error
            raise

    def _send(self, places: Sequence[int]) -> None:
        sent = self._pool.send([self._parcels[place] for place in places]) if places else ()
        for place, future in zip(places, sent, strict=True):
            self._places[id(future)], self._under_way[place] = place, future
            future.add_done_callback(self._ended.put)

    def _drop(self) -> None:
        rest, self._under_way, self._places = list(self._under_way.values()), {}, {}
        if rest:
            self._pool.cancel(rest)

    def _take(self, future: Pending) -> None:
        place = self._places.pop(id(future), None)
        if place is None:
            return  # it was dropped
        del self._under_way[place]
        try:
            reply = future.result()
        except ModuleNotFoundError as error:
            raise ExecutionError(
                f"a worker has no module {error.name!r}: install there what is installed here, QCascade first."
            ) from error
        except BaseException as error:
            failure = self._pool.failure(error)
            if failure is None:
                raise
            self._again(failure, error)
            return
        if not isinstance(reply, Missing):
            self._replies[place] = reply
            return
        parcel = self._parcels[place]
        if parcel.contents.keys() >= set(reply.digests):
            raise ExecutionError("the circuits of one chunk are more than a worker keeps; use smaller circuits.")
        contents = {**parcel.contents, **self._contents(reply.digests)}
        self._parcels[place] = replace(parcel, contents=contents)
        self._send([place])

    def _again(self, failure: BackendError, cause: BaseException) -> None:
        """Send all that broke with a pool to one that was made in its place."""
        if self._renewals >= _RENEWALS or not self._pool.renewed():
            raise failure from cause
        self._renewals += 1
        self._under_way, self._places = {}, {}
        self._start()


def late(pool: Pool, error: LateError, seconds: float) -> BackendError:
    """What being late comes to for the caller."""
    try:
        workers = f"{pool.workers()} workers at a time"
    except BackendError:
        workers = "it does not say how many workers there are"
    return BackendError(f"{pool.text} gave no result within {seconds:.3g} s: {error} ({workers}).")
