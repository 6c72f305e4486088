"""Many runs: those that are not done yet, in turn or in several processes, each written down as it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from qcascade.errors import ExecutionError
from qcascade.studies.records import Record, Records, identity_of, machine_here

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def run_all(
    settings: Sequence[Settings],
    work: Callable[[Settings], Mapping[str, Any]],
    records: Records,
    *,
    workers: int = 1,
    threads: int | None = None,
    said: Callable[[Record], object] | None = None,
) -> list[Record]:
    """Do what is not done.

    Args:
        settings: Frozen dataclasses, one a run, in the order in which they are started.
        work: Gives what a run measured; with several workers it has to be a function of a module (or a partial of one).
        records: Where runs are looked up and written down.
        workers: Processes; 1 runs here.
        threads: torch's threads in each process; None leaves them as they are.
        said: Called with every run that ends now.

    Returns:
        A record for every one of `settings`, in their order.

    Raises:
        ExecutionError: `workers` is below 1, the records cannot be written, or a worker died; what was done is kept, and the
            command can be given again.

    Example:
        >>> import tempfile, pathlib
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Square:
        ...     of: int
        >>> file = Records(pathlib.Path(tempfile.mkdtemp()) / "squares.jsonl")
        >>> [r.measured["is"] for r in run_all([Square(2), Square(3)], lambda s: {"is": s.of**2}, file)]
        [4, 9]
    """
    if workers < 1:
        raise ExecutionError(f"workers={workers} must be at least 1.")
    waiting = list({identity_of(s): s for s in settings if records.find(s) is None}.values())
    if waiting:
        records.check_writable()
    if workers == 1 or len(waiting) < 2:
        if threads is not None and waiting:
            _limit(threads)
        for one in waiting:
            record = records.add(one, work(one))
            if said is not None:
                said(record)
    else:
        _run_beside(waiting, work, records, workers, threads, said)
    found = [records.find(s) for s in settings]
    return [record for record in found if record is not None]


def _run_beside(
    waiting: Sequence[Settings],
    work: Callable[[Settings], Mapping[str, Any]],
    records: Records,
    workers: int,
    threads: int | None,
    said: Callable[[Record], object] | None,
) -> None:
    with processes(workers, threads or 1) as pool:
        jobs = {pool.submit(_measured, work, one): one for one in waiting}
        try:
            for job in as_completed(jobs):
                record = records.add(jobs[job], *job.result())
                if said is not None:
                    said(record)
        except BrokenProcessPool as error:
            raise ExecutionError(
                f"a process that ran one of {len(jobs)} runs died, perhaps for want of memory (workers={workers}); what was done is "
                "kept: give the command again, with fewer workers."
            ) from error
        except BaseException:  # the rest is not started; what runs ends with its process
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _measured(
    work: Callable[[Settings], Mapping[str, Any]], one: Settings
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """With the machine as the process that did it finds it, whose threads are not the parent's."""
    measured = work(one)
    return measured, machine_here()


def processes(count: int, threads: int = 1) -> ProcessPoolExecutor:
    """New processes with so many of torch's threads each, which end with this one, however it ends."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin, initargs=(threads,))


def _begin(threads: int) -> None:
    _limit(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker would finish its run, and then wait for ever, after the process that it works for was killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _limit(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
