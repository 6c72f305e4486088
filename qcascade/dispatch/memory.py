"""A journal that lives as long as its object: what `Journal` does, in dictionaries, for dispatchers without a path.

It belongs to one process, so that no submission in it is ever adopted from another, and a simulator's results cost no
transactions.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcascade.dispatch.journal import OPEN, STATES, Intent, Journal, Record, Spent, new_tag, owner

_PLACES = 2**32  # of a submission


class MemoryJournal(Journal):
    """A journal in memory.

    Example:
        >>> MemoryJournal().records()
        []
    """

    def __init__(self) -> None:
        self.path = None
        self.changed = threading.Condition()
        self._lock = threading.RLock()
        self._owner = owner()
        self._records: dict[int, Record] = {}
        self._intents: dict[int, Intent] = {}
        self._found: dict[bytes, int] = {}  # submission · _PLACES + place: small objects, since each circuit has one
        self._given: dict[int, bytes] = {}
        self._working: set[int] = set()
        self._last = 0
        self._before = Spent()  # on what was forgotten, so that budgets hold for good

    def __len__(self) -> int:
        """Submissions in it."""
        return len(self._records)

    def claim(
        self, keys: Sequence[bytes], plan: Callable[[list[bytes]], list[Intent]], check: Callable[[Spent], None] | None
    ) -> tuple[NDArray[np.int64], list[int]]:
        """As `Journal.claim`: all of the new submissions or, where planning or the check raises, none."""
        with self._lock:
            none = self._found.keys().isdisjoint(keys)
            missing = list(keys) if none else [key for key in keys if key not in self._found]
            intents = plan(missing) if missing else []
            numbers = [self._last + 1 + place for place in range(len(intents))]
            made = {number: self._made(number, intent) for number, intent in zip(numbers, intents, strict=True)}
            if made and check is not None:
                check(self._spent(list(made.values())))
            for number, intent in zip(numbers, intents, strict=True):
                self._found.update(zip(intent.keys, itertools.count(number * _PLACES), strict=False))
                self._intents[number] = intent
            self._records.update(made)
            self._working.update(numbers)
            self._last += len(numbers)
            where = np.fromiter(map(self._found.get, keys, itertools.repeat(-1)), np.int64, len(keys))
        return np.stack([where // _PLACES, np.where(where < 0, -1, where % _PLACES)], 1), numbers

    def done(self, number: int, result: bytes, taken: int | None, *, state: str = "done", note: str = "") -> bool:
        """As `Journal.done`."""
        with self._lock:
            record = self._records.get(number)
            if record is None:
                return False
            changed = record.open
            self._given[number] = result
            self._set(number, state=state if changed else record.state, taken=taken, note=note[:2000])
        return changed

    def submitted(self, number: int, handle: str) -> None:
        """As `Journal.submitted`."""
        self._set(number, state="submitted", handle=handle)

    def noted(self, number: int, note: str) -> None:
        """As `Journal.noted`."""
        self._set(number, note=note[:2000])

    def again(self, number: int, note: str) -> None:
        """As `Journal.again`."""
        self._set(number, state="submitting", handle=None, tag=new_tag(), note=note[:2000])

    def rest(self, number: int) -> None:
        """As `Journal.rest`."""
        self._working.discard(number)
        self._tell()

    def is_working(self, number: int) -> bool:
        """As `Journal.is_working`."""
        return number in self._working

    def release(self, number: int, state: str, note: str) -> bool:
        """As `Journal.release`."""
        with self._lock:
            record = self._records.get(number)
            if record is None or not record.open:
                return False
            self._forget(number)
            self._set(number, state=state, note=note[:2000])
        return True

    def adopt(self, record: Record) -> bool:
        """As `Journal.adopt`: a thread goes on with what another one of this process left open."""
        with self._lock:
            now = self._records.get(record.number)
            if self.is_working(record.number) or now is None or now.state != record.state:
                return False
            self._working.add(record.number)
        return True

    def get(self, number: int) -> Record | None:
        """As `Journal.get`."""
        return self._records.get(number)

    def records(self, states: Sequence[str] = STATES) -> list[Record]:
        """As `Journal.records`."""
        with self._lock:
            return [record for _, record in sorted(self._records.items()) if record.state in states]

    def result(self, number: int) -> bytes | None:
        """As `Journal.result`."""
        with self._lock:
            record = self._records.get(number)
            return self._given[number] if record is not None and record.state in ("done", "simulated") else None

    def spent(self) -> Spent:
        """As `Journal.spent`."""
        with self._lock:
            return self._spent()

    def prune(self, *, before: float | None = None, keep: int | None = None) -> int:
        """As `Journal.prune`."""
        with self._lock:
            chosen = [
                number
                for number, record in sorted(self._records.items(), reverse=True)
                if record.state not in OPEN and (before is None or record.changed < before)
            ][keep or 0 :]
            if not chosen:
                return 0
            total = self._spent()
            for number in chosen:
                self._forget(number)
                del self._records[number]
                self._intents.pop(number)
                self._given.pop(number, None)
            self._before = Spent()
            left = self._spent()
            self._before = Spent(total.jobs - left.jobs, total.shots - left.shots, total.price - left.price)
        return len(chosen)

    def close(self) -> None:
        """There is nothing to close."""

    def _made(self, number: int, intent: Intent) -> Record:
        now = time.time()
        return Record(
            number, new_tag(), "submitting", intent.executor, self._owner, None, intent.shots, len(intent.keys),
            intent.price, now, now, intent.shapes, None, "",
        )  # fmt: skip

    def _spent(self, more: Sequence[Record] = ()) -> Spent:
        paid = [r for r in (*self._records.values(), *more) if r.handle is not None or r.state == "submitting"]
        return Spent(
            self._before.jobs + len(paid),
            self._before.shots + sum((r.shots or 0) * r.circuits for r in paid),
            self._before.price + sum(r.price or 0.0 for r in paid),
        )

    def _forget(self, number: int) -> None:
        """Keys of a submission, unless it was given up, so that they were forgotten then, and may be another's now."""
        if self._records[number].state in ("failed", "cancelled"):
            return
        deque(map(self._found.pop, self._intents[number].keys, itertools.repeat(None)), 0)

    def _set(self, number: int, *_: Any, **values: Any) -> None:
        with self._lock:
            if number in self._records:
                self._records[number] = replace(self._records[number], **values, changed=time.time())
        self._tell()
