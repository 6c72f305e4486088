"""The fault-tolerant outlook in figures: the lift on a small loss, the simulated solver, resources; qualtran as a cross-check.

    python tests/benchmarks/fault_tolerant.py [--out fault_tolerant.jsonl]
    python tests/benchmarks/fault_tolerant.py --qualtran     # in an environment of its own: qualtran does not fit our pins

1. ``truncation``: error of the Carleman lift against gradient descent for K = 1 … 7, with a dissipative Hessian and with a saddle, and the
   fitted decay (None where the error does not fall).
2. ``solver``: the history system solved by QSVT on Aer: qubits, κ, queries, success probability, fidelity, probability of reading
   θ(T), and the error of θ(T) against gradient descent (six and eight qubits; wider: `qcascade study fault-tolerant --part solver`).
3. ``resources``: logical and physical figures and break-even for four sizes, T = 1000, s = 100 (optimistic: measured rows of a Hessian are
   nearly full), both accesses, beside a classical step of 10 ns a parameter (assumed here, so that lines do not depend on the machine).
With --qualtran: Toffolis of qualtran's QROAMClean and its adjoint beside ours, of its StatePreparationViaRotations (which also sets
phases, and clears its tables without measurement), of its comparator and of its controlled swap.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

RATE, STEPS = 0.2, 60


def truncation() -> Iterator[dict[str, Any]]:
    from qcascade.cost_models.fault_tolerant.carleman import fitted_decay, truncation_errors
    from qcascade.studies.fault_tolerant.solver import HESSIANS, START, small_loss

    orders = range(1, 8)
    for name in HESSIANS:
        errors = truncation_errors(small_loss(name), START, RATE, STEPS, orders)
        decay = asdict(fitted_decay(orders, errors)) if errors[-1] < errors[0] else None
        yield {"part": "truncation", "hessian": name, "errors": errors.tolist(), "decay": decay}


def solver() -> Iterator[dict[str, Any]]:
    from qcascade.studies.fault_tolerant.solver import SHORT, run_solver

    for case in SHORT:
        yield {"part": "solver", **asdict(case), **run_solver(case)}


def resources() -> Iterator[dict[str, Any]]:
    from qcascade.cost_models.fault_tolerant.logical import SOLVERS, Problem
    from qcascade.cost_models.fault_tolerant.outlook import ClassicalStep, outlook

    for kept in (10**4, 10**6, 10**8, 10**10):
        for access in ("lookup", "qram"):
            for name in SOLVERS:
                step = ClassicalStep("10 ns a parameter, assumed", 1e-8 * kept * 10, kept * 10, measured=False)
                problem = Problem(kept, 1000, 100, access=access, solver=name)  # type: ignore[arg-type]
                yield {"part": "resources", **asdict(outlook(problem, step, 0.1))}


def qualtran() -> Iterator[dict[str, Any]]:
    """Imports nothing of ours: the formulas of `logical.lookup` are written out beside qualtran's counts."""
    from qualtran.bloqs.data_loading.qroam_clean import QROAMClean, QROAMCleanAdjoint
    from qualtran.resource_counting import QECGatesCost, get_cost_value

    for entries, bits, copies in ((1024, 16, 1), (1024, 16, 8), (10**6, 16, 256), (10**6, 16, 512)):
        block = (copies.bit_length() - 1,)
        reading = QROAMClean.build_from_bitsize((entries,), (bits,), log_block_sizes=block)
        counts = [get_cost_value(b, QECGatesCost()).total_t_and_ccz_count()
                  for b in (reading, QROAMCleanAdjoint.build_from_bitsize((entries,), (bits,)))]  # fmt: skip
        toffolis = [c["n_ccz"] + c["n_t"] / 4 for c in counts]
        ours = [-(-entries // copies) + bits * (copies - 1), min(-(-entries // 2**k) + 2**k for k in range(20))]
        yield {
            "part": "qualtran",
            "entries": entries,
            "bits": bits,
            "copies": copies,
            "qualtran": toffolis,
            "ours": ours,
        }
    yield from _other_blocks(QECGatesCost(), get_cost_value)


def _other_blocks(gates: Any, cost_of: Any) -> Iterator[dict[str, Any]]:
    """Ours as `logical.state_preparation` has it: a rotation of 16 bits a level, look-ups of 2ʲ angles read and cleared."""
    from qualtran.bloqs.arithmetic import LessThanEqual
    from qualtran.bloqs.basic_gates import CSwap
    from qualtran.bloqs.state_preparation.state_preparation_via_rotation import StatePreparationViaRotations

    def toffolis(block: Any) -> float:
        counts = cost_of(block, gates).total_t_and_ccz_count()
        return float(counts["n_ccz"] + counts["n_t"] / 4)

    for amplitudes, ours in ((16, 94), (64, 194), (256, 394)):
        values = np.abs(np.random.default_rng(0).normal(size=amplitudes))
        block = StatePreparationViaRotations(
            phase_bitsize=16, state_coefficients=tuple(values / np.linalg.norm(values) + 0j)
        )
        yield {"part": "qualtran", "block": "state", "size": amplitudes, "qualtran": toffolis(block), "ours": ours}
    yield {"part": "qualtran", "block": "compare", "size": 16, "qualtran": toffolis(LessThanEqual(16, 16)), "ours": 16}
    yield {"part": "qualtran", "block": "swap", "size": 20, "qualtran": toffolis(CSwap(20)), "ours": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qualtran", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    parts = [qualtran()] if given.qualtran else [truncation(), solver(), resources()]
    for line in (json.dumps(row) for part in parts for row in part):
        print(line, flush=True)
        if given.out:
            with given.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
