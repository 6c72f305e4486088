"""Outcomes of the portfolio kept on disk, by content: circuit, target, options, versions of the libraries."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from qcascade.cache import read_cached, write_cached
from qcascade.routing.flat import Angle, Flat, Op
from qcascade.routing.portfolio import Attempt, Outcome
from qcascade.routing.problem import Placed, Problem
from qcascade.targets import Target

_VERSION = 1  # of the file and of the portfolio: raise it when either changes


def stored_name(problem: Problem, target: Target, seeds: int) -> str:
    """The name that an outcome is stored under."""
    versions = [version(package) for package in ("pytket", "pytket-qiskit", "qiskit")]
    content = [
        _VERSION,
        _flat(problem.source),
        problem.ends,
        problem.measured,
        problem.keep,
        target.digest,
        seeds,
        versions,
    ]
    return f"routed-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}"


def read_outcome(name: str) -> Outcome | None:
    """The stored outcome; None where there is none, or it is damaged."""
    stored = read_cached(name)
    try:
        ops = tuple(
            Op(gate, tuple(qubits), tuple(Angle(c, tuple((v, f) for v, f in terms)) for c, terms in angles))
            for gate, qubits, angles in stored["ops"]
        )
        placed = Placed(Flat(stored["width"], ops), tuple(stored["start"]), tuple(stored["end"]))
        return Outcome(placed, stored["method"], tuple(Attempt(**a) for a in stored["attempts"]), whole=True)
    except (TypeError, KeyError, ValueError):
        return None


def write_outcome(name: str, outcome: Outcome) -> None:
    """Store an outcome that the same search would find again."""
    circuit = outcome.placed.circuit
    write_cached(
        name,
        {
            "width": circuit.width,
            "ops": _flat(circuit),
            "start": outcome.placed.start,
            "end": outcome.placed.end,
            "method": outcome.method,
            "attempts": [asdict(attempt) for attempt in outcome.attempts],
        },
    )


def _flat(flat: Flat) -> list[Any]:
    return [[op.name, op.qubits, [[a.constant, a.terms] for a in op.angles]] for op in flat.ops]
