"""Resource counts: laws of their formulas, qdk's estimator, and break-even found where it is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcascade.cost_models.fault_tolerant.logical import (
    SOLVERS,
    Problem,
    download_copies,
    logical_resources,
    lookup,
    state_preparation,
)
from qcascade.cost_models.fault_tolerant.outlook import ClassicalStep, outlook
from qcascade.cost_models.fault_tolerant.physical import HARDWARE, MOST_GATES, estimate_counts, physical
from qcascade.errors import PlanError

SMALL = Problem(parameters=1000, steps=100, row_sparsity=10)


@pytest.mark.parametrize(
    ("entries", "bits", "copies", "toffolis"),
    [(1024, 16, 8, 126 + 448 // 4 + 60), (10**6, 16, 256, 3905 + 16320 // 4 + 1997)],
)
def test_lookups_cost_what_qualtran_counts(entries: int, bits: int, copies: int, toffolis: int) -> None:
    """QROAMClean and its adjoint in qualtran 0.7.0, run apart (tests/benchmarks/fault_tolerant.py --qualtran)."""
    assert lookup(entries, bits, bits * copies).toffolis == pytest.approx(toffolis, abs=8)


@pytest.mark.parametrize(("amplitudes", "toffolis"), [(16, 106), (64, 274), (256, 874)])
def test_preparing_a_state_costs_no_more_than_qualtran_counts(amplitudes: int, toffolis: int) -> None:
    """StatePreparationViaRotations in qualtran 0.7.0, which also sets phases and clears without measurement (the same benchmark)."""
    assert 0.4 * toffolis < state_preparation(amplitudes, 16, 10_000, "lookup").toffolis < toffolis


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 10**9), st.integers(1, 64), st.integers(1, 10**6))
def test_more_room_never_costs_more(entries: int, bits: int, room: int) -> None:
    assert lookup(entries, bits, 2 * room).toffolis <= lookup(entries, bits, room).toffolis * 1.01 + 2 * bits
    assert lookup(entries, bits, room).toffolis <= 2 * entries + 2 * math.isqrt(entries) + bits


def test_queries_are_linear_in_steps_and_sparsity_and_logarithmic_in_precision() -> None:
    made = logical_resources(SMALL)
    assert logical_resources(replace(SMALL, steps=400)).queries / made.queries == pytest.approx(801 / 201, rel=1e-6)
    assert logical_resources(replace(SMALL, row_sparsity=40)).subnormalisation == 4 * made.subnormalisation
    finer = logical_resources(replace(SMALL, precision=1e-4)).queries - made.queries
    assert finer == pytest.approx(1.05 * 128 * 201 * math.log(100), rel=1e-3)
    given_kappa = logical_resources(replace(SMALL, condition=made.condition / 2))
    assert given_kappa.queries == pytest.approx(made.queries / 2, rel=1e-6)


def test_only_the_quantum_memory_makes_the_cost_logarithmic_in_parameters() -> None:
    ratios = {}
    for access in ("lookup", "qram"):
        small, large = (logical_resources(replace(SMALL, parameters=n, access=access)) for n in (10**4, 10**8))
        ratios[access] = large.toffolis / small.toffolis
    assert ratios["qram"] < 4 < 100 < ratios["lookup"]
    assert logical_resources(SMALL).memory_calls == 0
    assert logical_resources(replace(SMALL, access="qram")).memory_calls > 0


def test_upload_and_download_are_apart() -> None:
    made = logical_resources(SMALL)
    assert made.upload_toffolis == state_preparation(1000, 16, 10_000, "lookup").toffolis
    assert made.download_copies == download_copies(1000, 0.1) == 2 * math.ceil(36 * 1000 * math.log(1000) / 0.01)
    assert made.t_gates == 4 * made.toffolis
    assert 0 < made.end_probability < 1 < made.runs_per_copy


@pytest.mark.parametrize("smallest", [1.0, 0.2, 0.08])
@pytest.mark.parametrize("size", [64, 4096])
def test_that_many_copies_give_the_vector(size: int, smallest: float) -> None:
    """Both rounds of vector state tomography drawn exactly; `smallest` times δ/√k is where all but one number lie, if not 1."""
    random, precision = np.random.default_rng(size), 0.1
    x = random.normal(size=size)
    if smallest < 1:
        x = np.append(smallest * precision / np.sqrt(size) * np.sign(x[1:]), 1.0)
    x /= np.linalg.norm(x)
    copies = download_copies(size, precision) // 2
    found = np.sqrt(random.multinomial(copies, x**2) / copies)
    both = np.concatenate([(x + found) ** 2, (x - found) ** 2]) / 4
    alike = random.multinomial(copies, both / both.sum())[:size]
    signs = np.where(alike > 0.4 * found**2 * copies, 1, -1)
    assert np.linalg.norm(signs * found - x) < precision / 5


def test_the_solver_measured_in_practice_asks_less_than_the_proven_one() -> None:
    proven, measured = (s.queries(100.0, 1e-3) for s in SOLVERS.values())
    assert measured < proven / 4
    assert measured > 100 * (
        1.84 + np.log(2 / 1e-3)
    )  # a walk that is one away from its end, and a filter that never fails


@settings(max_examples=50, deadline=None)
@given(st.floats(2, 1e4), st.floats(1e-8, 0.5))
def test_the_filter_takes_no_more_steps_than_counted(kappa: float, precision: float) -> None:
    """ε T_ℓ(β cos φ), 1 at φ = 0, is at most ε beyond the gap 1/κ after ℓ ≤ κ ln(2/ε) steps (Costa et al. 2022, arXiv 2111.08152)."""
    steps = math.acosh(1 / precision) / math.atanh(math.sin(1 / kappa))  # arccosh(1/cos x) without its loss of digits
    assert steps <= kappa * math.log(2 / precision)
    order = math.ceil(steps)
    beta = math.cosh(math.acosh(1 / precision) / order)
    angles = np.linspace(1 / kappa, math.pi / 2, 2001)
    assert (beta * np.cos(angles) <= 1 + 1e-9).all()  # where |T_ℓ| ≤ 1
    assert precision * math.cosh(order * math.acosh(beta)) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("hardware", HARDWARE)
def test_physical_estimates_grow_with_the_circuit(hardware: str) -> None:
    small, large = estimate_counts(100, 10**8, 10, hardware), estimate_counts(100, 10**12, 10, hardware)
    assert small.qubits is not None and large.qubits is not None and small.qubits < large.qubits
    assert small.seconds is not None and large.seconds is not None and large.seconds > 5000 * small.seconds
    assert small.code_distance is not None and large.code_distance is not None
    assert small.code_distance < large.code_distance
    assert not large.lower_bound


def test_longer_runs_than_the_estimator_counts_are_lower_bounds() -> None:
    beyond = estimate_counts(100, 1000 * MOST_GATES, 10, "majorana")
    within = estimate_counts(100, MOST_GATES - 10, 10, "majorana")
    assert beyond.lower_bound and not within.lower_bound
    assert beyond.seconds == pytest.approx(1000 * within.seconds, rel=1e-3)


def test_there_is_a_break_even_for_a_state_with_free_memory_and_none_with_download() -> None:
    step = ClassicalStep("a slow one", 1.0, 10_000, measured=False)
    found = outlook(replace(SMALL, access="qram"), step, 0.1, ("majorana",)).hardware[0]
    n, base = found.break_even_parameters, logical_resources(replace(SMALL, access="qram"))
    estimated = physical(base, "majorana").seconds
    assert n is not None and estimated is not None
    rate = estimated / base.depth

    def quantum_over_classical(parameters: int) -> float:
        counted = logical_resources(replace(SMALL, access="qram", parameters=parameters))
        return rate * counted.depth * counted.runs_per_copy / step.total(parameters / 0.1, SMALL.steps)

    assert quantum_over_classical(n) <= 1 < quantum_over_classical(int(n * 0.95))
    assert found.downloaded_break_even_parameters is None
    assert found.downloaded_break_even_steps is None
    assert found.state_seconds is not None and found.download_seconds is not None
    assert found.download_seconds == pytest.approx(found.state_seconds * download_copies(1000, 0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": 1}, "parameters is 1"),
        ({"row_sparsity": 2000}, "row_sparsity is 2000"),
        ({"precision": 0.0}, "precision is 0.0"),
        ({"access": "magic"}, "choose lookup or qram"),
        ({"solver": "hhl"}, "choose one of"),
        ({"condition": 0.5}, "condition is 0.5"),
    ],
)
def test_bad_problems_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_bad_hardware_is_refused() -> None:
    with pytest.raises(PlanError, match="choose one of"):
        estimate_counts(10, 10, 10, "abacus")
    with pytest.raises(PlanError, match="error_budget"):
        estimate_counts(10, 10, 10, "majorana", 2.0)
