"""The portfolio: every front end by every method and seed, the best by predicted fidelity.

What comes in: a problem and a target. What goes out: the best circuit in native gates, and what every way reached.
Without calibration the fewest two-qubit gates win, then the least depth of them. Qiskit's own result for the circuit as it
came, for each seed, is always among the candidates.

1. Front ends rewrite the circuit (`simplify`); those that come to the same are tried once.
2. Methods place and route each rewritten circuit, with every seed (`methods`), results are written in native gates and
   their blocks anew.
3. The best few are laid on better qubits (`placement`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qcascade.errors import CircuitError
from qcascade.routing.methods import METHODS, in_native_gates, polished, prediction
from qcascade.routing.placement import replaced
from qcascade.routing.problem import Placed, Problem
from qcascade.routing.simplify import FRONT_ENDS
from qcascade.routing.workers import Unfinished, run_tasks
from qcascade.targets import Target

_BETTERED = 12  # candidates whose blocks are written anew
_LAID = 6  # candidates laid anew, and places tried for each


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one way reached; `reason` where it came to nothing, and then the figures are None."""

    method: str
    seed: int
    fidelity: float | None
    two_qubit_gates: int | None
    two_qubit_depth: int | None
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """The best circuit, the way that found it, and all attempts; `whole` if no budget cut any."""

    placed: Placed
    method: str
    attempts: tuple[Attempt, ...]
    whole: bool


def best_of_portfolio(
    problem: Problem,
    target: Target,
    *,
    seeds: int,
    deadline: float | None,
    workers: int,
    done: Callable[[int, int], None] = lambda finished, tasks: None,
) -> Outcome:
    """Run the portfolio.

    Args:
        problem: What to route.
        target: Where to.
        seeds: Seeds of every method that has any.
        deadline: See `run_tasks`; the first seed of Qiskit's transpiler always runs to its end.
        workers: Processes at most.
        done: Told how many tasks are done, of how many.

    Raises:
        CircuitError: No method could route the circuit.
    """
    fronts = list(FRONT_ENDS)
    first = _try(problem, target, "raw", "qiskit", 0)
    finished, total = 1, 1 + len(fronts)

    def told() -> None:
        nonlocal finished
        finished += 1
        done(finished, total)

    written = _Distinct()
    runs: list[tuple[Problem, Target, str, str, int]] = []
    if deadline is None or time.monotonic() < deadline:
        fronted = run_tasks(
            _front, [(name, problem, target) for name in fronts], workers=workers, deadline=deadline, done=told
        )
        for name, made in zip(fronts, fronted, strict=True):
            written.add(name, made)
        for name, found in written.problems:
            for method in METHODS:
                many = range(seeds) if method == "qiskit" else range(1)
                runs += [(found, target, name, method, s) for s in many if (name, method, s) != ("raw", "qiskit", 0)]
    total = finished + len(runs)
    late = deadline is not None and time.monotonic() >= deadline
    tried = [] if late else run_tasks(_try, runs, workers=workers, deadline=deadline, done=told)
    attempts, reached = list(written.failed), list[tuple[Placed, Attempt]]()
    for result, (name, method, seed) in zip(
        [first, *tried], [("raw", "qiskit", 0), *(r[2:] for r in runs)], strict=False
    ):
        if isinstance(result, Unfinished):
            attempts.append(Attempt(f"{name}, {method}", seed, None, None, None, result.reason))
        elif result is not None:
            attempts.append(result[1])
            reached.append(result)
    if not reached:
        reasons = "; ".join(f"{a.method}: {a.reason}" for a in attempts if a.reason) or "no method applies"
        raise CircuitError(f"the circuit could not be routed for target {target.name!r}: {reasons}.")
    reached.sort(key=lambda one: worth(one[1]))
    best, attempt = reached[0]
    for placed, way in _bettered(_distinct(reached)[:_BETTERED], problem, target):
        if worth(way) < worth(attempt):
            best, attempt = placed, way
    if attempt not in attempts:
        attempts.append(attempt)
    whole = not late and not any(isinstance(r, Unfinished) and "time" in r.reason for r in tried) and bool(runs)
    return Outcome(best, attempt.method, tuple(attempts), whole)


def worth(attempt: Attempt) -> tuple[float, int, int]:
    """What is least for the best attempt: −ln fidelity, two-qubit gates, their depth."""
    loss = 0.0 if attempt.fidelity is None else -math.log(max(attempt.fidelity, 1e-300))
    return loss, attempt.two_qubit_gates or 0, attempt.two_qubit_depth or 0


def _front(name: str, problem: Problem, target: Target) -> Problem | None:
    return FRONT_ENDS[name](problem, "rzz" in target.operations)


def _try(problem: Problem, target: Target, front: str, method: str, seed: int) -> tuple[Placed, Attempt] | None:
    placed = METHODS[method](problem, target, seed)
    if placed is None:
        return None
    name = f"{front}, {method}"
    native = in_native_gates(placed, problem, target)
    return native, _attempt(native, problem, target, name, seed)


def _bettered(
    reached: list[tuple[Placed, Attempt]], problem: Problem, target: Target
) -> Iterator[tuple[Placed, Attempt]]:
    """The circuits with their blocks written anew, and laid where they do best."""
    polish = [
        (other, _attempt(other, problem, target, f"{way.method}, blocks anew", way.seed))
        for placed, way in reached
        for other in polished(placed, problem, target)
    ]
    yield from polish
    polish = sorted([*reached, *polish], key=lambda one: worth(one[1]))
    for placed, way in _distinct(polish)[:_LAID]:
        for other in replaced(placed, problem.measured, target, problem.keep, most=_LAID):
            yield other, _attempt(other, problem, target, f"{way.method}, laid anew", way.seed)


def _attempt(placed: Placed, problem: Problem, target: Target, method: str, seed: int) -> Attempt:
    fidelity = prediction(placed, problem, target).fidelity
    return Attempt(method, seed, fidelity, placed.circuit.two_qubit_gates, placed.circuit.two_qubit_depth)


class _Distinct:
    """Rewritten problems without repetitions, and the front ends that failed."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, Problem]] = []
        self.failed: list[Attempt] = []

    def add(self, name: str, made: Problem | Unfinished | None) -> None:
        if isinstance(made, Unfinished):
            self.failed.append(Attempt(name, 0, None, None, None, made.reason))
        elif made is not None and all(made != other for _, other in self.problems):
            self.problems.append((name, made))


def _distinct(reached: list[tuple[Placed, Attempt]]) -> list[tuple[Placed, Attempt]]:
    """Without those whose gates are alike in number and depth: they differ in their places, which are chosen anew."""
    found: dict[tuple[int | None, ...], tuple[Placed, Attempt]] = {}
    for placed, attempt in reached:
        found.setdefault((attempt.two_qubit_gates, attempt.two_qubit_depth, len(placed.circuit.ops)), (placed, attempt))
    fewest = sorted(found.values(), key=lambda one: (one[1].two_qubit_gates or 0, worth(one[1])))[: _LAID // 2]
    return [*fewest, *(one for one in found.values() if one not in fewest)]
