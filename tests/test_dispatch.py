"""The dispatcher: each circuit once, in few submissions, with samples that depend on nothing but seed and circuit."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
import torch
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerBackend
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from small import EMBEDDING_AND_HEAD, Words
from sympy import Symbol, pi
from torch import Tensor

import qcascade
from qcascade import Policy
from qcascade.circuits.observables import one_and_two_body
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.dispatch import DispatchedExecutor, take_turns, waiting
from qcascade.dispatch.content import names
from qcascade.errors import ExecutionError
from qcascade.executors import (
    Executor,
    Job,
    NoisyExecutor,
    PytketExecutor,
    ReadoutInversion,
    ShotsExecutor,
    ZeroNoiseExtrapolation,
    sampled,
)
from qcascade.targets import Target

MANILA = Target.from_qiskit(FakeManilaV2(), name="ibm_manila")


def template() -> CircuitTemplate:
    x, w = Symbol("x"), Symbol("w")
    circuit = Circuit(2).Ry(x / pi, 0).CX(0, 1).Rx(w / pi, 1).Ry((x + w) / pi, 0)
    return CircuitTemplate(circuit, ("x",), ("w",), measurement=Expectations(one_and_two_body(2)))


def jobs(executor: Executor, circuit: CircuitTemplate, rows: int = 11) -> list[Job]:
    width = len(executor.prepare(circuit).angles.constants)
    return [Job(circuit, np.random.default_rng(0).uniform(-3, 3, (rows, width)))]


def noisy(shots: int | None, **options: object) -> NoisyExecutor:
    return NoisyExecutor(MANILA, shots, compile_seeds=1, **options)  # type: ignore[arg-type]


MAKERS = {"shots": lambda s, **o: ShotsExecutor(s, **o), "noisy": noisy}


@pytest.mark.parametrize("name", MAKERS)
def test_exact_values_are_the_executors_own(name: str) -> None:
    circuit = template()
    inner = MAKERS[name](None)
    given = jobs(inner, circuit)
    plain, found = inner.run(given)[0], DispatchedExecutor(inner).run(given)[0]
    np.testing.assert_allclose(found.values, plain.values, atol=1e-12)
    assert found.run.circuits == plain.run.circuits == 33


@pytest.mark.parametrize("name", MAKERS)
def test_identical_circuits_run_once(name: str) -> None:
    circuit = template()
    executor = DispatchedExecutor(MAKERS[name](50, seed=1))
    (job,) = jobs(executor, circuit, 4)
    twice = Job(circuit, np.concatenate([job.angles, job.angles[::-1]]))
    estimate = executor.run([twice])[0]
    np.testing.assert_array_equal(estimate.values[:4], estimate.values[:3:-1])
    assert (estimate.run.circuits, estimate.run.reused, estimate.run.submissions) == (24, 12, 1)
    again = executor.run([job])[0]
    np.testing.assert_array_equal(again.values, estimate.values[:4])
    assert (again.run.reused, again.run.submissions) == (12, 0)


@pytest.mark.parametrize("name", MAKERS)
def test_samples_depend_on_seed_and_circuit_alone(name: str) -> None:
    circuit = template()
    whole = DispatchedExecutor(MAKERS[name](50, seed=1))
    (job,) = jobs(whole, circuit)
    expected = whole.run([job])[0].values
    parts = DispatchedExecutor(MAKERS[name](50, seed=1))
    order = [7, 2, 3, 10, 0, 1, 9, 4, 8, 5, 6]
    found = np.empty_like(expected)
    for place in order:
        found[place] = parts.run([Job(circuit, job.angles[place : place + 1] + 1e-15)])[0].values[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)  # the same counts; sums over other numbers of rows
    other = DispatchedExecutor(MAKERS[name](50, seed=2)).run([job])[0].values
    assert not np.array_equal(other, expected)
    errors = whole.history[-1].standard_error
    exact = MAKERS[name](None).run([job])[0].values
    assert 0.5 * errors < np.sqrt(np.mean((expected - exact) ** 2)) < 2 * errors


def test_as_few_submissions_as_the_backend_allows() -> None:
    circuit = template()
    executor = DispatchedExecutor(noisy(20, seed=0, most_circuits=10))
    found = executor.run(jobs(executor, circuit))[0]
    assert (found.run.circuits, found.run.submissions) == (33, 4)
    free = DispatchedExecutor(noisy(20, seed=0))
    given = jobs(free, circuit)
    np.testing.assert_array_equal(free.run(given)[0].values, found.values)
    assert free.history[-1].submissions == 1
    plain = noisy(20, seed=0, most_circuits=10)
    plain.run(given)
    assert plain.history[-1].submissions == 4


def test_signs_depend_on_seed_and_angles_alone() -> None:
    executor = DispatchedExecutor(ShotsExecutor(10, seed=3))
    angles = np.random.default_rng(0).uniform(-3, 3, (40, 5))
    signs = executor.signs(angles, 7, 300)
    assert signs.shape == (7, 40, 300) and set(np.unique(signs)) == {-1.0, 1.0}
    np.testing.assert_array_equal(executor.signs(angles[5:6] + 1e-12, 7, 300)[:, 0], signs[:, 5])
    assert abs(signs.mean()) < 4 / np.sqrt(signs.size)  # fair, and rows and samples are independent
    rows = signs.transpose(1, 0, 2).reshape(280, 300)
    correlation = rows @ rows.T / 300 - np.eye(280)
    assert np.abs(correlation).max() < 6 / np.sqrt(300) and abs(correlation.mean()) < 0.002
    assert not np.array_equal(DispatchedExecutor(ShotsExecutor(10, seed=4)).signs(angles, 7, 300), signs)


def test_names_are_what_numpy_computes() -> None:
    import hashlib

    rows = np.random.default_rng(0).normal(size=(50, 6))

    def mixed(words: np.ndarray) -> np.ndarray:
        for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
            words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
        return words ^ (words >> np.uint64(33))

    key = int.from_bytes(hashlib.blake2b(b"prefix", key=b"secret", digest_size=16).digest(), "little")
    shifts = np.random.Philox(key=key).random_raw(14).reshape(2, 7)
    expected = [mixed(mixed(rows.view(np.uint64) + own[:6]).sum(1, dtype=np.uint64) + own[6]) for own in shifts]
    np.testing.assert_array_equal(names(b"prefix", rows, secret=b"secret"), np.stack(expected, 1))


def test_a_pytket_backend() -> None:
    circuit = template()
    executor = DispatchedExecutor(PytketExecutor(AerBackend(), 2000, seed=1, most_circuits=7))
    given = jobs(executor, circuit, 5)
    exact = ShotsExecutor(None).run(given)[0].values
    found = executor.run(given)[0]
    assert np.sqrt(np.mean((found.values - exact) ** 2)) < 2 * found.run.standard_error
    assert (found.run.circuits, found.run.submissions, found.run.shots) == (15, 3, 2000)
    assert 0 < found.run.bytes_out < 15 * 8 * 4 + 300


def test_mitigation_and_its_calibration_go_through_it() -> None:
    circuit = template()
    mitigation = (ReadoutInversion(calibration_shots=4000), ZeroNoiseExtrapolation((1, 3)))
    executor = DispatchedExecutor(noisy(4000, seed=0, mitigation=mitigation))
    given = jobs(executor, circuit, 4)
    mitigated = executor.run(given)[0]
    assert mitigated.run.submissions == 2
    assert mitigated.run.circuits == 4 * 3 * 2 + 2
    exact = ShotsExecutor(None)
    ideal = sampled_at(exact, circuit, executor, given)
    plain = DispatchedExecutor(noisy(4000, seed=0)).run(given)[0]
    assert np.abs(mitigated.values - ideal).mean() < np.abs(plain.values - ideal).mean()


def sampled_at(exact: Executor, circuit: CircuitTemplate, executor: Executor, given: list[Job]) -> np.ndarray:
    """Exact values at the angles of a compiled circuit: by simulating that circuit without noise."""
    from qcascade.dispatch.simulate import simulated
    from qcascade.executors.base import Log

    inner = noisy(None)
    assert isinstance(executor, DispatchedExecutor)
    tasks = inner.tasks(given, Log(), inner.counted)
    return inner.estimates(given, [simulated(t, None, ()) for t in tasks], Log())[0][0]


@pytest.mark.parametrize("rule", ["shift", "spsa"])
def test_gradients_can_leave_with_the_forward_circuits(rule: str) -> None:
    circuit = template()
    data, weights = torch.rand(5, 1).double(), torch.rand(1).double().requires_grad_()
    gradients = []
    for ahead in (False, True):
        executor = DispatchedExecutor(ShotsExecutor(None, gradients=rule, seed=3))
        executor.gradients_ahead = ahead
        weights.grad = None
        sampled(executor, circuit, data=data, weights=weights).square().sum().backward()
        gradients.append(weights.grad.clone())
        assert len(executor.history) == 2 - ahead
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def hybrid() -> qcascade.HybridModule:
    torch.manual_seed(0)
    made = qcascade.compile(Words(), (torch.ones(2, 4, dtype=torch.long),), kernels=EMBEDDING_AND_HEAD).double()
    assert len(made.kernels) == 2
    return made


def step(hybrid: qcascade.HybridModule) -> tuple[Tensor, list[Tensor]]:
    ids = torch.randint(1, 20, (7, 4), generator=torch.Generator().manual_seed(1))
    hybrid.zero_grad()
    output = hybrid.train()(ids)
    output.square().sum().backward()
    return output.detach(), [p.grad.clone() for p in hybrid.parameters()]


@pytest.mark.parametrize("name", ["exact", "shots", "noisy"])
def test_micro_batches_give_identical_results(hybrid: qcascade.HybridModule, name: str) -> None:
    make = {
        "exact": lambda: ShotsExecutor(None),
        "shots": lambda: ShotsExecutor(60, seed=4),
        "noisy": lambda: noisy(60, seed=4),
    }[name]
    found = [step(hybrid.use(make(), microbatches=parts)) for parts in (1, 4, 4)]
    for output, gradients in found[1:]:
        torch.testing.assert_close(output, found[0][0], rtol=0, atol=1e-12)
        for one, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
    assert torch.equal(found[1][0], found[2][0])
    assert all(map(torch.equal, found[1][1], found[2][1]))  # bit for bit, again and again
    runs = hybrid.last_run
    assert [run.purpose for run in runs].count("values") == [run.purpose for run in runs].count("gradients") == 12
    with torch.no_grad():
        hybrid.eval()(torch.ones(3, 4, dtype=torch.long))
    assert {run.purpose for run in hybrid.last_run} == {"values"}
    hybrid.use("statevector")


def test_gradients_that_nobody_asked_for_are_not_those_of_the_next_call(hybrid: qcascade.HybridModule) -> None:
    executor = DispatchedExecutor(Later(20, seed=0), gradients_ahead="apart")
    ids = torch.randint(1, 20, (3, 4))
    hybrid.use(executor).train()(ids)
    hybrid(ids)  # while the first call's are still under way
    assert all(run.reused == run.circuits for run in hybrid.last_run)
    while executor.runs < 12:
        time.sleep(0.01)
    assert len(hybrid.last_run) == 6
    hybrid.use("statevector")


class Later(ShotsExecutor):
    """Gradients take longer than values."""

    def fetch(self, handle: str, shapes: list, **options: object) -> list:  # type: ignore[override,type-arg]
        time.sleep(0.1 if sum(rows for rows, _ in shapes) > 50 else 0.0)
        return super().fetch(handle, shapes, **options)  # type: ignore[arg-type]


def test_the_exact_simulator_has_no_dispatcher(hybrid: qcascade.HybridModule) -> None:
    hybrid.use("statevector", microbatches=4)
    assert all(kernel.executor is None for kernel in hybrid.kernels.values())
    step(hybrid)
    assert hybrid.last_run == ()


def test_saved_and_loaded(hybrid: qcascade.HybridModule) -> None:
    expected = step(hybrid.use("shots", shots=30, seed=2, microbatches=2))
    other = pickle.loads(pickle.dumps(hybrid))
    assert torch.equal(step(other)[0], expected[0])
    hybrid.use("statevector")


def test_parts_take_turns_in_order_whatever_takes_how_long() -> None:
    for delays in ([0.0, 0.05, 0.02], [0.05, 0.0, 0.0]):
        order: list[tuple[int, int]] = []

        def part(number: int, delay: float, order: list[tuple[int, int]] = order) -> int:
            for turn in range(3):
                order.append((turn, number))
                with waiting():
                    time.sleep(delay)
            return number

        assert take_turns([lambda n=n, d=d: part(n, d) for n, d in enumerate(delays)]) == [0, 1, 2]
        assert order == [(turn, number) for turn in range(3) for number in range(3)]


def test_the_failure_of_a_part_is_raised() -> None:
    def fails() -> int:
        with waiting():
            pass
        raise ValueError("part")

    with pytest.raises(ValueError, match="part"):
        take_turns([fails, lambda: 1])
    with torch.no_grad():
        assert take_turns([torch.is_grad_enabled] * 2) == [False, False]


def test_futures() -> None:
    circuit = template()
    executor = DispatchedExecutor(ShotsExecutor(None))
    given = jobs(executor, circuit)
    futures = [executor.start(given) for _ in range(3)]
    for future in futures:
        np.testing.assert_array_equal(future.result()[0].values, executor.run(given)[0].values)
    with pytest.raises(ExecutionError, match="not finite"):
        executor.start([Job(circuit, np.full_like(given[0].angles, np.nan))]).result()


def test_bad_arguments(hybrid: qcascade.HybridModule) -> None:
    for options, what in (
        ({"microbatches": 0}, "microbatches=0"),
        ({"journal": 3}, "journal=3"),
        ({"policy": "strict"}, r"qcascade\.Policy"),
    ):
        with pytest.raises(ExecutionError, match=what):
            hybrid.use("shots", shots=10, **options)
    with pytest.raises(ExecutionError, match="cannot be dispatched"):
        hybrid.use(DispatchedExecutor(ShotsExecutor(10)), policy=Policy())


def test_outputs_without_a_batch_are_refused() -> None:
    class Loss(Words):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids).sum()

    kernels = {"reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1}}
    made = qcascade.compile(Loss(), (torch.ones(2, 4, dtype=torch.long),), kernels=kernels, include="head")
    with pytest.raises(ExecutionError, match="micro-batches cannot be put together"):
        made.use("shots", shots=10, microbatches=2)(torch.ones(4, 4, dtype=torch.long))
