"""Route a problem: checks, cache, portfolio, proof. `compile_template` and `route` both come here."""

from __future__ import annotations

import os
import sys
import time

from rich.console import Console
from rich.progress import Progress

from qcascade.errors import TargetError
from qcascade.routing.emission import one_qubit_basis
from qcascade.routing.portfolio import Outcome, best_of_portfolio
from qcascade.routing.problem import Options, Problem
from qcascade.routing.stored import read_outcome, stored_name, write_outcome
from qcascade.routing.verify import Proof, verify
from qcascade.targets import Target


def solve(problem: Problem, target: Target, options: Options) -> tuple[Outcome, Proof]:
    """The best circuit that the portfolio finds, or found before, and whether it is proven.

    Raises:
        TargetError: The circuit is wider than the target's largest connected part, or its gates are not supported.
        CircuitError: No method can route it, or the result differs from it.
    """
    one_qubit_basis(target)  # refuses what no method can write
    _check_width(problem, target)
    shortest = options.seconds == 0  # one method, one seed: repeatable, like a search that no budget cuts
    name = stored_name(problem, target, 0 if shortest else options.seeds)
    outcome = read_outcome(name) if options.cache else None
    found = outcome or _search(problem, target, options)
    proof = verify(problem, found.placed) if options.verify else Proof()
    if outcome is None and options.cache and (found.whole or shortest):
        write_outcome(name, found)
    return found, proof


def _search(problem: Problem, target: Target, options: Options) -> Outcome:
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = options.workers or cores
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"routing for {target.name}", total=None)
        return best_of_portfolio(
            problem,
            target,
            seeds=options.seeds,
            deadline=deadline,
            workers=workers,
            done=lambda finished, total: bar.update(task, completed=finished, total=total),
        )


def _check_width(problem: Problem, target: Target) -> None:
    largest = len(target.largest_component)
    if problem.source.width > largest:
        raise TargetError(
            f"the circuit has {problem.source.width} qubits; target {target.name!r} has {len(target.nodes)} usable ones, "
            f"{largest} of them connected. Take a smaller circuit or a larger target."
        )
