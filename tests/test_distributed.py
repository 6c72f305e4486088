"""Distributed executors: the same results however many workers and chunks, workers that die and join, errors, gradients."""

from __future__ import annotations

import builtins
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cluster_workers import Dying, Failing, Slow, ran
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerBackend
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from small import EMBEDDING_AND_HEAD, Words
from sympy import Symbol, pi
from waiting import until

import qcascade
from qcascade.circuits.observables import one_and_two_body
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.dispatch import DispatchedExecutor
from qcascade.engine import lower, simulate
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors import DistributedExecutor, Executor, Job, NoisyExecutor, PytketExecutor, ShotsExecutor
from qcascade.executors.base import Log
from qcascade.executors.distributed import worker
from qcascade.executors.distributed.chunks import Load, divide
from qcascade.executors.distributed.pools import pool_of
from qcascade.executors.distributed.worker import Packed, Parcel, Samples, run
from qcascade.executors.sampled import sampled
from qcascade.targets import Target

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
get_mp_context = distributed.utils.get_mp_context
MANILA = Target.from_qiskit(FakeManilaV2(), name="ibm_manila")


def template(qubits: int = 2) -> CircuitTemplate:
    x, w = Symbol("x"), Symbol("w")
    circuit = Circuit(qubits).Ry(x / pi, 0)
    for qubit in range(1, qubits):
        circuit.CX(qubit - 1, qubit).Rx(w / pi, qubit).Ry((x + w) / pi, qubit - 1)
    return CircuitTemplate(circuit, ("x",), ("w",), measurement=Expectations(one_and_two_body(qubits)))


def jobs(executor: Executor, circuit: CircuitTemplate, rows: int) -> list[Job]:
    width = len(executor.prepare(circuit).angles.constants)
    return [Job(circuit, np.random.default_rng(0).uniform(-3, 3, (rows, width)))]


def noisy(shots: int | None, **options: Any) -> NoisyExecutor:
    return NoisyExecutor(MANILA, shots, compile_seeds=1, **options)


MAKERS = {"shots": ShotsExecutor, "noisy": noisy}
_FIRST: dict[str, Any] = {}  # values by executor, of whichever division came first


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers, of processes that are forked from one that has imported everything already."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["qcascade.executors.distributed", "qcascade.executors.noisy"])
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as made:
            yield made


@pytest.fixture(scope="module")
def client(cluster: Any) -> Iterator[Any]:
    with distributed.Client(cluster) as made:
        yield made


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shots", [50, None])
def test_the_same_as_the_inner_executor(client: Any, name: str, shots: int | None) -> None:
    circuit = template()
    alone = DispatchedExecutor(MAKERS[name](shots, seed=1))
    given_jobs = jobs(alone, circuit, 40)
    expected = alone.run(given_jobs)[0]
    inner = MAKERS[name](shots, seed=1)
    executor = DispatchedExecutor(qcascade.DaskExecutor(client, inner))
    found = executor.run(given_jobs)[0]
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.standard_errors, expected.standard_errors)
    assert (found.run.circuits, found.run.submissions) == (expected.run.circuits, 1)
    assert "Dask at tcp://" in executor.method
    assert executor.inner.identity == inner.identity  # a journal has them in common


def test_gradients_by_shift_rules(client: Any) -> None:
    circuit = template()
    x, w = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None], torch.tensor([0.3], dtype=torch.float64)
    for executor in (DistributedExecutor(client, "shots", shots=None), ShotsExecutor(None)):
        angles = x.clone().requires_grad_(), w.clone().requires_grad_()
        sampled(executor, circuit, data=angles[0], weights=angles[1]).square().sum().backward()
        if isinstance(executor, DistributedExecutor):
            expected = [a.grad for a in angles]
    for one, other in zip(expected, angles, strict=True):
        torch.testing.assert_close(one, other.grad, rtol=0, atol=1e-12)


@given(
    rows=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    seconds=st.floats(1e-6, 0.5),
    workers=st.integers(1, 40),
    grain=st.sampled_from([1, 4, 16]),
    size=st.integers(1, 2**22),
)
def test_chunks_hold_every_row_once(rows: list[int], seconds: float, workers: int, grain: int, size: int) -> None:
    loads = [Load(count, grain, seconds, size) for count in rows]
    chunks = divide(loads, workers)
    seen = [(place, row) for chunk in chunks for place, start, stop in chunk for row in range(start, stop)]
    assert sorted(seen) == [(place, row) for place, count in enumerate(rows) for row in range(count)]
    assert all(chunk for chunk in chunks)
    assert all(sum((stop - start) * size for _, start, stop in chunk) <= 2**23 + grain * size for chunk in chunks)


