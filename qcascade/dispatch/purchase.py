"""Buying a submission once: submitted against the record, fetched until it is there, recovered after a process ended.

States and who moves them (`dispatch.journal`):

- "submitting": the record is written, the submission may leave. If the answer is lost, the backend is asked by tag where it
  can be; a submission that did not arrive is sent again, of one that did the handle is written down. Where the backend
  cannot be asked, results of a simulator in this process are simply lost, and cost nothing; for others the policy says.
- "submitted": the handle is written. Fetching is retried; past the deadline the job is cancelled, and sent again if the
  backend confirms that, else left for later.
- "done", "simulated": results are written. "failed", "cancelled": given up, its circuits are free to be submitted again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from qcascade.dispatch.journal import Journal, is_alive, owner
from qcascade.dispatch.policy import Breaker, Policy
from qcascade.dispatch.simulate import simulated
from qcascade.dispatch.wire import encode_counts
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors.base import Executor, Shape, Task, Values

_POLL = 0.05  # seconds between looks at what another process does
_LAST = 1.0  # seconds for results of a job that was cancelled, which may have ended before


class _CancelledError(BackendError):
    """The backend confirmed that a job past its deadline was cancelled."""


@dataclass(eq=False)
class Purchase:
    """One submission of the journal, to be bought; called once."""

    inner: Executor
    journal: Journal
    policy: Policy
    breaker: Breaker
    number: int
    tasks: Sequence[Task]
    shots: int | None
    seeds: Sequence[bytes]
    bytes_out: int  # angles as encoded
    bytes_back: int = 0
    counts: Sequence[Values] = ()  # of every task, when it was called

    @property
    def circuits(self) -> int:
        """Bound circuits."""
        return sum(len(task.angles) for task in self.tasks)

    def __call__(self) -> None:
        """Submit, fetch, write down.

        Raises:
            BackendError: The policy gave up.
        """
        try:
            self._buy()
        except BackendError:
            raise
        except ExecutionError as error:  # the circuits cannot run at all: nothing was sent
            self.journal.release(self.number, "failed", str(error))
            raise
        finally:
            self.journal.rest(self.number)

    def _buy(self) -> None:
        shapes = [task.shape for task in self.tasks]
        last: BackendError | None = None
        for attempt in range(self.policy.retries + 1):
            if attempt:
                time.sleep(self.policy.pause(attempt - 1, random.random()))
            if not self.breaker.passes():
                count = self.breaker.failures
                last = BackendError(f"nothing is sent to {self.inner.method} after {count} failures in a row.")
                break
            try:
                handle = self._submitted()
                counts = fetched(self.inner, self.policy, handle, shapes, time.time(), self.breaker)
            except _CancelledError as error:
                last = error
                self.journal.again(self.number, str(error))
                continue
            except _Paid as error:
                return self._give_up(error, "submitted")
            except _Unknown as error:
                return self._give_up(error, "submitting")
            except BackendError as error:
                last = error
                self.journal.noted(self.number, str(error))
                continue
            self.breaker.worked()
            return self._write(counts, "done", "")
        assert last is not None
        return self._give_up(last, "failed")

    def _submitted(self) -> str:
        """The handle, written down."""
        try:
            tag = self.journal.record(self.number).tag
            handle: str | None = self.inner.submit(self.tasks, self.shots, tag=tag, seeds=self.seeds)
        except BackendError as error:
            self.breaker.failed()
            handle = found(self.inner, self.policy, tag, str(error))
            if handle is None:
                raise
        assert handle is not None
        self.journal.submitted(self.number, handle)
        return handle

    def _give_up(self, error: BackendError, state: str) -> None:
        """Simulate, or raise and leave the record in a state from which it can go on."""
        if self.policy.fallback == "simulate":
            rest, counts = list(self.seeds), []
            for task in self.tasks:
                some, rest = rest[: len(task.angles)], rest[len(task.angles) :]
                counts.append(simulated(task, self.shots, some))
            return self._write(counts, "simulated", str(error))
        if state == "failed":
            self.journal.release(self.number, "failed", str(error))
            raise BackendError(f"{error} Nothing of it is owed; run again to try again.", error.handles) from error
        self.journal.noted(self.number, str(error))
        raise BackendError(
            f"{error} Submission {self.number} of the journal stays as {state!r}: run again to go on with it, or `qcascade jobs "
            f"cancel {self.number}` to give it up.",
            error.handles,
            error.results,
        ) from error

    def _write(self, counts: Sequence[Values], state: str, note: str) -> None:
        result = encode_counts(counts)
        self.bytes_back = len(result)
        _write(self.journal, self.number, counts, result, self.shots, state, note)
        self.counts = counts


class _Paid(BackendError):  # noqa: N818
    """Results that were bought cannot be had now."""


class _Unknown(BackendError):  # noqa: N818
    """It is not known whether a submission arrived."""


def _write(
    journal: Journal,
    number: int,
    counts: Sequence[Values],
    result: bytes,
    shots: int | None,
    state: str = "done",
    note: str = "",
) -> None:
    taken = None if shots is None else min((int(table.sum(1).min()) for table in counts if len(table)), default=shots)
    if taken is not None and shots is not None and taken < shots and not note:
        note = f"as few as {taken} of {shots} shots came back"
    if not journal.done(number, result, taken, state=state, note=note):
        raise ExecutionError(
            f"submission {number} was cancelled in the journal; run again to submit its circuits again."
        )


def found(inner: Executor, policy: Policy, tag: str, why: str) -> str | None:
    """The handle of a submission whose answer was lost; None where it did not arrive.

    Raises:
        BackendError: That cannot be known, and the policy is to stop.
    """
    if not inner.findable:
        if not inner.persistent or policy.uncertain == "resubmit":
            return None
        raise _Unknown(
            f"{why.rstrip('.')}. Whether the submission arrived cannot be asked of {inner.method}; Policy(uncertain='resubmit') "
            "would submit it again, and may pay twice."
        )
    for attempt in range(policy.retries + 1):
        try:
            return inner.find(tag)
        except BackendError as error:
            if attempt == policy.retries:
                raise _Unknown(f"{error} It is not known whether the submission {tag} arrived.") from error
            time.sleep(policy.pause(attempt, random.random()))
    raise AssertionError


def fetched(
    inner: Executor,
    policy: Policy,
    handle: str,
    shapes: Sequence[Shape],
    since: float,
    breaker: Breaker | None = None,
) -> list[Values]:
    """Results of a submission, `since` seconds since 1970; retried, and cancelled past the deadline.

    Raises:
        BackendError: They cannot be had: it was cancelled, or stays as it is.
    """
    for attempt in range(policy.retries + 1):
        left = since + policy.deadline - time.time()
        try:
            return inner.fetch(handle, shapes, seconds=max(left, _LAST if attempt == 0 else 0.05))
        except BackendError as error:
            if breaker is not None:
                breaker.failed()
            if time.time() >= since + policy.deadline:
                return _overdue(inner, policy, handle, shapes, error)
            if attempt == policy.retries:
                raise _Paid(str(error), error.handles, error.results) from error
            time.sleep(policy.pause(attempt, random.random()))
    raise AssertionError


def _overdue(
    inner: Executor, policy: Policy, handle: str, shapes: Sequence[Shape], error: BackendError
) -> list[Values]:
    try:
        cancelled = inner.cancel(handle)
    except ExecutionError as refused:
        raise _Paid(f"{error} It could not be cancelled: {refused}", error.handles, error.results) from refused
    try:
        return inner.fetch(handle, shapes, seconds=_LAST)
    except BackendError:
        if not cancelled:
            raise _Paid(f"{error} The backend did not confirm that it was cancelled.", error.handles) from error
        raise _CancelledError(
            f"a job of {inner.method} was cancelled after its deadline of {policy.deadline:g} s.", error.handles
        ) from error


def recover(inner: Executor, journal: Journal, policy: Policy, number: int) -> None:
    """Wait until a submission of someone else is open no more; where its process is gone, go on with it.

    Raises:
        BackendError: What was bought cannot be had now, or it is not known whether anything was.
    """
    while True:
        record = journal.get(number)
        if record is None or not record.open:
            return
        ours = record.owner == owner()
        if journal.is_working(number) if ours else is_alive(record.owner):
            journal.wait(_POLL)
            continue
        if not journal.adopt(record):
            continue
        try:
            handle = record.handle
            if record.state == "submitting":
                handle = found(inner, policy, record.tag, "its process ended while it was being submitted")
                if handle is not None:
                    journal.submitted(number, handle)
            if handle is None:
                journal.release(number, "failed", "it had not arrived when its process ended")
            elif not inner.persistent and not ours:
                journal.release(number, "failed", "its results went with the process that simulated it")
            else:
                _resume(inner, journal, policy, number, handle)
        finally:
            journal.rest(number)


def _resume(inner: Executor, journal: Journal, policy: Policy, number: int, handle: str) -> None:
    record = journal.record(number)
    try:
        counts = fetched(inner, policy, handle, record.shapes, record.changed)
    except _CancelledError as error:
        journal.release(number, "failed", str(error))
    except BackendError as error:
        if inner.persistent:
            journal.noted(number, str(error))
            raise
        journal.release(number, "failed", str(error))
    else:
        _write(journal, number, counts, encode_counts(counts), record.shots)
