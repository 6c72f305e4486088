"""The journal: which circuits were submitted, under which handle, and what came back; SQLite in WAL mode.

What comes in: keys of circuits (16 bytes: executor, shots, circuit, angles) and what a submission is made of. What goes
out: where each key's result is, or who owes it. A submission's record is written before it leaves ("submitting"), when its
handle is known ("submitted") and when its results are ("done"), each in one transaction, so that a process may be killed at
any moment and several may share a journal. SQLite's WAL needs one machine: a journal does not work on a network drive.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import psutil
from numpy.typing import NDArray

from qcascade.errors import ExecutionError
from qcascade.executors.base import Shape

STATES = ("submitting", "submitted", "done", "simulated", "failed", "cancelled")
OPEN = ("submitting", "submitted")
_VERSION = 1
_SCHEMA = """
CREATE TABLE submissions (
    id INTEGER PRIMARY KEY, tag TEXT NOT NULL UNIQUE, state TEXT NOT NULL, executor TEXT NOT NULL, owner TEXT NOT NULL,
    handle TEXT, shots INTEGER, circuits INTEGER NOT NULL, price REAL, created REAL NOT NULL, changed REAL NOT NULL,
    shapes TEXT NOT NULL, request BLOB NOT NULL, result BLOB, taken INTEGER, note TEXT NOT NULL DEFAULT '');