@given(
    workers=st.integers(1, 9),
    predicted=st.sampled_from([1e-4, 5e-3, 0.1]),
    name=st.sampled_from(list(MAKERS)),
    grain=st.sampled_from([1, 3, 16]),
)
@settings(max_examples=8, deadline=None)
def test_results_do_not_depend_on_workers_and_chunks(workers: int, predicted: float, name: str, grain: int) -> None:
    circuit = template(3)
    inner = MAKERS[name](40, seed=3)
    inner.predicted = lambda *_: predicted
    inner.grain = lambda *_: grain
    with ThreadPoolExecutor(2) as pool:
        found = DistributedExecutor(pool, inner, workers=workers).run(jobs(inner, circuit, 37))[0]
    np.testing.assert_array_equal(found.values, _FIRST.setdefault(name, found.values))


def test_a_worker_killed_changes_nothing(client: Any, tmp_path: Path) -> None:
    circuit = template()
    alone = DispatchedExecutor(ShotsExecutor(50, seed=5))
    wanted = jobs(alone, circuit, 64)
    expected = alone.run(wanted)[0].values
    executor = DispatchedExecutor(DistributedExecutor(client, Slow(tmp_path, 5), workers=16))
    future = executor.start(wanted)
    until(lambda: len(set(ran(tmp_path))) >= 2)
    os.kill(ran(tmp_path)[-1], signal.SIGKILL)
    np.testing.assert_array_equal(future.result(300)[0].values, expected)
    assert len(ran(tmp_path)) > 24  # of 24 chunks, one or two ran twice


def test_a_worker_that_joins_gets_work(cluster: Any, client: Any, tmp_path: Path) -> None:
    circuit = template()
    executor = DispatchedExecutor(DistributedExecutor(client, Slow(tmp_path, 6), workers=16))
    executor.run(jobs(executor, circuit, 8))  # the workers that there are know the circuits now
    first = set(ran(tmp_path))
    (tmp_path / "hold").touch()
    wanted = jobs(executor, circuit, 90)
    future = executor.start(wanted)
    cluster.scale(3)
    client.wait_for_workers(3, timeout=300)
    (tmp_path / "hold").unlink()
    found = future.result(300)[0].values
    cluster.scale(2)
    np.testing.assert_array_equal(found, DispatchedExecutor(ShotsExecutor(50, seed=6)).run(wanted)[0].values)
    assert set(ran(tmp_path)) - first


def test_ddp_ranks_share_journal_and_cluster(cluster: Any, tmp_path: Path) -> None:
    script = Path(__file__).parent / "cluster_training.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(script.parents[1]), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), cluster.scheduler_address, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ranks_equal"]
    assert report["alone_equal"], report["difference"]
    assert report["replayed_equal"]
    assert report["moved"] > 0.01
    assert report["states"].keys() == {"done"}  # each circuit was sent once, by one of the two
    assert report["sent"] == report["different"]
    assert report["owners"] == 2
    assert report["replayed"]["submissions"] == 0
    assert sum(rank["circuits"] - rank["reused"] for rank in report["ranks"]) == report["sent"]


def test_errors_of_a_worker_are_the_original_ones(client: Any) -> None:
    with ThreadPoolExecutor(1) as threads:
        for pool in (client, threads):
            executor = DistributedExecutor(pool, Failing(10))
            with pytest.raises(ZeroDivisionError, match="as the worker said"):
                executor.run(jobs(executor, template(), 3))
            with pytest.raises(ZeroDivisionError, match="as the worker said"):
                DispatchedExecutor(executor).run(jobs(executor, template(), 3))


def test_pools_of_processes_that_die(cluster: Any, tmp_path: Path) -> None:
    circuit = template()
    alone = DispatchedExecutor(ShotsExecutor(50, seed=1))
    wanted = jobs(alone, circuit, 40)
    made: list[ProcessPoolExecutor] = []

    def make() -> ProcessPoolExecutor:
        made.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")))
        return made[-1]

    found = DispatchedExecutor(DistributedExecutor(make, Dying(tmp_path / "one"))).run(wanted)[0]
    np.testing.assert_array_equal(found.values, alone.run(wanted)[0].values)
    assert len(made) == 2
    executor = DistributedExecutor(make(), Dying(tmp_path / "two"))
    with pytest.raises(BackendError, match="Give a function that makes the pool"):
        executor.run(wanted)
    for pool in made:
        pool.shutdown(cancel_futures=True)


