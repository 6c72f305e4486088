"""The journal: killed, interrupted and shared processes lose nothing and buy nothing twice; `qcascade jobs`."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults.cloud import Cloud, CloudAer, Faults
from faults.training import hybrid_for, run, sentences
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerBackend
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel
from sympy import Symbol, pi
from typer.testing import CliRunner
from waiting import until

from qcascade import Policy
from qcascade.circuits.observables import single_z
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.cli import app
from qcascade.dispatch import DispatchedExecutor, Journal, dispatcher
from qcascade.dispatch.journal import Intent, is_alive, owner
from qcascade.dispatch.wire import encode_counts
from qcascade.errors import ExecutionError
from qcascade.executors import Executor, Job, PytketExecutor, RuntimeExecutor, ShotsExecutor
from qcascade.executors.noise import noise_model
from qcascade.targets import Target, get_target

TEMPLATE = CircuitTemplate(
    Circuit(2).Ry(Symbol("x") / pi, 0).CX(0, 1), ("x",), (), measurement=Expectations(single_z(2))
)
POLICY = Policy(deadline=20.0, retries=5, backoff=0.01)
FORK = multiprocessing.get_context("fork")


def job(*angles: float) -> list[Job]:
    return [Job(TEMPLATE, np.array(angles)[:, None])]


def service(folder: Path, faults: Faults | None = None, **options: object) -> DispatchedExecutor:
    backend = CloudAer(Cloud(folder / "cloud.sqlite", faults or Faults()))
    inner = PytketExecutor(backend, 100, find=backend.find, **options)  # type: ignore[arg-type]
    return DispatchedExecutor(inner, journal=folder / "journal.sqlite", policy=POLICY)


def intent(*keys: bytes) -> Callable[[list[bytes]], list[Intent]]:
    return lambda missing: [Intent(tuple(missing), "e|d", 10, None, ((len(missing), 1),), b"")]


def test_a_second_run_submits_nothing(tmp_path: Path) -> None:
    first = DispatchedExecutor(ShotsExecutor(100), journal=tmp_path / "j.sqlite")  # no seed: samples would differ
    expected = first.run(job(0.1, 0.2, 0.3))[0]
    second = DispatchedExecutor(ShotsExecutor(100), journal=tmp_path / "j.sqlite")
    found = second.run(job(0.3, 0.1, 0.4))[0]
    np.testing.assert_array_equal(found.values[:2], expected.values[[2, 0]])
    assert (found.run.submissions, found.run.reused) == (1, 2)
    for other in (ShotsExecutor(101), ShotsExecutor(100, seed=3)):  # other shots, another seed: other circuits
        assert DispatchedExecutor(other, journal=tmp_path / "j.sqlite").run(job(0.1))[0].run.reused == 0


def manila(scale: float) -> tuple[Target, NoiseModel]:
    plain = get_target("ibm_manila")
    gates = tuple(dataclasses.replace(gate, error=scale * (gate.error or 0.0)) for gate in plain.gates)
    return plain, noise_model(dataclasses.replace(plain, gates=gates))


@pytest.mark.parametrize("kind", ["pytket", "runtime"])
def test_other_noise_is_another_executor(kind: str, tmp_path: Path) -> None:
    def executor(noise: NoiseModel | None) -> Executor:
        options = {"target": target, "seed": 1, "compile_seeds": 1}
        if kind == "pytket":
            return PytketExecutor(AerBackend(noise), 200, **options)  # type: ignore[arg-type]
        return RuntimeExecutor(AerSimulator(noise_model=noise), 200, **options)  # type: ignore[arg-type]

    (target, less), (_, same), (_, more) = manila(1), manila(1), manila(20)
    identities = [executor(noise).identity for noise in (less, same, more, None)]
    assert identities[0] == identities[1] and len(set(identities)) == 3
    device = "AerBackend" if kind == "pytket" else "aer_simulator"
    assert identities[3] == f"{kind}|{device}|ibm_manila|1"  # as ever, so that older journals still count
    reused = []
    for noise in (less, more, same):
        one = executor(noise)
        width = len(one.prepare(TEMPLATE).angles.constants)
        found = DispatchedExecutor(one, journal=tmp_path / "j.sqlite").run([Job(TEMPLATE, np.full((1, width), 0.3))])
        reused.append(found[0].run.reused)
    assert reused == [0, 0, 1]


def test_results_of_a_simulator_that_died_are_simulated_again(tmp_path: Path) -> None:
    def child() -> None:
        inner = PytketExecutor(AerBackend(), 100)
        inner.fetch = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        DispatchedExecutor(inner, journal=tmp_path / "j.sqlite").run(job(0.0))

    process = FORK.Process(target=child)
    process.start()
    process.join()
    journal = Journal(tmp_path / "j.sqlite")
    (record,) = journal.records()
    assert record.state == "submitted"
    assert not is_alive(record.owner)
    assert is_alive(owner())
    again = DispatchedExecutor(PytketExecutor(AerBackend(), 100), journal=journal)
    assert again.run(job(0.0))[0].values[0, 0] == 1
    assert [record.state for record in journal.records()] == ["failed", "done"]


@pytest.mark.parametrize("moment", ["before", "after", "handle"])
def test_killed_while_submitting(tmp_path: Path, moment: str) -> None:
    def child() -> None:
        executor = service(tmp_path)
        cloud = executor.inner.backend.cloud  # type: ignore[attr-defined]
        accept, note = cloud.accept, executor.journal.submitted

        def dies(*arguments: object) -> str:
            if moment == "after":
                accept(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        if moment == "handle":
            executor.journal.submitted = lambda *a: (note(*a), os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[method-assign,assign]
        else:
            cloud.accept = dies
        executor.run(job(0.0, 1.0))

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    executor = service(tmp_path)
    (record,) = executor.journal.records()
    assert record.state == ("submitted" if moment == "handle" else "submitting")
    found = executor.run(job(0.0, 1.0))[0]
    assert found.values[0, 0] == 1
    books = Cloud(tmp_path / "cloud.sqlite").audit()
    assert books | {"jobs": 1, "circuits": 2, "twice": 0, "unfetched": 0} == books


def test_an_interrupt_leaves_what_can_be_resumed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def child() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        executor = service(tmp_path, Faults(latency=(0.5, 0.5)), most_circuits=1)
        ready.touch()
        try:
            executor.run(job(0.0, 0.5, 1.0, 1.5))
        except KeyboardInterrupt:
            os._exit(7)

    process = FORK.Process(target=child)
    process.start()
    until(ready.exists)
    time.sleep(0.7)  # between submission and results
    os.kill(process.pid, signal.SIGINT)  # type: ignore[arg-type]
    process.join(10)
    assert process.exitcode == 7
    executor = service(tmp_path)
    assert any(record.open for record in executor.journal.records())
    executor.run(job(0.0, 0.5, 1.0, 1.5))
    assert not any(record.open for record in executor.journal.records())
    books = Cloud(tmp_path / "cloud.sqlite").audit()
    assert books | {"circuits": 4, "twice": 0, "unfetched": 0} == books


def test_interrupted_and_resumed_in_one_process(tmp_path: Path) -> None:
    executor = service(tmp_path, Faults(latency=(0.3, 0.3)))
    signal.setitimer(signal.ITIMER_REAL, 0.45)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            executor.run(job(0.2, 0.7))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    executor.run(job(0.2, 0.7))
    books = Cloud(tmp_path / "cloud.sqlite").audit()
    assert books | {"circuits": 2, "twice": 0} == books


def test_processes_that_share_a_journal_buy_each_circuit_once(tmp_path: Path) -> None:
    Cloud(tmp_path / "cloud.sqlite")  # the journal is made by whoever comes first

    def child(number: int) -> None:
        executor = service(tmp_path, Faults(latency=(0.0, 0.05)), most_circuits=3)
        angles = np.random.default_rng(number).permutation(12) / 10
        found = executor.run(job(*angles))[0].values[:, 0]
        np.save(tmp_path / f"{number}.npy", found[np.argsort(angles)])

    processes = [FORK.Process(target=child, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    tables = [np.load(tmp_path / f"{number}.npy") for number in range(3)]
    assert all((table == tables[0]).all() for table in tables)
    books = Cloud(tmp_path / "cloud.sqlite").audit()
    assert books | {"circuits": 12, "twice": 0, "unfetched": 0} == books


def test_training_through_faults_and_kills_ends_with_the_same_weights(tmp_path: Path, sst2: Path) -> None:
    data = sentences(sst2, 2)
    hybrid = hybrid_for(data[2], data[0][:1])
    common = {"steps": 2, "batch": 1, "chance": random.Random(0)}
    long = Policy(deadline=600.0)
    plain = run("pytket", tmp_path, data, hybrid, Faults(), kills=0, longest=0.0, policy=long, **common)
    faults = Faults(0.1, 0.1, 0.1, 0.1, 0.02, latency=(0.01, 0.05))
    found = run("pytket", tmp_path, data, hybrid, faults, kills=3, longest=plain["seconds"], microbatches=2, **common)
    assert found["weights"] == plain["weights"]
    assert found["same_again"]
    assert found["twice"] == found["unfetched"] == found["bought_again"] == 0
    assert found["circuits"] == plain["circuits"]


def test_claims_are_exclusive_and_spending_is_counted(tmp_path: Path) -> None:
    one, two = (Journal(tmp_path / "j.sqlite") for _ in range(2))
    where, new = one.claim([b"a" * 16, b"b" * 16], intent(), lambda spent: None)
    assert where.tolist() == [[new[0], 0], [new[0], 1]]
    other, mine = two.claim([b"b" * 16, b"c" * 16], intent(), lambda spent: None)
    assert mine == [new[0] + 1]
    assert other.tolist() == [[new[0], 1], [mine[0], 0]]
    assert (two.spent().jobs, two.spent().shots) == (2, 30)

    def refuses(spent: object) -> None:
        raise ExecutionError("too much")

    with pytest.raises(ExecutionError, match="too much"):
        one.claim([b"d" * 16], intent(), refuses)
    assert len(one.records()) == 2
    one.rest(new[0])
    one.rest(mine[0])
    assert one.release(new[0], "failed", "test")
    assert not one.release(new[0], "failed", "test")
    assert not one.done(new[0], b"", None)
    again, fresh = two.claim([b"a" * 16], intent(), lambda spent: None)
    assert again.tolist() == [[fresh[0], 0]]
    two.rest(fresh[0])


def test_what_another_process_pruned_is_not_taken_for_what_was_bought_since(tmp_path: Path) -> None:
    one, other = (DispatchedExecutor(ShotsExecutor(100, seed=0), journal=tmp_path / "j.sqlite") for _ in range(2))
    assert one.run(job(0.0))[0].values[0, 0] == 1
    assert Journal(tmp_path / "j.sqlite").prune() == 1
    assert other.run(job(np.pi))[0].values[0, 0] == -1
    found = one.run(job(np.pi))[0]
    assert (found.values[0, 0], found.run.reused) == (-1, 1)


def test_submissions_are_such_that_the_journal_keeps_their_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    angles = np.linspace(0, 3, 5)
    expected = DispatchedExecutor(ShotsExecutor(100, seed=0)).run(job(*angles))[0].values
    monkeypatch.setattr(dispatcher, "_TABLES", 64)  # bytes: two rows of two bits
    executor = DispatchedExecutor(ShotsExecutor(100, seed=0), journal=tmp_path / "j.sqlite")
    found = executor.run(job(*angles))[0]
    assert found.run.submissions == 3 and (found.values == expected).all()
    assert [record.shapes for record in executor.journal.records()] == [((2, 2),), ((2, 2),), ((1, 2),)]
    again = DispatchedExecutor(ShotsExecutor(100, seed=0), journal=tmp_path / "j.sqlite").run(job(*angles))[0]
    assert again.run.submissions == 0 and (again.values == expected).all()


def test_the_newest_results_stay_decoded_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_DECODED", 1)
    executor = DispatchedExecutor(ShotsExecutor(100))
    for angle in (0.1, 0.2):
        executor.run(job(angle))
    assert list(executor._results) == [2]


def test_results_that_are_not_those_of_their_circuits_are_refused(tmp_path: Path) -> None:
    DispatchedExecutor(ShotsExecutor(100, seed=0), journal=tmp_path / "j.sqlite").run(job(0.1))
    for forged in (np.ones((1, 8)), np.ones((2, 4)), np.ones((1000, 64))):
        with sqlite3.connect(tmp_path / "j.sqlite") as database:
            database.execute("UPDATE submissions SET result=?", (encode_counts([forged]),))
        executor = DispatchedExecutor(ShotsExecutor(100, seed=0), journal=tmp_path / "j.sqlite")
        with pytest.raises(ExecutionError, match="damaged"):
            executor.run(job(0.1))


def test_budgets_hold_though_a_journal_is_pruned(tmp_path: Path) -> None:
    executor = DispatchedExecutor(ShotsExecutor(100), journal=tmp_path / "j.sqlite", policy=Policy(max_shots=100))
    executor.run(job(0.1))
    Journal(tmp_path / "j.sqlite").prune()
    with pytest.raises(ExecutionError, match="max_shots=100 would be exceeded"):
        executor.run(job(0.2))


def test_journals_of_before_pruning_was_counted_are_opened(tmp_path: Path) -> None:
    executor = DispatchedExecutor(ShotsExecutor(100), journal=tmp_path / "j.sqlite")
    expected = executor.run(job(0.1))[0].values
    executor.journal.close()
    with sqlite3.connect(tmp_path / "j.sqlite") as database:
        database.execute("DROP TABLE pruned")  # what they have not
    journal = Journal(tmp_path / "j.sqlite")
    assert (journal.spent().jobs, journal.spent().shots) == (1, 100)
    again = DispatchedExecutor(ShotsExecutor(100), journal=journal).run(job(0.1, 0.2))[0]
    assert again.run.reused == 1 and (again.values[0] == expected[0]).all()
    assert journal.prune() == 2 and journal.spent().shots == 200


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("no database, but long enough to look at" * 50)
    with pytest.raises(ExecutionError, match="cannot be opened"):
        Journal(text)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE t (x)")
    with pytest.raises(ExecutionError, match="version 0 of its tables; version 1 is known"):
        Journal(other)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    options = ["--journal", str(path)]
    command = CliRunner()
    missing = command.invoke(app, ["jobs", "list", *options])
    assert isinstance(missing.exception, ExecutionError)
    assert "there is no journal" in str(missing.exception)
    executor = DispatchedExecutor(ShotsExecutor(100, seed=0), journal=path)
    executor.run(job(0.1, 0.2))
    journal = Journal(path)
    _, (number,) = journal.claim([b"k" * 16], intent(), lambda spent: None)
    journal.submitted(number, "handle-1")
    lines = command.invoke(app, ["jobs", "list", *options]).output.splitlines()
    assert [line.split("\t")[:5] for line in lines] == [
        ["1", "done", "shots/None", "2", "100"],
        ["2", "submitted", "e/d", "1", "10"],
    ]
    listed = json.loads(command.invoke(app, ["jobs", "list", "--state", "done", "--format", "json", *options]).output)
    assert [(one["number"], one["taken"]) for one in listed] == [(1, 100)]
    assert "handle    handle-1" in command.invoke(app, ["jobs", "show", "2", *options]).output
    assert command.invoke(app, ["jobs", "wait", "1", *options]).exit_code == 0
    late = command.invoke(app, ["jobs", "wait", "--seconds", "0.3", *options])
    assert "still open after 0.3 s" in str(late.exception)
    told = command.invoke(app, ["jobs", "cancel", "2", *options])
    assert "its handle is handle-1" in told.output
    assert "only an open one" in str(command.invoke(app, ["jobs", "cancel", "2", *options]).exception)
    assert "no submission 9" in str(command.invoke(app, ["jobs", "show", "9", *options]).exception)
    assert f"no submission {10**23}" in str(command.invoke(app, ["jobs", "show", str(10**23), *options]).exception)
    for span in (["prune", "--days", "nan"], ["prune", "--days", "-1"], ["wait", "--seconds", "nan"]):
        refused = command.invoke(app, ["jobs", *span, *options])
        assert refused.exit_code == 2 and "no span of time" in refused.output
    assert "0 submissions" in command.invoke(app, ["jobs", "prune", "--days", "1", *options]).output
    assert "2 submissions" in command.invoke(app, ["jobs", "prune", *options]).output
    journal.rest(number)
