"""The Carleman lift, its history state and the simulated solver, against plain gradient descent and numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from qcascade.cost_models.fault_tolerant.carleman import fitted_decay, linearise, truncation_errors
from qcascade.cost_models.fault_tolerant.history import condition_bound, history
from qcascade.cost_models.fault_tolerant.linear_solver import solve
from qcascade.cost_models.fault_tolerant.logical import Problem, logical_resources
from qcascade.cost_models.fault_tolerant.phases import inverse_polynomial, odd_series, signal_values, symmetric_phases
from qcascade.cost_models.fault_tolerant.polynomial import PolynomialLoss, descend, polynomial_loss
from qcascade.errors import CircuitError, PlanError
from qcascade.studies.fault_tolerant.solver import SolverCase, run_solver, solver_table
from qcascade.studies.records import Records

START, RATE = np.array([0.25, -0.2]), 0.2


def loss(eigenvalues: tuple[float, float], seed: int = 0) -> PolynomialLoss:
    """A Hessian of these eigenvalues at 0, small random cubic terms, and a quartic that bounds it below."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(2, 2)))[0]
    quartic = np.zeros((2,) * 4)
    quartic[0, 0, 0, 0] = quartic[1, 1, 1, 1] = 0.25
    cubic = 0.15 * random.normal(size=(2, 2, 2))
    return polynomial_loss(0.3, np.zeros(2), basis @ np.diag(eigenvalues) @ basis.T / 2, cubic, quartic)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_gradient_and_hessian_are_the_finite_differences(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    made = polynomial_loss(*(random.normal(size=(n,) * k) for k in range(5)))
    point, h = random.normal(size=n), 1e-5
    steps = h * np.eye(n)
    slope = [(made.value(point + e) - made.value(point - e)) / (2 * h) for e in steps]
    curve = [(made.gradient(point + e) - made.gradient(point - e)) / (2 * h) for e in steps]
    np.testing.assert_allclose(made.gradient(point), slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.hessian(point), curve, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4))
def test_one_step_of_an_untruncated_power_is_exact(seed: int, n: int, order: int) -> None:
    """M y loses only what lies above K: with a linear step map, nothing, in every block and with a constant term."""
    random = np.random.default_rng(seed)
    made = polynomial_loss(0.0, random.normal(size=n), random.normal(size=(n, n)))
    lifted = linearise(made, 0.1, order)
    point = random.normal(size=n)
    expected = lifted.lift(descend(made, point, 0.1, 1)[-1])
    np.testing.assert_allclose(lifted.matrix @ lifted.lift(point) + lifted.constant, expected, atol=1e-10)


def test_the_error_decays_geometrically_with_the_order_where_all_is_dissipative() -> None:
    orders = range(1, 8)
    decay = fitted_decay(orders, truncation_errors(loss((1.0, 0.6)), START, RATE, 60, orders))
    assert decay.high < 0.75  # the whole 95 % interval
    assert decay.r_squared > 0.95


def test_it_does_not_where_a_direction_is_not() -> None:
    orders = range(1, 8)
    saddle = truncation_errors(loss((1.0, -0.6)), START, RATE, 60, orders)
    bowl = truncation_errors(loss((1.0, 0.6)), START, RATE, 60, orders)
    assert saddle.min() > 1 > bowl.max()
    assert saddle[-1] > saddle[0]


def test_the_euler_form_has_a_floor_that_falls_with_the_rate() -> None:
    made = loss((1.0, 0.6))
    floors = [truncation_errors(made, START, rate, round(12 / rate), [7], "euler")[0] for rate in (0.2, 0.1, 0.05)]
    exact = truncation_errors(made, START, 0.2, 60, [7])[0]
    assert floors[0] > 1.5 * exact
    assert floors[0] > floors[1] > floors[2]


@pytest.mark.parametrize("idle", [0, 5])
def test_the_history_solved_is_the_lift_run(idle: int) -> None:
    lifted = linearise(loss((1.0, 0.6)), RATE, 3)
    system = history(lifted, START, 9, idle)
    np.testing.assert_allclose(system.path(system.solve()), lifted.run(START, 9), atol=1e-12)


@pytest.mark.parametrize("eigenvalues", [(1.0, 0.6), (1.0, -0.6)])
def test_the_condition_number_is_within_its_bound(eigenvalues: tuple[float, float]) -> None:
    lifted = linearise(loss(eigenvalues), RATE, 3)
    norm = float(np.linalg.norm(lifted.matrix.toarray(), 2))
    assert history(lifted, START, 9, 9).condition() <= condition_bound(9, 9, norm)


def test_rescaling_changes_the_lift_but_not_the_descent() -> None:
    made = loss((1.0, 0.6))
    unit = 0.5
    np.testing.assert_allclose(
        unit * descend(made.rescaled(unit), START / unit, RATE, 20), descend(made, START, RATE, 20), atol=1e-13
    )


