"""Samples of the exact state wherever they are drawn: here, divided among workers, or in the place of an executor that failed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit
from sympy import Symbol, pi

from qcascade import Policy
from qcascade.circuits.observables import one_and_two_body
from qcascade.circuits.template import CircuitTemplate, Expectations, Probabilities
from qcascade.dispatch import DispatchedExecutor
from qcascade.errors import BackendError
from qcascade.executors import DistributedExecutor, Executor, Job, ShotsExecutor
from qcascade.executors.base import Task


def template(measurement: object) -> CircuitTemplate:
    circuit = Circuit(3).Ry(Symbol("x") / pi, 0).CX(0, 2).Rx(Symbol("w") / pi, 1).CX(2, 1)
    return CircuitTemplate(circuit, ("x",), ("w",), measurement=measurement)


THREE_SETTINGS, ALL_OUTCOMES = template(Expectations(one_and_two_body(3))), template(Probabilities())


def jobs(executor: Executor, rows: Sequence[int]) -> list[Job]:
    random, made = np.random.default_rng(0), []
    for circuit, count in zip((THREE_SETTINGS, ALL_OUTCOMES), rows, strict=True):
        width = len(executor.prepare(circuit).angles.constants)
        made.append(Job(circuit, random.uniform(-3, 3, (count, width))))
    return made


@given(rows=st.tuples(st.integers(0, 40), st.integers(0, 40)), workers=st.integers(1, 5), seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_division_among_workers_draws_what_one_process_draws(rows: tuple[int, int], workers: int, seed: int) -> None:
    alone = ShotsExecutor(50, seed=seed)
    with ThreadPoolExecutor(2) as pool:
        divided = DistributedExecutor(pool, "shots", shots=50, seed=seed, workers=workers)
        for _ in range(2):  # the second run goes on where the first one ended
            for one, other in zip(alone.run(jobs(alone, rows)), divided.run(jobs(alone, rows)), strict=True):
                np.testing.assert_array_equal(one.values, other.values)
                np.testing.assert_array_equal(one.standard_errors, other.standard_errors)


class Refusing(ShotsExecutor):
    """Takes no work."""

    def submit(
        self, tasks: Sequence[Task], shots: int | None, *, tag: str | None = None, seeds: Sequence[bytes] | None = None
    ) -> str:
        raise BackendError("no work is taken")


@pytest.mark.parametrize("shots", [200, None])
def test_what_an_executor_of_the_exact_state_refused_is_simulated_in_its_place(
    tmp_path: Path, shots: int | None
) -> None:
    policy = Policy(fallback="simulate", retries=0)
    executor = DispatchedExecutor(Refusing(shots, seed=3), journal=tmp_path / "journal.sqlite", policy=policy)
    expected = DispatchedExecutor(ShotsExecutor(shots, seed=3))
    for found, wanted in zip(executor.run(jobs(expected, (5, 4))), expected.run(jobs(expected, (5, 4))), strict=True):
        np.testing.assert_array_equal(found.values, wanted.values)
        assert found.run.simulated == found.run.circuits == 3 * 5 + 4
        assert any(
            note.startswith("simulated in place of exact state") and "no work is taken" in note
            for note in found.run.notes
        )
    assert [record.state for record in executor.journal.records()] == ["simulated"]
