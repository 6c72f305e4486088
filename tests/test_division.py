"""How a submission is divided among workers: short chunks last, few of them, and kept by Dask's scheduler until a worker is free."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from cluster_workers import Slow
from hypothesis import given
from hypothesis import strategies as st
from pytket.circuit import Circuit
from sympy import Symbol, pi
from waiting import until

from qcascade.circuits.template import CircuitTemplate
from qcascade.executors import DistributedExecutor, Job, ShotsExecutor
from qcascade.executors.base import Log
from qcascade.executors.distributed import pools
from qcascade.executors.distributed.chunks import Load, Rates, divide

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50
        ) as made,
        distributed.Client(made) as connected,
    ):
        yield connected


def finish(seconds: list[float], workers: int) -> float:
    """When the last of the workers ends, each of which takes the next chunk as soon as it is free."""
    ends = [0.0] * workers
    for one in seconds:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


@given(
    rows=st.lists(st.integers(100, 2000), min_size=1, max_size=5),
    seconds=st.lists(st.sampled_from([1e-4, 1e-3, 6e-3]), min_size=5, max_size=5),
    workers=st.integers(1, 16),
)
def test_workers_end_together(rows: list[int], seconds: list[float], workers: int) -> None:
    loads = [Load(count, 16, one, 100) for count, one in zip(rows, seconds, strict=False)]
    chunks = divide(loads, workers)
    times = [sum((stop - start) * loads[place].seconds for place, start, stop in chunk) for chunk in chunks]
    total = sum(times)
    longest = max([16 * load.seconds for load in loads])
    # list scheduling: at most a last chunk beyond the even share, and last chunks are of the shortest kind or of a grain
    assert finish(times, workers) <= total / workers + max(
        0.05 + longest, total / (2 * workers) if len(chunks) <= workers else 0
    )
    assert (
        len(chunks)
        <= 8 * workers * (1 + np.log2(1 + total / workers / 0.05))
        + sum(load.seconds * 16 > 0.05 for load in loads) * 130
    )


def test_rows_that_come_in_long_grains_go_first() -> None:
    chunks = divide([Load(64, 16, 1e-3, 10), Load(64, 16, 1e-2, 10), Load(64, 4, 1e-2, 10)], 2)
    assert list(dict.fromkeys(place for chunk in chunks for place, _, _ in chunk)) == [1, 2, 0]


def test_rates_follow_what_is_measured() -> None:
    rates = Rates()
    for seconds in (1.0, 3.0, 3.0):
        rates.put("circuit", 10, seconds)
    assert rates.get("circuit", 9.0) == pytest.approx(0.25)
    rates.put("circuit", 0, 5.0)
    assert rates.get("circuit", 9.0) == pytest.approx(0.25)


def template(gates: int) -> CircuitTemplate:
    circuit = Circuit(1)
    for _ in range(gates):
        circuit.Ry(Symbol("x") / pi, 0).Rz(0.5, 0)
    return CircuitTemplate(circuit, ("x",), ())


def test_dask_keeps_what_no_worker_has_room_for(client: Any, tmp_path: Path) -> None:
    """Even of a first submission, with which six circuits and the executor travel: Dask assigns at once what depends on five tasks."""
    executor = DistributedExecutor(client, Slow(tmp_path, 3), workers=8)
    plain = ShotsExecutor(50, seed=3)
    angles = np.linspace(-1, 1, 16)
    made = [template(1 + place) for place in range(6)]
    jobs = [Job(one, np.tile(angles[:, None], len(executor.prepare(one).angles.constants))) for one in made]
    (tmp_path / "hold").touch()
    tasks = executor.tasks(jobs, Log(), executor.counted)
    shapes = [task.shape for task in tasks]
    seeds = [bytes([row % 256]) * 16 for row in range(16 * 6)]
    handle = executor.submit(tasks, 50, seeds=seeds)
    chunks = len(executor._sent[handle].chunks)
    assert chunks > 10
    until(lambda: client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.queued)) >= chunks - 4)
    (tmp_path / "hold").unlink()
    found = executor.fetch(handle, shapes)
    expected = plain.fetch(plain.submit(tasks, 50, seeds=seeds), shapes)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_large_submissions_go_in_several_messages(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(pools._messages([3, 4, 2**23, 5, 5])) == [2, 1, 2]
    assert list(pools._messages([])) == []
    monkeypatch.setattr(pools, "MESSAGE_BYTES", 600)
    executor = DistributedExecutor(client, ShotsExecutor(50, seed=1), workers=8)
    executor.inner.predicted = lambda *_: 0.1
    one = template(1)
    width = len(executor.prepare(one).angles.constants)
    angles = np.tile(np.linspace(-1, 1, 128)[:, None], width)
    seeds = [bytes([row]) * 16 for row in range(128)]
    tasks = executor.tasks([Job(one, angles)], Log(), executor.counted)
    found = executor.fetch(executor.submit(tasks, 50, seeds=seeds), [task.shape for task in tasks])
    plain = ShotsExecutor(50, seed=1)
    expected = plain.fetch(plain.submit(tasks, 50, seeds=seeds), [task.shape for task in tasks])
    np.testing.assert_array_equal(found[0], expected[0])