def test_the_end_is_found_at_least_as_often_as_the_resource_model_says() -> None:
    made, steps = loss((1.0, 0.6)), 12
    lifted = linearise(made, RATE, 3)
    system = history(lifted, START, steps, steps)
    states = system.solve().reshape(2 * steps + 1, -1)
    decay = np.linalg.norm(states, axis=1).max() / np.linalg.norm(states[-1])
    norm = float(np.linalg.norm(states[-1, :2]))
    counted = logical_resources(Problem(2, steps, 2, decay=decay, norm=norm))
    assert system.end_probability(system.solve()) >= counted.end_probability


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_phases_give_their_polynomial(coefficients: list[float]) -> None:
    series = np.array(coefficients)
    series *= 0.8 / max(1.0, np.abs(series).sum())
    x = np.linspace(-1, 1, 31)
    np.testing.assert_allclose(signal_values(symmetric_phases(series), x).imag, odd_series(series, x), atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.floats(1, 200), st.floats(1e-6, 0.5))
def test_the_inverse_polynomial_is_one_over_x(kappa: float, precision: float) -> None:
    """As close as it says, bounded, and of no larger degree than the bound."""
    made = inverse_polynomial(kappa, precision)
    x = np.linspace(1 / kappa, 1, 1001)
    assert np.abs(x * made(x) / made.scale - 1).max() <= made.error + 1e-8 <= precision + 1e-8
    assert np.abs(made(np.linspace(-1, 1, 4001))).max() < 0.91
    assert made.degree <= kappa * np.log(2 / precision) + 1


@pytest.mark.parametrize(("kappa", "terms"), [(3.0, 4), (10.0, 12)])
def test_no_odd_polynomial_of_that_degree_is_closer(kappa: float, terms: int) -> None:
    """Against the best one by linear programming on a fine grid."""
    x = np.cos(np.linspace(0, np.arccos(1 / kappa), 400))
    basis = x[:, None] * np.cos(np.arccos(x)[:, None] * (2 * np.arange(terms) + 1))
    slack = -np.ones((len(x), 1))
    rows, ones = np.block([[basis, slack], [-basis, slack]]), np.repeat([1.0, -1.0], len(x))
    best = linprog(np.eye(terms + 1)[-1], rows, ones, bounds=(None, None)).fun
    made = inverse_polynomial(kappa, 1.001 * best)
    assert made.degree == 2 * terms - 1
    assert made.error == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_the_simulated_solver_solves(size: int) -> None:
    random = np.random.default_rng(size)
    a, b = random.normal(size=(size, size)) + 2 * np.eye(size), random.normal(size=size)
    run = solve(a, b, 1e-4)
    np.testing.assert_allclose(run.solution, np.linalg.solve(a, b), rtol=0, atol=2e-3 * np.linalg.norm(run.solution))
    assert run.fidelity > 1 - 1e-5
    assert 0 < run.success_probability < 1


def test_the_whole_way_from_a_loss_to_its_parameters_on_eight_qubits() -> None:
    made, rate, steps = loss((1.0, 0.6)), 0.4, 7
    lifted = linearise(made, rate, 2)
    system = history(lifted, START, steps)
    run = solve(system.matrix, system.right, 1e-2)
    assert run.qubits == 8  # 48 unknowns in 6, and two ancillas
    assert run.condition == pytest.approx(system.condition(), rel=1e-9)
    assert run.fidelity > 0.9999
    np.testing.assert_allclose(system.path(run.solution), lifted.run(START, steps), atol=0.02 * np.linalg.norm(START))
    truncation = np.abs(lifted.run(START, steps) - descend(made, START, rate, steps)).max()
    assert np.abs(system.path(run.solution) - descend(made, START, rate, steps)).max() < truncation + 0.01


def test_the_study_s_cases_run_and_tell_what_they_leave_out(tmp_path: Path) -> None:
    cases = SolverCase("saddle", 1, 3, 0), SolverCase("saddle", 2, 3, 4, simulate=False)
    records = Records(tmp_path / "solver.jsonl")
    ran, left_out = (records.add(case, run_solver(case)) for case in cases)
    assert ran.measured["infidelity"] < 1e-4
    assert ran.measured["end_error"] == pytest.approx(ran.measured["exact_end_error"], abs=0.01)
    assert "success_probability" not in left_out.measured
    assert left_out.measured["queries"] > ran.measured["queries"]
    assert "not simulated" in solver_table([ran, left_out]).markdown()


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(PlanError, match="coefficient tensor 2 has shape"):
        polynomial_loss(0.0, [0.0, 1.0], [[1.0]])
    with pytest.raises(PlanError, match="order is 0"):
        linearise(loss((1.0, 1.0)), RATE, 0)
    with pytest.raises(PlanError, match="at most"):
        linearise(loss((1.0, 1.0)), RATE, 20)
    with pytest.raises(PlanError, match="diverges"):
        truncation_errors(loss((1.0, 1.0)), 100 * START, RATE, 50, [1])
    with pytest.raises(PlanError, match="below 1: scale"):
        symmetric_phases(np.array([1.2]))
    with pytest.raises(CircuitError, match="singular"):
        solve(np.ones((2, 2)), [1.0, 0.0])
    with pytest.raises(CircuitError, match="qubits"):
        solve(np.eye(2000), np.ones(2000))
    with pytest.raises(CircuitError, match="square"):
        solve(np.eye(2), np.ones(3))
