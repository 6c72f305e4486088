"""Quantum gradient descent beside the classical one: seconds, and the n and T from which the quantum one would be faster, if any.

In: a `Problem`, and what a classical step costs here (`ClassicalStep`: predicted by this machine's roofline, or measured). Out: logical
and physical resources with and without the download of the parameters. Break-even in n holds s, K, ε, q and the classical seconds a
parameter fixed and κ at its bound where none was given (a κ given for one T is scaled with T); it is sought up to `MOST_PARAMETERS`
and `MOST_STEPS` by bisection between powers of ten. Classical time is proportional to n · T; the quantum computer's seconds a gate are
held at the problem's own, which flatters it at larger n and T, where the code distance grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from qcascade.cost_models.fault_tolerant.logical import LogicalResources, Problem, logical_resources
from qcascade.cost_models.fault_tolerant.physical import HARDWARE, PhysicalEstimate, physical
from qcascade.errors import PlanError

MOST_PARAMETERS, MOST_STEPS = 10**24, 10**12


@dataclass(frozen=True, slots=True)
class ClassicalStep:
    """One step of training on a classical machine; seconds of n parameters are in proportion."""

    machine: str
    seconds: float
    parameters: int  # trained, before pruning: the classical side is not credited with sparsity
    measured: bool

    def total(self, parameters: float, steps: float) -> float:
        """Seconds of `steps` steps of a model of this kind with `parameters` parameters."""
        return self.seconds * steps * parameters / self.parameters


@dataclass(frozen=True, slots=True)
class HardwareOutlook:
    """On one kind of hardware; seconds are expected values, repeated runs included. None: not estimated, or no such point."""

    estimate: PhysicalEstimate
    state_seconds: float | None  # until one copy of |θ(T)⟩
    upload_seconds: float | None  # of one preparation of |θ(0)⟩, at the run's mean time a Toffoli
    download_seconds: float | None  # of all copies that tomography takes
    break_even_parameters: int | None  # state against T classical steps, nothing downloaded
    break_even_steps: int | None
    downloaded_break_even_parameters: int | None
    downloaded_break_even_steps: int | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """All of it for one problem."""

    problem: Problem
    logical: LogicalResources
    classical_seconds: float
    hardware: tuple[HardwareOutlook, ...]


def outlook(problem: Problem, step: ClassicalStep, kept: float, hardware: tuple[str, ...] = tuple(HARDWARE)) -> Outlook:
    """Estimate and compare.

    Args:
        problem: with n the kept parameters.
        step: the classical step of the model that n was pruned from.
        kept: share of the parameters that pruning kept, so that n / kept are trained classically.
        hardware: names of `HARDWARE`.

    Example:
        >>> step = ClassicalStep("m", 1e-3, 10_000, measured=False)
        >>> told = outlook(Problem(1000, 100, 10), step, 0.1, ("majorana",))
        >>> told.hardware[0].downloaded_break_even_parameters is None
        True
    """
    logical = logical_resources(problem)
    classical = step.total(problem.parameters / kept, problem.steps)
    return Outlook(problem, logical, classical, tuple(_on(h, problem, logical, step, kept) for h in hardware))


@dataclass(frozen=True, slots=True)
class Scaling:
    """Seconds against the number of kept parameters, under the assumptions of break-even (see the module)."""

    hardware: str
    access: str
    parameters: tuple[int, ...]
    classical: tuple[float, ...]
    state: tuple[float, ...]
    downloaded: tuple[float, ...]


def scaling(
    told: Outlook, hardware: str, step: ClassicalStep, kept: float, parameters: Sequence[int]
) -> Scaling | None:
    """Of an outlook, at these n; None where the estimator gave nothing."""
    found = next((h for h in told.hardware if h.estimate.hardware == hardware), None)
    if found is None:
        raise PlanError(
            f"hardware {hardware!r} is not in the outlook; it has {[h.estimate.hardware for h in told.hardware]}."
        )
    if found.estimate.seconds is None:
        return None
    rate = found.estimate.seconds / told.logical.depth
    problems = [replace(told.problem, parameters=n) for n in parameters if n >= max(2, told.problem.row_sparsity)]
    counted = [logical_resources(p) for p in problems]
    state = tuple(rate * c.depth * c.runs_per_copy for c in counted)
    return Scaling(
        hardware,
        told.problem.access,
        tuple(p.parameters for p in problems),
        tuple(step.total(p.parameters / kept, p.steps) for p in problems),
        state,
        tuple(s * c.download_copies for s, c in zip(state, counted, strict=True)),
    )


def _on(name: str, problem: Problem, logical: LogicalResources, step: ClassicalStep, kept: float) -> HardwareOutlook:
    estimate = physical(logical, name)
    if estimate.seconds is None:
        return HardwareOutlook(estimate, None, None, None, None, None, None, None)
    state = estimate.seconds * logical.runs_per_copy
    rate = estimate.seconds / logical.depth

    def faster(changed: Problem, copies: bool) -> bool:
        counted = logical_resources(changed)
        quantum = rate * counted.depth * counted.runs_per_copy * (counted.download_copies if copies else 1)
        return quantum <= step.total(changed.parameters / kept, changed.steps)

    def with_parameters(n: int) -> Problem:
        return replace(problem, parameters=n)

    def with_steps(steps: int) -> Problem:
        kappa = None if problem.condition is None else max(1.0, problem.condition * steps / problem.steps)
        return replace(problem, steps=steps, condition=kappa)

    least = max(2, problem.row_sparsity)
    return HardwareOutlook(
        estimate,
        state,
        estimate.seconds * logical.upload_toffolis / logical.toffolis,
        state * logical.download_copies,
        _first(lambda n: faster(with_parameters(n), False), least, MOST_PARAMETERS),
        _first(lambda t: faster(with_steps(t), False), 1, MOST_STEPS),
        _first(lambda n: faster(with_parameters(n), True), least, MOST_PARAMETERS),
        _first(lambda t: faster(with_steps(t), True), 1, MOST_STEPS),
    )


def _first(holds: Callable[[int], bool], least: int, most: int) -> int | None:
    """The smallest point found at which it holds: the first power of ten times `least`, then bisected to one per cent."""
    low, high = least, least
    while not holds(high):
        if high >= most:
            return None
        low, high = high, min(most, high * 10)
    while high > least and high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
