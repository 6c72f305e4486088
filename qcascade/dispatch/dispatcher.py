"""The dispatcher: between whatever runs circuits and an executor, it sends each circuit once, and remembers.

What comes in: jobs. What goes out: the same estimates that the executor gives. Every binding of a circuit has a key, its
content: executor, shots, circuit, angles. Bindings with one key are run once; those that the journal knows are not run at
all; the others leave in as few submissions as the executor allows, all at once, under the rules of a `Policy`
(`dispatch.purchase`).

An executor that samples itself is given a seed for every binding, made of its own seed, the circuit and the angles rounded
to 2^-26 rad. So samples do not depend on how circuits are grouped or on what ran before, and a difference in the last
bits of a double, as torch's sums over other numbers of rows have, does not change them either.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcascade.dispatch.content import Words, as_bytes, distinct, names
from qcascade.dispatch.journal import Intent, Journal, Spent, default_path
from qcascade.dispatch.memory import MemoryJournal
from qcascade.dispatch.policy import Breaker, Policy
from qcascade.dispatch.price import price
from qcascade.dispatch.purchase import Purchase, recover
from qcascade.dispatch.rotation import waiting
from qcascade.dispatch.simulate import simulated
from qcascade.dispatch.wire import Block, counts_limit, decode_counts, encode_angles
from qcascade.errors import ExecutionError
from qcascade.executors.base import Estimate, Executor, Job, Log, Task, Values, split
from qcascade.executors.delegating import DelegatingExecutor
from qcascade.executors.sampling import draw_signs, words

_KEPT = 64  # submissions that a journal in memory keeps
_DECODED = 2**28  # bytes of results kept decoded
_TABLES = 2**29  # bytes of a submission's results where it has several circuits: SQLite takes no billion
_LARGEST = 2**34  # bytes of a submission's results that are decoded, whatever the journal says that they are
_TOGETHER = 16  # submissions under way at a time


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """Circuits to have the results of: `keys`, all different, and where each is among all rows of the tasks."""

    keys: list[bytes]
    rows: NDArray[np.int64]
    tasks: Sequence[Task]
    shots: int | None


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    """Submission and place of keys [N, 2], and those of the submissions that are to be bought here."""

    where: NDArray[np.int64]
    bought: list[Purchase]

    @property
    def numbers(self) -> list[int]:
        """All submissions, ascending."""
        return sorted(set(self.where[:, 0].tolist()))


class DispatchedExecutor(DelegatingExecutor):
    """An executor that sends each circuit once and remembers what it sent.

    Args:
        inner: What runs circuits.
        journal: A path, a `Journal`, True for the user's own (`qcascade jobs`), or None for one in memory.
        policy: Deadline, retries, fall-back, budgets.
        microbatches: Parts that a hybrid's batches are run in; see `HybridModule.use`.
        gradients_ahead: Whether a hybrid in training sends the circuits of its backward pass with those of the forward
            pass: half the round trips, but paid for even where no backward pass follows. True: in the same submission;
            "apart": in one of their own right behind it, so that the forward pass does not wait until they have run;
            None: "apart" where there are micro-batches, else True.

    Raises:
        ExecutionError: An argument is not usable.

    Example:
        >>> from qcascade.executors import ShotsExecutor
        >>> DispatchedExecutor(ShotsExecutor(100, seed=0)).shots
        100
    """

    name = "dispatched"

    def __init__(
        self,
        inner: Executor,
        *,
        journal: str | Path | Journal | bool | None = None,
        policy: Policy | None = None,
        microbatches: int = 1,
        gradients_ahead: bool | str | None = None,
    ) -> None:
        if not isinstance(inner, Executor) or isinstance(inner, DispatchedExecutor):
            raise ExecutionError(f"{type(inner).__name__} cannot be dispatched; give an Executor that is not yet.")
        if not isinstance(microbatches, int) or isinstance(microbatches, bool) or microbatches < 1:
            raise ExecutionError(f"microbatches={microbatches!r}; a whole number of at least 1 is accepted.")
        if policy is not None and not isinstance(policy, Policy):
            raise ExecutionError(f"policy={policy!r}; a qcascade.Policy is accepted.")
        if gradients_ahead not in (True, False, None, "apart"):
            raise ExecutionError(f"gradients_ahead={gradients_ahead!r}; True, False, 'apart' or None is accepted.")
        super().__init__(inner)
        self.policy, self.microbatches = policy or Policy(), microbatches
        self.ahead = gradients_ahead is not False
        self.apart = gradients_ahead == "apart" or (gradients_ahead is None and microbatches > 1)
        self.journal = _journal(journal)
        self.breaker = Breaker(self.policy.breaker, self.policy.cooldown)
        self._secret = os.urandom(16) if inner.seed is None else str(inner.seed).encode()
        self._results: OrderedDict[int, Sequence[Values]] = OrderedDict()  # tables by submission
        self._kept = 0  # bytes of them
        self._sent: set[bytes] = set()  # circuits of which the other side has the text
        self._lock = threading.Lock()

    def start(self, jobs: Sequence[Job], *, purpose: str = "values") -> Future[list[Estimate]]:
        """Run jobs without waiting for them: what is to be sent is decided here, sent and fetched by a thread.

        Example:
            >>> from qcascade.executors import ShotsExecutor
            >>> DispatchedExecutor(ShotsExecutor(10)).start([]).result()
            []
        """
        future: Future[list[Estimate]] = Future()
        log, start = Log(shots=self.shots), time.perf_counter()
        try:
            self._check(jobs)
            finish = self._begun(jobs, log)
        except BaseException as error:
            future.set_exception(error)
            return future

        def work() -> None:
            try:
                found = finish()
                future.set_result(self._recorded(found, log, purpose, start, time.perf_counter() - start))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name="qcascade-jobs", daemon=True).start()
        return future

    def run_ahead(self, job: Job, later: Callable[[], Job]) -> tuple[Estimate, Callable[[], Estimate]]:
        """As `Executor.run_ahead`; where gradients go apart, the first estimate does not wait for the second job."""
        if not self.apart:
            return super().run_ahead(job, later)
        now = self.start([job])
        with waiting():  # circuits of a forward pass leave first, those of all parts
            pass
        behind = self.start([later()], purpose="gradients")
        with waiting():
            (estimate,) = now.result()

        def ends() -> Estimate:
            with waiting():
                return behind.result()[0]

        return estimate, ends

    def _run(self, jobs: Sequence[Job], log: Log) -> list[tuple[Values, Values]]:
        return self._begun(jobs, log)()

    def _begun(self, jobs: Sequence[Job], log: Log) -> Callable[[], list[tuple[Values, Values]]]:
        """What is to be sent, decided and written down; calling the result sends it and waits."""
        tasks = self.inner.tasks(jobs, log, self.counted)
        counts = self._asked(tasks, self.shots, log)
        return lambda: self.inner.estimates(jobs, counts(), log)

    def counted(self, tasks: Sequence[Task], shots: int | None, log: Log) -> list[Values]:
        """Counts [N, 2^bits] of every task: from the journal, from others that run the same, or bought."""
        return self._asked(tasks, shots, log)()

    def _asked(self, tasks: Sequence[Task], shots: int | None, log: Log) -> Callable[[], list[Values]]:
        sizes = [len(task.angles) for task in tasks]
        if not sum(sizes):
            return lambda: [np.empty((0, 2**task.bits)) for task in tasks]
        named = np.concatenate([self._names(task, shots) for task in tasks])
        first, which = distinct(named)
        log.reused += len(named)
        wanted = _Wanted(as_bytes(named[first]), first, tasks, shots)
        claim = self._claim(wanted, log)

        def finish() -> list[Values]:
            numbers, places, results, instead = self._obtained(wanted, claim, log)
            numbers, places = numbers[which], places[which]
            if instead:
                log.simulated += int(np.isin(numbers, list(instead)).sum())
            (tables, *others), found, start = results.values(), list[Values](), 0
            if (
                not others
                and [len(table) for table in tables] == sizes
                and np.array_equal(places, np.arange(len(places)))
            ):
                pairs = zip(tasks, tables, strict=True)  # one submission has all, in their order, as where all are new
                return [self._enough(task, table.copy(), shots, log) for task, table in pairs]
            for task, size in zip(tasks, sizes, strict=True):
                table, own = np.empty((size, 2**task.bits)), slice(start, start + size)
                for number in set(numbers[own].tolist()):
                    _fill(table, numbers[own] == number, places[own], results[number])
                found.append(self._enough(task, table, shots, log))
                start += size
            return found

        return finish

    def signs(self, angles: Values, samples: int, moved: int) -> Values:
        """±1 [samples, N, moved], a function of the seed and the angles."""
        found = np.empty((samples, len(angles), moved))
        draw_signs(words(as_bytes(names(b"signs", _rounded(angles), secret=self._secret))), found)
        return found

    def _claim(self, wanted: _Wanted, log: Log, asked: NDArray[np.int64] | None = None) -> _Claim:
        """Who has, or buys, the results of all keys, or of those at some places.

        Raises:
            ExecutionError: The budget does not allow it; nothing is claimed then.
        """
        keys = wanted.keys if asked is None else [wanted.keys[one] for one in asked.tolist()]
        made: list[tuple[list[Task], Intent]] = []

        def plan(missing: list[bytes]) -> list[Intent]:
            if len(missing) == len(wanted.keys):
                chosen = np.arange(len(missing))
            else:
                place = dict(zip(wanted.keys, itertools.count(), strict=False))
                chosen = np.fromiter(map(place.__getitem__, missing), np.int64, len(missing))
            some, order = _some(wanted.tasks, wanted.rows, chosen)
            made.extend(self._intents(some, [wanted.keys[one] for one in order.tolist()], wanted.shots))
            return [intent for _, intent in made]

        where, new = self.journal.claim(keys, plan, self._check_budget if self.policy.limited else None)
        try:
            bought = [
                self._purchase(number, some, wanted.shots, len(intent.request))
                for number, (some, intent) in zip(new, made, strict=True)
            ]
        except BaseException:
            for number in new:
                self.journal.rest(number)
            raise
        log.submissions += len(bought)
        log.reused -= sum(purchase.circuits for purchase in bought)
        log.bytes_out += sum(purchase.bytes_out for purchase in bought)
        return _Claim(where, bought)

    def _obtained(
        self, wanted: _Wanted, claim: _Claim, log: Log
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[int, Sequence[Values]], set[int]]:
        """Submission and place in it of every key, the submissions' results, and those that were simulated here.

        What was given up is claimed again.
        """
        numbers, places = np.full(len(wanted.keys), -1), np.zeros(len(wanted.keys), np.int64)
        results: dict[int, Sequence[Values]] = {}
        instead: set[int] = set()
        asked = np.arange(len(wanted.keys))
        while True:
            self._waited(claim, log)
            for number in claim.numbers:
                own, found = claim.where[:, 0] == number, self._tables(number)
                if found is not None:
                    results[number] = found
                    numbers[asked[own]], places[asked[own]] = number, claim.where[own, 1]
                record = self.journal.get(number)
                if record is not None and record.state == "simulated":
                    instead.add(number)
                    log.notes.append(f"simulated in place of {self.inner.method}: {record.note}")
            asked = np.flatnonzero(numbers < 0)
            if not len(asked):
                break
            claim = self._claim(wanted, log, asked)
        if isinstance(self.journal, MemoryJournal) and len(self.journal) > 2 * _KEPT:
            self.journal.prune(keep=_KEPT)
        return numbers, places, results, instead

    def _waited(self, claim: _Claim, log: Log) -> None:
        """Until all that was claimed is there: bought here, or by others."""
        started, new = time.monotonic(), {purchase.number for purchase in claim.bought}
        with waiting():
            _all(claim.bought)
            for number in claim.numbers:
                if number not in new:
                    recover(self.inner, self.journal, self.policy, number)
        log.waiting += time.monotonic() - started
        for purchase in claim.bought:
            log.bytes_back += purchase.bytes_back
            log.took(purchase.counts, purchase.shots)
            self._keep(purchase.number, purchase.counts)

    def _keep(self, number: int, tables: Sequence[Values]) -> None:
        with self._lock:
            self._kept -= sum(table.nbytes for table in self._results.pop(number, ()))
            self._results[number] = tables
            self._kept += sum(table.nbytes for table in tables)
            while self._kept > _DECODED and len(self._results) > 1:  # the newest is wanted now
                _, old = self._results.popitem(last=False)
                self._kept -= sum(table.nbytes for table in old)

    def _tables(self, number: int) -> Sequence[Values] | None:
        """Decoded results of a submission; None where it was given up, so that its circuits are to be claimed again."""
        with self._lock:
            if number in self._results:
                self._results.move_to_end(number)
                return self._results[number]
        result, record = self.journal.result(number), self.journal.get(number)
        if result is None or record is None:
            return None
        tables = decode_counts(result, limit=min(_LARGEST, counts_limit(record.shapes)))
        if [(len(table), table.shape[1]) for table in tables] != [(rows, 2**bits) for rows, bits in record.shapes]:
            raise ExecutionError(
                f"the results of submission {number} are not those of its circuits: the journal is damaged. Take another one."
            )
        self._keep(number, tables)
        return tables

    def _intents(
        self, tasks: Sequence[Task], every: Sequence[bytes], shots: int | None
    ) -> list[tuple[list[Task], Intent]]:
        """Tasks, with the keys of all their rows, as submissions of at most as many circuits as the executor takes.

        Their results are to be such that the journal can keep them.
        """
        made: list[tuple[list[Task], Intent]] = []
        start = 0
        groups = [some for _, some in split(tasks, self.inner.most_circuits)]
        for _, some in itertools.chain.from_iterable(split(g, _TABLES, lambda task: 8 << task.bits) for g in groups):
            count = sum(len(task.angles) for task in some)
            keys, start = tuple(every[start : start + count]), start + count
            request = encode_angles([Block(task.digest, task.angles) for task in some])
            shapes = tuple(task.shape for task in some)
            cost = price(some, shots, self.target)
            made.append((some, Intent(keys, self.inner.identity, shots, cost, shapes, request)))
        return made

    def _purchase(self, number: int, some: list[Task], shots: int | None, request: int) -> Purchase:
        seeds = list(itertools.chain.from_iterable(self._seeds(task, shots) for task in some))
        return Purchase(self.inner, self.journal, self.policy, self.breaker, number, some, shots, seeds, request)

    def _check_budget(self, spent: Spent) -> None:
        """Whether the budgets allow what would then have been spent."""
        limits = self.policy
        for name, most, total in (
            ("max_jobs", limits.max_jobs, spent.jobs),
            ("max_shots", limits.max_shots, spent.shots),
            ("max_price", limits.max_price, spent.price),
        ):
            if most is not None and total > most:
                raise ExecutionError(
                    f"{name}={most:g} would be exceeded: with what is about to be submitted it comes to {total:g}. Nothing was "
                    "submitted; raise the limit, or take another journal."
                )
        if limits.max_price is not None and not self._priced():
            raise ExecutionError(
                f"max_price={limits.max_price:g} cannot be kept: the price of {self.target_name or self.inner.method} per circuit "
                "and shot is not known. Give a target with a price, or max_shots."
            )

    def _priced(self) -> bool:
        target = self.target
        return target is not None and target.price is not None and not target.price.per_second

    def _names(self, task: Task, shots: int | None) -> Words:
        return names(f"{self.inner.identity}|{shots}|".encode() + task.digest, np.asarray(task.angles, np.float64))

    def _seeds(self, task: Task, shots: int | None) -> list[bytes]:
        """One for every row."""
        return as_bytes(names(b"%d" % (shots or 0) + task.digest, _rounded(task.angles), secret=self._secret))

    def _enough(self, task: Task, table: Values, shots: int | None, log: Log) -> Values:
        """Counts with as many shots as the policy accepts."""
        if shots is None or not len(table):
            return table
        wanted = math.ceil(self.policy.least_shots * shots)
        short = np.flatnonzero(table.sum(1) < max(1, wanted)).tolist()
        if not short:
            return table
        least = int(table[short].sum(1).min())
        if self.policy.fallback == "strict":
            raise ExecutionError(
                f"{len(short)} circuits got as few as {least} of {shots} shots; Policy(least_shots={self.policy.least_shots:g}) "
                "accepts no fewer. They are in the journal: lower least_shots to use them, or set fallback='simulate'."
            )
        some = Task(task.circuit, task.digest, task.bits, task.angles[short])
        table[short] = simulated(some, shots, self._seeds(some, shots))
        log.simulated += len(short)
        log.took([table[short]], shots)
        log.notes.append(f"simulated in place of {self.inner.method}: as few as {least} of {shots} shots came back")
        return table

    def __reduce__(self) -> tuple[Any, ...]:
        path = self.journal.path
        ahead = "apart" if self.ahead and self.apart else self.ahead
        options = {"policy": self.policy, "microbatches": self.microbatches, "gradients_ahead": ahead}
        return _again, (self.inner, None if path is None else str(path), options)


def _again(inner: Executor, journal: str | None, options: dict[str, Any]) -> DispatchedExecutor:
    return DispatchedExecutor(inner, journal=journal, **options)


def _journal(given: str | Path | Journal | bool | None) -> Journal:
    if isinstance(given, Journal):
        return given
    if given is True:
        return Journal(default_path())
    if given is None or given is False:
        return MemoryJournal()
    if not isinstance(given, str | Path):
        raise ExecutionError(f"journal={given!r}; a path, True for the user's own, or None is accepted.")
    return Journal(given)


def _rounded(angles: Values) -> NDArray[np.int64]:
    return np.round(np.ascontiguousarray(angles, np.float64) * 2.0**26).astype(np.int64)


def _some(
    tasks: Sequence[Task], rows: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[list[Task], NDArray[np.int64]]:
    """Only these of the rows of all tasks, one task for each circuit, and in which order they then are."""
    digests = {task.digest for task in tasks if len(task.angles)}
    if len(chosen) == sum(len(task.angles) for task in tasks) and len(digests) == len(tasks):
        # settings of a measurement have angles in common
        copies = {id(task.angles): task.angles.copy() for task in tasks}
        return [replace(task, angles=copies[id(task.angles)]) for task in tasks], chosen
    ends = np.cumsum([len(task.angles) for task in tasks])
    task_of = np.searchsorted(ends, rows, "right")
    order = {digest: place for place, digest in enumerate(dict.fromkeys(task.digest for task in tasks))}
    circuit = np.array([order[task.digest] for task in tasks])[task_of[chosen]]
    chosen = chosen[np.argsort(circuit, kind="stable")]
    circuit = np.sort(circuit)
    made: list[Task] = []
    for one in np.unique(circuit).tolist():
        own = chosen[circuit == one]
        parts = []
        for place in np.unique(task_of[own]).tolist():  # ascending, as the rows are
            start = ends[place] - len(tasks[place].angles)
            parts.append(tasks[place].angles[rows[own[task_of[own] == place]] - start])
        whole = tasks[int(task_of[own[0]])]
        made.append(Task(whole.circuit, whole.digest, whole.bits, np.concatenate(parts)))
    return made, chosen


def _fill(table: Values, own: NDArray[np.bool_], places: NDArray[np.int64], tables: Sequence[Values]) -> None:
    """Rows of a table from places in a submission, counted over all its tables."""
    ends = np.cumsum([len(one) for one in tables])
    which = np.searchsorted(ends, places, "right")
    for place in sorted(set(which[own].tolist())):
        chosen = own & (which == place)
        table[chosen] = tables[place][places[chosen] - (ends[place] - len(tables[place]))]


def _all(purchases: Sequence[Callable[[], None]]) -> None:
    """Run all, several at a time; the first failure is raised when the others have ended."""
    if len(purchases) < 2:
        for purchase in purchases:
            purchase()
        return
    failures: list[BaseException] = []
    rest = list(reversed(purchases))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not rest or failures:
                    return
                purchase = rest.pop()
            try:
                purchase()
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_TOGETHER, len(purchases)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
