"""The portfolio: front ends by methods and seeds, the best by predicted fidelity.

What comes in: a problem and a target. What goes out: the best circuit in native gates, and what every way reached.
Without calibration the fewest two-qubit gates win, then the least depth of them. Qiskit's own result for the circuit as it
came, for each seed, is always among the candidates.

1. Front ends rewrite the circuit (`simplify`); those that come to the same are tried once.
2. Methods place and route each rewritten circuit (`methods`), with a few seeds.
3. The two rewritten circuits that do best get the other seeds, the best of them twice as many again.
4. The best few results have their blocks written anew and are laid on better qubits (`placement`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from qcascade.errors import CircuitError
from qcascade.routing.methods import METHODS, in_native_gates, polished, prediction
from qcascade.routing.placement import replaced
from qcascade.routing.problem import Placed, Problem
from qcascade.routing.simplify import FRONT_ENDS, SLOW
from qcascade.routing.workers import Unfinished, can_start_before, run_tasks
from qcascade.targets import Target

_FEW = 3  # seeds of each rewritten circuit before the best are chosen
_BETTERED = 12  # results whose blocks are written anew
_PLACES = 6  # places tried for each of them
T = TypeVar("T")


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
    search = _Search(problem, target, workers, deadline, done)
    search.run([("raw", problem, "qiskit", 0)])
    written = search.rewritten()
    few = range(min(_FEW, seeds))
    runs = [("raw", problem, "qiskit", seed) for seed in range(1, seeds)]
    for name, found in written.items():
        runs += [(name, found, "qiskit", seed) for seed in few if name != "raw"]
        runs += [(name, found, "embedding", 0)]
        runs += [(name, found, "tket", 0)] if name in ("raw", "peephole") else []
    search.run(runs)
    ranked = sorted((n for n in written if n in search.best), key=lambda n: worth(search.best[n]))[:2]
    more = [(n, s) for n in ranked for s in range(len(few), seeds) if n != "raw"]
    search.run(
        [
            (n, written[n], "qiskit", s)
            for n, s in [*more, *((n, seeds + s) for n in ranked[:1] for s in range(2 * seeds))]
        ]
    )
    if not search.reached:
        reasons = "; ".join(f"{a.method}: {a.reason}" for a in search.attempts if a.reason) or "no method applies"
        raise CircuitError(f"the circuit could not be routed for target {target.name!r}: {reasons}.")
    search.better()
    placed, attempt = min(search.reached, key=lambda one: worth(one[1]))
    return Outcome(placed, attempt.method, tuple(search.attempts), search.whole)


@dataclass
class _Search:
    """A running search: what has been tried, and what each rewritten circuit has come to."""

    problem: Problem
    target: Target
    workers: int
    deadline: float | None
    done: Callable[[int, int], None]
    attempts: list[Attempt] = field(default_factory=list)
    reached: list[tuple[Placed, Attempt]] = field(default_factory=list)
    best: dict[str, Attempt] = field(default_factory=dict)
    whole: bool = True
    finished: int = 0

    def rewritten(self) -> dict[str, Problem]:
        """The circuit by every front end, without repetitions.

        Those that may take long have half of what time is left, in processes that can be ended.
        """
        quick = [name for name in FRONT_ENDS if name not in SLOW]
        names = [*quick, *SLOW]
        made = self._tasks(_front, [(name, self.problem, self.target) for name in quick])
        slow = [(name, self.problem, self.target) for name in SLOW]
        if self.deadline is None:
            made += self._tasks(_front, slow)
        else:
            half = (time.monotonic() + self.deadline) / 2
            late = [Unfinished("the time was up", late=True)] * len(slow)
            made += (
                run_tasks(_front, slow, workers=self.workers, deadline=half, here=False)
                if can_start_before(half)
                else late
            )
        found: dict[str, Problem] = {}
        for name, one in zip(names, made, strict=True):
            if isinstance(one, Unfinished):
                self._failed(name, 0, one)
            elif one is not None and one not in found.values():
                found[name] = one
        return found

    def run(self, runs: list[tuple[str, Problem, str, int]]) -> None:
        """Route rewritten circuits: (front end, its circuit, method, seed)."""
        tasks = [(found, self.target, method, seed) for _, found, method, seed in runs]
        for (front, _, method, seed), placed in zip(runs, self._tasks(_try, tasks), strict=True):
            name = f"{front}, {method}"
            if isinstance(placed, Unfinished):
                self._failed(name, seed, placed)
            elif placed is not None:
                attempt = _attempt(placed, self.problem, self.target, name, seed)
                self._add(placed, attempt)
                self.best[front] = min(self.best.get(front, attempt), attempt, key=worth)

    def better(self) -> None:
        """Write the blocks of the best anew and lay them on better qubits."""
        chosen = _distinct(sorted(self.reached, key=lambda one: worth(one[1])))
        tasks = [(placed, self.problem, self.target) for placed, _ in chosen]
        for (_, way), found in zip(chosen, self._tasks(_bettered, tasks), strict=True):
            if isinstance(found, Unfinished):
                self.whole = False
                continue
            for placed, how in found:
                self._add(placed, _attempt(placed, self.problem, self.target, f"{way.method}, {how}", way.seed))

    def _add(self, placed: Placed, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        self.reached.append((placed, attempt))

    def _failed(self, method: str, seed: int, result: Unfinished) -> None:
        self.attempts.append(Attempt(method, seed, None, None, None, result.reason))
        self.whole = self.whole and not result.late

    def _tasks(self, work: Callable[..., T], tasks: Sequence[tuple[Any, ...]]) -> list[T | Unfinished]:
        if self.reached and self.deadline is not None and time.monotonic() >= self.deadline:
            return [Unfinished("the time was up", late=True)] * len(tasks)
        total = self.finished + len(tasks)

        def told() -> None:
            self.finished += 1
            self.done(self.finished, total)

        return run_tasks(work, tasks, workers=self.workers, deadline=self.deadline, done=told)


def worth(attempt: Attempt) -> tuple[float, int, int]:
    """What is least for the best attempt: −ln fidelity, two-qubit gates, their depth."""
    loss = 0.0 if attempt.fidelity is None else -math.log(max(attempt.fidelity, 1e-300))
    return loss, attempt.two_qubit_gates or 0, attempt.two_qubit_depth or 0


def _front(name: str, problem: Problem, target: Target) -> Problem | None:
    return FRONT_ENDS[name](problem, "rzz" in target.operations)


def _try(problem: Problem, target: Target, method: str, seed: int) -> Placed | None:
    placed = METHODS[method](problem, target, seed)
    return None if placed is None else in_native_gates(placed, problem, target)


def _bettered(placed: Placed, problem: Problem, target: Target) -> list[tuple[Placed, str]]:
    """The best way to write the circuit's blocks, and it in its best place."""
    ways = [placed, *polished(placed, problem, target)]
    ranked = sorted(ways, key=lambda way: worth(_attempt(way, problem, target, "", 0)))
    laid = replaced(ranked[0], problem.measured, target, problem.keep, most=_PLACES)
    found = [(ranked[0], "blocks anew")] if ranked[0] is not placed else []
    return found + [(min(laid, key=lambda way: worth(_attempt(way, problem, target, "", 0))), "laid anew")] * bool(laid)


def _attempt(placed: Placed, problem: Problem, target: Target, method: str, seed: int) -> Attempt:
    fidelity = prediction(placed, problem, target).fidelity
    return Attempt(method, seed, fidelity, placed.circuit.two_qubit_gates, placed.circuit.two_qubit_depth)


def _distinct(reached: list[tuple[Placed, Attempt]]) -> list[tuple[Placed, Attempt]]:
    """Without those whose gates are alike in number and depth: they differ in their places, which are chosen anew."""
    found: dict[tuple[int | None, ...], tuple[Placed, Attempt]] = {}
    for placed, attempt in reached:
        found.setdefault((attempt.two_qubit_gates, attempt.two_qubit_depth, len(placed.circuit.ops)), (placed, attempt))
    fewest = sorted(found.values(), key=lambda one: (one[1].two_qubit_gates or 0, worth(one[1])))[: _BETTERED // 3]
    return [*fewest, *(one for one in found.values() if one not in fewest)][:_BETTERED]