CREATE INDEX states ON submissions (state);
CREATE TABLE circuits (key BLOB PRIMARY KEY, submission INTEGER NOT NULL, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX places ON circuits (submission);
"""
_PRUNED = """
CREATE TABLE IF NOT EXISTS pruned (
    one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL, jobs INTEGER NOT NULL, shots INTEGER NOT NULL,
    price REAL NOT NULL);
INSERT OR IGNORE INTO pruned VALUES (1, 0, 0, 0, 0);
"""  # of what was forgotten: the last number, and what was spent; journals of older versions get it when they are opened
_COLUMNS = "id, tag, state, executor, owner, handle, shots, circuits, price, created, changed, shapes, taken, note"
_PAID = "(handle IS NOT NULL OR state='submitting')"  # or may have been
_OPENING = 100  # times that opening is tried while others open the file too
_ASKED = 500  # keys of one query
_WORKING: set[tuple[str, int]] = set()  # journals and submissions that threads of this process are at work on


@dataclass(frozen=True, slots=True)
class Intent:
    """A submission that is about to leave: its keys in the order of its circuits."""

    keys: tuple[bytes, ...]
    executor: str
    shots: int | None
    price: float | None
    shapes: tuple[Shape, ...]
    request: bytes  # the angles (`wire.encode_angles`)


@dataclass(frozen=True, slots=True)
class Record:
    """A submission as the journal has it; times are seconds since 1970."""

    number: int
    tag: str
    state: str
    executor: str
    owner: str
    handle: str | None
    shots: int | None
    circuits: int
    price: float | None
    created: float
    changed: float
    shapes: tuple[Shape, ...]
    taken: int | None  # fewest shots that a circuit got
    note: str

    @property
    def open(self) -> bool:
        """Whether results are still to come."""
        return self.state in OPEN


@dataclass(frozen=True, slots=True)
class Spent:
    """What all submissions of a journal that were or may have been paid for come to."""

    jobs: int = 0
    shots: int = 0
    price: float = 0.0


def default_path() -> Path:
    """The user's journal."""
    return Path(platformdirs.user_state_dir("qcascade")) / "journal.sqlite"


class Journal:
    """A journal.

    Args:
        path: Its file, made where there is none. A journal in memory is a `memory.MemoryJournal`.

    Raises:
        ExecutionError: The file cannot be opened, or is none of ours.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Journal(Path(folder) / "journal.sqlite").records()
        []
    """

    path: Path | None

    def __init__(self, path: str | Path) -> None:
        self.path = file = Path(path).absolute()
        self._lock = threading.RLock()
        self._name = str(file)
        self.changed = threading.Condition()  # notified when this process changes something
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
            self._in_wal_mode()
            self._database.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                (version,) = self._database.execute("PRAGMA user_version").fetchone()
                tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if version == 0 and tables == 0:
                    for statement in _SCHEMA.split(";"):
                        self._database.execute(statement)
                    self._database.execute(f"PRAGMA user_version={_VERSION}")
                elif version != _VERSION:
                    raise ExecutionError(
                        f"journal={str(self.path)!r} has version {version} of its tables; version {_VERSION} is known here. "
                        "Give another path."
                    )
                for statement in _PRUNED.split(";"):
                    self._database.execute(statement)
        except (sqlite3.Error, OSError) as error:
            raise ExecutionError(f"journal={str(self.path)!r} cannot be opened: {error}. Give another path.") from error

    def _in_wal_mode(self) -> None:
        """SQLite does not wait for others that open a new file at the same time."""
        for attempt in range(_OPENING + 1):
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if attempt == _OPENING:
                    raise
                time.sleep(0.05)
            else:
                return

    def claim(
        self, keys: Sequence[bytes], plan: Callable[[list[bytes]], list[Intent]], check: Callable[[Spent], None] | None
    ) -> tuple[NDArray[np.int64], list[int]]:
        """Find keys, and take on those that nobody has, in one transaction.

        Args:
            keys: All different.
            plan: Makes submissions of the keys that are missing.
            check: Is given what was spent, those submissions included; raises where that is too much. None: no limit.

        Returns:
            Submission and place of every key [N, 2], −1 where no submission has it, and the new submissions.
        """
        with self._transaction():
            found = self._find(keys)
            missing = [key for key in keys if key not in found]
            new: list[int] = []
            for intent in plan(missing) if missing else ():
                number = self._insert(intent)
                new.append(number)
                _WORKING.add((self._name, number))
                found.update((key, (number, place)) for place, key in enumerate(intent.keys))
            if new and check is not None:
                try:
                    check(self._spent())
                except BaseException:
                    _WORKING.difference_update((self._name, number) for number in new)
                    raise
        pairs = itertools.chain.from_iterable(map(found.get, keys, itertools.repeat((-1, -1))))
        return np.fromiter(pairs, np.int64, 2 * len(keys)).reshape(-1, 2), new

    def submitted(self, number: int, handle: str) -> None:
        """Write down a handle."""
        self._set(number, "state='submitted', handle=?", handle)

    def noted(self, number: int, note: str) -> None:
        """Write down what went wrong; the state stays."""
        self._set(number, "note=?", note[:2000])

    def again(self, number: int, note: str) -> None:
        """Ready to be submitted again, under another tag."""
        self._set(number, "state='submitting', handle=NULL, tag=?, note=?", new_tag(), note[:2000])

    def done(self, number: int, result: bytes, taken: int | None, *, state: str = "done", note: str = "") -> bool:
        """Write down results (`wire.encode_counts`). False where it was given up meanwhile; they are kept all the same."""
        with self._transaction():
            where = "WHERE id=? AND state IN ('submitting','submitted')"
            values = (result, taken, note[:2000], time.time(), number)
            changed = self._database.execute(
                f"UPDATE submissions SET state=?, result=?, taken=?, note=?, changed=? {where}", (state, *values)
            ).rowcount
            if not changed:
                self._database.execute("UPDATE submissions SET result=?, taken=?, note=?, changed=? WHERE id=?", values)
        self._tell()
        return bool(changed)

    def rest(self, number: int) -> None:
        """This process no longer works on a submission that it claimed or adopted."""
        _WORKING.discard((self._name, number))
        self._tell()

    def is_working(self, number: int) -> bool:
        """Whether this process works on a submission."""
        return (self._name, number) in _WORKING

    def release(self, number: int, state: str, note: str) -> bool:
        """Give up an open submission: its circuits may be submitted again. False where it was open no more."""
        with self._transaction():
            changed = self._database.execute(
                "UPDATE submissions SET state=?, note=?, changed=? WHERE id=? AND state IN ('submitting','submitted')",
                (state, note[:2000], time.time(), number),
            ).rowcount
            if changed:
                self._database.execute("DELETE FROM circuits WHERE submission=?", (number,))
        self._tell()
        return bool(changed)

    def adopt(self, record: Record) -> bool:
        """Take over the submission of a process that is gone. False where another was quicker."""
        with self._transaction():
            if self.is_working(record.number):
                return False
            changed = self._database.execute(
                "UPDATE submissions SET owner=? WHERE id=? AND owner=? AND state=?",
                (owner(), record.number, record.owner, record.state),
            ).rowcount
            if changed:
                _WORKING.add((self._name, record.number))
        return bool(changed)

    def record(self, number: int) -> Record:
        """One submission.

        Raises:
            ExecutionError: There is none of that number.
        """
        found = self.get(number)
        if found is None:
            raise ExecutionError(f"the journal has no submission {number}; `qcascade jobs list` shows what it has.")
        return found

    def get(self, number: int) -> Record | None:
        """One submission; None where there is none, or no longer."""
        if abs(number) >= 2**63:  # SQLite has no such numbers
            return None
        with self._lock:
            row = self._database.execute(f"SELECT {_COLUMNS} FROM submissions WHERE id=?", (number,)).fetchone()
        return None if row is None else _record(row)

    def records(self, states: Sequence[str] = STATES) -> list[Record]:
        """All submissions in these states, oldest first."""
        marks = ",".join("?" * len(states))
        with self._lock:
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM submissions WHERE state IN ({marks}) ORDER BY id", tuple(states)
            ).fetchall()
        return [_record(row) for row in rows]

    def result(self, number: int) -> bytes | None:
        """Results of a submission (`wire.encode_counts`); None where it has none, or was given up or forgotten."""
        with self._lock:
            row = self._database.execute(
                "SELECT result FROM submissions WHERE id=? AND state IN ('done','simulated')", (number,)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def spent(self) -> Spent:
        """What was bought."""
        with self._lock:
            return self._spent()

    def prune(self, *, before: float | None = None, keep: int | None = None) -> int:
        """Forget submissions that are not open: those last changed before a time, or all but the newest `keep`.

        What was spent on them still counts, so that budgets hold for good, and their numbers are not given again: others may have
        results under these.
        """
        with self._transaction():
            chosen = "SELECT id FROM submissions WHERE state NOT IN ('submitting','submitted')"
            values: tuple[float, ...] = ()
            if before is not None:
                chosen, values = chosen + " AND changed < ?", (before,)
            if keep is not None:
                chosen, values = chosen + " ORDER BY id DESC LIMIT -1 OFFSET ?", (*values, keep)
            numbers = [row[0] for row in self._database.execute(chosen, values)]
            for number in numbers:
                spent = self._sums("WHERE id=? AND " + _PAID, (number,))
                self._database.execute(
                    "UPDATE pruned SET last=max(last, ?), jobs=jobs+?, shots=shots+?, price=price+?", (number, *spent)
                )
                self._database.execute("DELETE FROM circuits WHERE submission=?", (number,))
                self._database.execute("DELETE FROM submissions WHERE id=?", (number,))
        return len(numbers)

    def wait(self, seconds: float) -> None:
        """Until this process changes something, or so many seconds."""
        with self.changed:
            self.changed.wait(seconds)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _find(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
        found: dict[bytes, tuple[int, int]] = {}
        for start in range(0, len(keys), _ASKED):
            some = keys[start : start + _ASKED]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, submission, place FROM circuits WHERE key IN ({marks})"
            found.update((key, (number, place)) for key, number, place in self._database.execute(query, some))
        return found

    def _insert(self, intent: Intent) -> int:
        now = time.time()
        number = self._database.execute(
            "INSERT INTO submissions (id, tag, state, executor, owner, shots, circuits, price, created, changed, shapes, request)"
            " SELECT max(coalesce((SELECT max(id) FROM submissions), 0), last) + 1, ?, 'submitting', ?, ?, ?, ?, ?, ?, ?, ?, ?"
            " FROM pruned",
            (new_tag(), intent.executor, owner(), intent.shots, len(intent.keys), intent.price,
             now, now, json.dumps(intent.shapes), intent.request),
        ).lastrowid  # fmt: skip
        assert number is not None
        rows = ((key, number, place) for place, key in enumerate(intent.keys))
        self._database.executemany("INSERT INTO circuits VALUES (?, ?, ?)", rows)
        return number

    def _spent(self) -> Spent:
        now, before = self._sums("WHERE " + _PAID), self._database.execute("SELECT jobs, shots, price FROM pruned")
        return Spent(*map(sum, zip(now, before.fetchone(), strict=True)))

    def _sums(self, where: str, values: tuple[Any, ...] = ()) -> tuple[int, int, float]:
        """Submissions, shots and price of some."""
        query = "SELECT count(*), coalesce(sum(shots * circuits), 0), coalesce(sum(price), 0) FROM submissions "
        jobs, shots, price = self._database.execute(query + where, values).fetchone()
        return jobs, shots, price

    def _set(self, number: int, what: str, *values: Any) -> None:
        with self._transaction():
            self._database.execute(
                f"UPDATE submissions SET {what}, changed=? WHERE id=?", (*values, time.time(), number)
            )
        self._tell()

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def new_tag() -> str:
    """A name for a submission that no other has."""
    return f"qcascade-{os.urandom(8).hex()}"


def owner() -> str:
    """This process, told apart from an earlier one with its number."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_alive(name: str) -> bool:
    """Whether an owner may still be at work; on another machine it may."""
    host, pid, started = name.rsplit(":", 2)
    return host != socket.gethostname() or _started(int(pid)) == started


def _started(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return "gone" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return "gone"


def _record(row: tuple[Any, ...]) -> Record:
    values = list(row)
    values[11] = tuple((int(rows), int(bits)) for rows, bits in json.loads(row[11]))
    return Record(*values)
