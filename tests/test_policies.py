"""Policies, against a service with faults around a real backend: what is retried, given up, simulated, refused, spent."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from faults.cloud import Cloud, CloudAer, Faults
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerBackend
from sympy import Symbol, pi

from qcascade import Policy
from qcascade.circuits.observables import single_z
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.dispatch import DispatchedExecutor
from qcascade.dispatch.policy import Breaker
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors import DistributedExecutor, Job, PytketExecutor
from qcascade.executors.base import Log
from qcascade.targets import Price, get_target

QUICK = Policy(deadline=20.0, retries=3, backoff=0.01)


def template() -> CircuitTemplate:
    circuit = Circuit(2).Ry(Symbol("x") / pi, 0).CX(0, 1)
    return CircuitTemplate(circuit, ("x",), (), measurement=Expectations(single_z(2)))


TEMPLATE = template()


def job(*angles: float) -> list[Job]:
    return [Job(TEMPLATE, np.array(angles)[:, None])]


class Service:
    """A dispatched executor and the books of the service behind it."""

    def __init__(self, folder: Path, faults: Faults, policy: Policy, *, find: bool = True, shots: int = 200) -> None:
        self.cloud = Cloud(folder / "cloud.sqlite", faults)
        self.backend = CloudAer(self.cloud)
        inner = PytketExecutor(self.backend, shots, find=self.backend.find if find else None)
        self.executor = DispatchedExecutor(inner, journal=folder / "journal.sqlite", policy=policy)

    def states(self) -> list[str]:
        return [record.state for record in self.executor.journal.records()]


def test_a_submission_whose_answer_is_lost_is_not_bought_twice(tmp_path: Path) -> None:
    for fault in ("lost", "doubled"):
        folder = tmp_path / fault
        folder.mkdir()
        service = Service(folder, Faults(**{fault: 1.0}), QUICK)
        found = service.executor.run(job(0.0, np.pi))[0]
        np.testing.assert_array_equal(found.values, [[1, 1], [-1, -1]])
        assert service.cloud.audit() | {"jobs": 1, "twice": 0, "unfetched": 0} == service.cloud.audit()
        assert service.states() == ["done"]


def test_what_cannot_be_asked_for_stops_or_is_resubmitted(tmp_path: Path) -> None:
    service = Service(tmp_path, Faults(lost=1.0), QUICK, find=False)
    with pytest.raises(BackendError, match=r"Whether the submission arrived cannot be asked.*uncertain='resubmit'"):
        service.executor.run(job(0.0))
    assert service.states() == ["submitting"]
    assert service.cloud.audit()["jobs"] == 1
    calm = Service(tmp_path, Faults(), QUICK, find=False)
    with pytest.raises(BackendError, match="cannot be asked"):
        calm.executor.run(job(0.0))
    willing = Service(tmp_path, Faults(), dataclasses.replace(QUICK, uncertain="resubmit"), find=False)
    assert willing.executor.run(job(0.0))[0].values[0, 0] == 1
    assert willing.states() == ["failed", "done"]


def test_refused_submissions_are_retried_then_given_up(tmp_path: Path) -> None:
    service = Service(tmp_path, Faults(refused=1.0), QUICK)
    with pytest.raises(BackendError, match=r"takes no jobs now.*Nothing of it is owed"):
        service.executor.run(job(0.0))
    assert service.states() == ["failed"]
    calm = Service(tmp_path, Faults(), QUICK)
    assert calm.executor.run(job(0.0))[0].run.submissions == 1
    assert calm.executor.journal.spent().jobs == 1


def test_fetching_is_retried_and_what_was_paid_for_stays(tmp_path: Path) -> None:
    service = Service(tmp_path, Faults(dropped=1.0), QUICK)
    with pytest.raises(BackendError, match=r"stays as 'submitted': run again"):
        service.executor.run(job(0.3))
    assert service.states() == ["submitted"]
    calm = Service(tmp_path, Faults(), QUICK)
    found = calm.executor.run(job(0.3))[0]
    assert (found.run.submissions, found.run.reused) == (0, 1)
    assert calm.cloud.audit()["jobs"] == 1
    often = Service(tmp_path, Faults(dropped=0.5), dataclasses.replace(QUICK, retries=40, breaker=1000))
    assert often.executor.run(job(0.4))[0].run.shots == 200


def test_a_job_that_never_ends_is_cancelled_and_sent_again(tmp_path: Path) -> None:
    service = Service(tmp_path, Faults(stuck=1.0), dataclasses.replace(QUICK, deadline=0.2, retries=1))
    with pytest.raises(BackendError, match=r"cancelled after its deadline of 0.2 s"):
        service.executor.run(job(0.3))
    assert service.cloud.audit() | {"jobs": 0, "cancelled": 2} == service.cloud.audit()
    service.cloud.faults = Faults()
    assert service.executor.run(job(0.3))[0].run.shots == 200
    assert service.states() == ["failed", "done"]


def test_simulation_in_the_devices_place_is_recorded(tmp_path: Path) -> None:
    policy = dataclasses.replace(QUICK, fallback="simulate", retries=0)
    service = Service(tmp_path, Faults(refused=1.0), policy, shots=4000)
    found = service.executor.run(job(0.0, 1.0))[0]
    assert found.run.simulated == 2
    assert any("simulated in place of CloudAer" in note and "takes no jobs" in note for note in found.run.notes)
    np.testing.assert_allclose(found.values[:, 0], np.cos([0.0, 1.0]), atol=0.05)
    assert service.states() == ["simulated"]
    again = Service(tmp_path, Faults(), policy, shots=4000).executor.run(job(0.0, 1.0))[0]
    np.testing.assert_array_equal(again.values, found.values)
    assert again.run.simulated == 2


def test_the_breaker(tmp_path: Path) -> None:
    policy = dataclasses.replace(QUICK, breaker=2, retries=0, cooldown=1000.0)
    service = Service(tmp_path, Faults(refused=1.0), policy)
    for number in range(2):
        with pytest.raises(BackendError, match="takes no jobs"):
            service.executor.run(job(float(number)))
    service.cloud.faults = Faults()
    with pytest.raises(BackendError, match="nothing is sent to CloudAer after 2 failures in a row"):
        service.executor.run(job(5.0))
    assert service.cloud.audit()["jobs"] == 0
    service.executor.breaker.cooldown = 0.0
    service.executor.run(job(5.0))
    assert not service.executor.breaker.open
    breaker = Breaker(1, 0.0)
    breaker.failed()
    assert breaker.open
    assert breaker.passes()


def test_partial_shots_are_accepted_with_provenance_or_not(tmp_path: Path) -> None:
    service = Service(tmp_path, Faults(truncated=1.0), QUICK)
    found = service.executor.run(job(0.3))[0]
    assert found.run.shots == 100
    assert found.run.notes == ("fewer shots than the 200 asked for",)
    (record,) = service.executor.journal.records()
    assert (record.taken, record.note) == (100, "as few as 100 of 200 shots came back")
    picky = Service(tmp_path, Faults(), dataclasses.replace(QUICK, least_shots=0.9))
    with pytest.raises(ExecutionError, match="as few as 100 of 200 shots"):
        picky.executor.run(job(0.3))
    filled = Service(tmp_path, Faults(), dataclasses.replace(QUICK, least_shots=0.9, fallback="simulate"))
    assert (run := filled.executor.run(job(0.3))[0].run).simulated == 1
    assert run.shots == 200
    assert service.cloud.audit()["jobs"] == 1


def test_budgets_are_checked_before_anything_is_bought(tmp_path: Path) -> None:
    for limit, allowed in (({"max_shots": 500}, 2), ({"max_jobs": 2}, 2)):
        folder = tmp_path / next(iter(limit))
        folder.mkdir()
        service = Service(folder, Faults(), dataclasses.replace(QUICK, **limit))
        for number in range(allowed):
            service.executor.run(job(float(number)))
        with pytest.raises(ExecutionError, match=f"{next(iter(limit))}=.* would be exceeded.*Nothing was"):
            service.executor.run(job(7.0))
        assert service.executor.run(job(0.0))[0].run.reused == 1  # costs nothing
        again = Service(folder, Faults(), dataclasses.replace(QUICK, **limit))  # what was spent before counts
        with pytest.raises(ExecutionError, match="exceeded"):
            again.executor.run(job(7.0))
        assert service.cloud.audit()["jobs"] == allowed


def test_prices() -> None:
    unknown = DispatchedExecutor(PytketExecutor(AerBackend(), 10), policy=Policy(max_price=1.0))
    with pytest.raises(ExecutionError, match=r"price of .* is not known"):
        unknown.run(job(0.0))
    price = Price("USD", per_job=0.3, per_shot=0.01, per_two_qubit_gate=0.001)
    priced = dataclasses.replace(get_target("ibm_manila"), price=price)
    executor = PytketExecutor(AerBackend(), 10, target=priced, compile_seeds=1)
    bought = DispatchedExecutor(executor, policy=Policy(max_price=1.0))
    bought.run(job_for(executor, 0.1))
    (task,) = executor.tasks(job_for(executor, 0.1), Log(), executor.counted)
    gates = sum(len(gate.qubits) == 2 for gate in task.circuit.gates)
    assert bought.journal.spent().price == pytest.approx(0.3 + 10 * (0.01 + gates * 0.001))
    bought.run(job_for(executor, 0.2))
    with pytest.raises(ExecutionError, match="max_price=1 would be exceeded"):
        bought.run(job_for(executor, 0.3))


def job_for(executor: PytketExecutor, angle: float) -> list[Job]:
    return [Job(TEMPLATE, np.full((1, len(executor.prepare(TEMPLATE).angles.constants)), angle))]


def test_bad_policies() -> None:
    for options in (
        {"deadline": 0}, {"retries": -1}, {"backoff": -1.0}, {"breaker": 0}, {"fallback": "guess"}, {"least_shots": 2},
        {"uncertain": "maybe"}, {"max_shots": -1}, {"max_price": float("nan")}, {"deadline": "soon"}, {"retries": 1.5},
        {"retries": math.inf}, {"breaker": 1.5}, {"max_shots": "100"}, {"least_shots": "all"}, {"deadline": math.nan},
    ):  # fmt: skip
        with pytest.raises(ExecutionError, match=rf"Policy\({next(iter(options))}="):
            Policy(**options)  # type: ignore[arg-type]


def test_an_infinite_deadline_is_none() -> None:
    executor = PytketExecutor(AerBackend(), 10, deadline=math.inf)
    assert executor.run(job(0.0))[0].values[0, 0] == 1
    dispatched = DispatchedExecutor(executor, policy=Policy(deadline=math.inf))
    assert dispatched.run(job(0.0))[0].values[0, 0] == 1
    assert [record.state for record in dispatched.journal.records()] == ["done"]
    with ThreadPoolExecutor(1) as pool:
        shared = DistributedExecutor(pool, "shots", shots=10, deadline=math.inf)
        assert shared.run(job(0.0))[0].values[0, 0] == 1
    for deadline in (0, math.nan, "soon", True):
        with pytest.raises(ExecutionError, match=r"deadline=.* a positive number of seconds"):
            PytketExecutor(AerBackend(), 10, deadline=deadline)  # type: ignore[arg-type]