def test_a_circuit_that_was_forgotten_is_sent_again() -> None:
    circuit = template()
    alone = DispatchedExecutor(ShotsExecutor(50, seed=1))
    wanted = jobs(alone, circuit, 3)
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:  # of which each thread unpickles for itself
        inner = DistributedExecutor(first, ShotsExecutor(50, seed=1))
        DispatchedExecutor(inner).run(wanted)
        inner.pool = pool_of(second, None)
        worker._CONTENT = worker.Contents(2**20)
        found = DispatchedExecutor(inner).run(wanted)[0]
    np.testing.assert_array_equal(found.values, alone.run(wanted)[0].values)


def test_deadline_and_cancel(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        executor = DistributedExecutor(pool, Slow(tmp_path, 1), workers=16, deadline=0.05)
        wanted = jobs(executor, template(), 64)
        with pytest.raises(BackendError, match=r"no result within 0\.05 s: 0 of 24 chunks came back"):
            executor.run(wanted)
        tasks = executor.tasks(wanted, Log(), executor.counted)
        handle, shapes = executor.submit(tasks, 50), [task.shape for task in tasks]
        with pytest.raises(BackendError, match="no result within"):
            executor.fetch(handle, shapes, seconds=0.01)
        assert executor.cancel(handle)
        with pytest.raises(BackendError, match="no submission"):
            executor.fetch(handle, shapes, seconds=0.01)
    assert len(ran(tmp_path)) < 6  # what had not begun never ran


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_adjoint_gradients(client: Any, loaded: bool, double: bool) -> None:
    circuit = template(3)
    circuit = CircuitTemplate(circuit.circuit, ("x",), ("w",), loaded, measurement=circuit.measurement)
    program = lower(circuit)
    real = torch.float64 if double else torch.float32
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(37, 1, dtype=real, generator=generator)
    w = torch.randn(2, 1, dtype=real, generator=generator)
    states = torch.nn.functional.normalize(torch.randn(37, 8, dtype=real, generator=generator), dim=-1)
    found = []
    for workers in (1, 5, None):
        given_inputs = [t.clone().requires_grad_() for t in ((x, w, states) if loaded else (x, w))]
        amplitudes = given_inputs[2] if loaded else None
        if workers is None:
            values = simulate(
                program, circuit.measurement, data=given_inputs[0], weights=given_inputs[1], amplitudes=amplitudes
            )
        else:
            executor = DistributedExecutor(client, "statevector", workers=workers)
            values = executor.simulate(
                program, circuit.measurement, data=given_inputs[0], weights=given_inputs[1], amplitudes=amplitudes
            )
        values.square().sum().backward()
        found.append([values.detach(), *(t.grad for t in given_inputs)])
    for one, five, engine in zip(*found, strict=True):
        assert torch.equal(one, five)
        torch.testing.assert_close(one, engine, rtol=0, atol=1e-11 if double else 1e-4)


def test_hybrids_and_layers_on_the_exact_state(client: Any) -> None:
    x0, a = Symbol("x0"), Symbol("a")
    layer = qcascade.QuantumLayer(Circuit(2).Ry(x0, 0).CX(0, 1).Rz(a, 1).Ry(a * x0**2, 0), inputs=["x0"])
    x = torch.rand(20, 1)
    layer(x).sum().backward()
    expected = layer.weights.grad.clone()
    layer.weights.grad = None
    layer.use(qcascade.DaskExecutor(client, "statevector"))
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weights.grad, expected)
    runs = layer.executor.history
    assert [(run.purpose, run.circuits, run.shots) for run in runs] == [("values", 20, None), ("gradients", 20, None)]
    assert layer(x[:0]).shape == (0, 2)
    with pytest.raises(ExecutionError, match="second derivatives"):
        torch.autograd.grad(layer(x).sum(), layer.weights, create_graph=True)
    with pytest.raises(ExecutionError, match="has shape"):
        layer.executor.simulate(layer._program, data=torch.zeros(3, 2), weights=torch.zeros(1))


def test_a_hybrid_chooses_between_a_cluster_and_this_process(client: Any) -> None:
    torch.manual_seed(0)
    hybrid = qcascade.compile(
        Words(), (torch.ones(2, 4, dtype=torch.long),), kernels=EMBEDDING_AND_HEAD, include="head"
    ).double()
    batches = [torch.randint(1, 300, (2, 4), generator=torch.Generator().manual_seed(n)) for n in range(4)]

    def steps() -> Iterator[tuple[torch.Tensor, ...]]:
        for ids in batches:
            hybrid.zero_grad()
            values = hybrid.train()(ids)
            values.square().sum().backward()
            yield values.detach(), *(p.grad for p in hybrid.parameters() if p.grad is not None)

    expected = list(steps())
    hybrid.use(
        qcascade.Dynamic(
            {"cluster": qcascade.DaskExecutor(client, "statevector"), "local": "statevector"}, patience=1, explore=1
        )
    )
    seen = set()
    for found, wanted in zip(steps(), expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
        seen |= {run.place for run in hybrid.last_run}
    assert seen == {"cluster", "local"} == {switch.after for switch in hybrid.switches}


def test_wide_rows_run_one_by_one(client: Any) -> None:
    circuit = template(15)
    x, w = torch.linspace(-1, 1, 3)[:, None], torch.tensor([0.4])
    program = lower(circuit)
    expected = simulate(program, circuit.measurement, data=x, weights=w)
    executor = DistributedExecutor(client, "statevector")
    torch.testing.assert_close(executor.simulate(program, circuit.measurement, data=x, weights=w), expected)
    exact = DistributedExecutor(client, "shots", shots=200, seed=0)
    found = exact.run(jobs(exact, circuit, 3))[0]
    np.testing.assert_allclose(
        found.values, ShotsExecutor(None).run(jobs(exact, circuit, 3))[0].values, atol=6 / np.sqrt(200)
    )


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_draws_the_same_with_workers_as_without(name: str) -> None:
    plain, inner = (MAKERS[name](50, seed=3) for _ in range(2))
    inner.predicted = lambda *_: 0.1
    given_jobs = jobs(plain, template(), 9)
    with ThreadPoolExecutor(2) as threads:
        executor = DistributedExecutor(threads, inner, workers=3)
        for _ in range(2):  # the second run draws other ones, as without workers
            found = executor.run(given_jobs)[0].values
            np.testing.assert_array_equal(found, plain.run(given_jobs)[0].values)


def test_trajectories_depend_on_seed_and_circuit_alone() -> None:
    circuit = template()
    given_jobs = None
    found = []
    for workers, pool in ((1, 1), (4, 2)):
        with ThreadPoolExecutor(pool) as threads:
            inner = noisy(20, seed=0, simulation="trajectories")
            inner.predicted = lambda *_: 0.1
            given_jobs = given_jobs or jobs(inner, circuit, 4)
            found.append(DistributedExecutor(threads, inner, workers=workers).run(given_jobs)[0].values)
    np.testing.assert_array_equal(*found)


def test_counts_are_packed_without_loss() -> None:
    generator = np.random.default_rng(0)
    for shots, width in ((5, 4), (300, 64), (10**5, 8), (20, 2**14), (10**10, 4)):
        table = generator.multinomial(shots, np.full(width, 1 / width), 3).astype(float)
        packed = Packed.of(table, shots)
        np.testing.assert_array_equal(packed.table(), table)
        assert packed.numbers.nbytes <= table.nbytes
    assert len(pickle.dumps(Packed.of(generator.multinomial(20, np.full(2**14, 2**-14), 3).astype(float), 20))) < 1000


def test_what_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for pool in (3, ThreadPoolExecutor):
        with pytest.raises(ExecutionError, match=r"is no pool; a Dask Client, a concurrent\.futures\.Executor"):
            DistributedExecutor(pool)
    with pytest.raises(ExecutionError, match="cannot be sent to workers"):
        DistributedExecutor(client, PytketExecutor(AerBackend(), 10))
    with pytest.raises(ExecutionError, match="cannot be distributed"):
        DistributedExecutor(client, DispatchedExecutor(ShotsExecutor(10)))
    for name in ("threads", "workers"):
        with pytest.raises(ExecutionError, match=f"{name}=0"):
            DistributedExecutor(client, **{name: 0})
    with pytest.raises(ExecutionError, match="takes no options"):
        DistributedExecutor(client, "statevector", shots=3)
    with pytest.raises(ExecutionError, match="live connection"):
        pickle.dumps(DistributedExecutor(client))
    with pytest.raises(ExecutionError, match="install the same version"):
        run(Parcel(Samples(b"", 1, ()), {}, 0, "0.0"))
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}),
        pytest.raises(BackendError, match="no Dask scheduler answers"),
    ):
        qcascade.DaskExecutor("tcp://127.0.0.1:9")
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "distributed":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExecutionError, match=r"pip install 'qcascade\[distributed\]'"):
        qcascade.DaskExecutor("tcp://somewhere:8786")
