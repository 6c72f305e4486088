"""A routed circuit in a few lines, and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qcascade.routing.portfolio import Attempt, worth

if TYPE_CHECKING:
    from qcascade.routing.route import RoutedCircuit

_SHOWN = 12


def routed_text(routed: RoutedCircuit) -> str:
    """Figures, placement and the best attempts."""
    places = ", ".join(f"{qubit}→{node.index[0]}" for qubit, node in routed.placement.items())
    moved = {q: node for q, node in routed.final.items() if node != routed.placement[q]}
    lines = [
        f"target {routed.target.name} · fidelity {_share(routed.fidelity)} · {routed.two_qubit_gates} two-qubit gates, "
        f"depth {routed.two_qubit_depth} · {_microseconds(routed.duration)} · by {routed.method}",
        routed.proof,
        f"placement: {places}",
    ]
    if moved:
        lines.append("at the end: " + ", ".join(f"{qubit}→{node.index[0]}" for qubit, node in moved.items()))
    best = sorted((a for a in routed.attempts if not a.reason), key=worth)
    if best:
        lines += ["", f"{'method':<48}{'seed':>6}{'fidelity':>10}{'2q gates':>10}{'2q depth':>10}"]
        lines += [
            f"{a.method:<48}{a.seed:>6}{_share(a.fidelity):>10}{a.two_qubit_gates:>10}{a.two_qubit_depth:>10}"
            for a in best[:_SHOWN]
        ]
        if len(best) > _SHOWN:
            lines.append(f"… and {len(best) - _SHOWN} more")
    lines += [f"{a.method}: {a.reason}" for a in routed.attempts if a.reason]
    return "\n".join(lines)


def routed_json(routed: RoutedCircuit) -> str:
    """Everything but the circuit; fields that are unknown are null."""
    return json.dumps(
        {
            "target": routed.target.name,
            "fidelity": routed.fidelity,
            "two_qubit_gates": routed.two_qubit_gates,
            "two_qubit_depth": routed.two_qubit_depth,
            "duration": routed.duration,
            "method": routed.method,
            "verified": routed.verified,
            "proof": routed.proof,
            "placement": {str(qubit): node.index[0] for qubit, node in routed.placement.items()},
            "final": {str(qubit): node.index[0] for qubit, node in routed.final.items()},
            "attempts": [_attempt(a) for a in routed.attempts],
        },
        indent=1,
    )


def _attempt(attempt: Attempt) -> dict[str, object]:
    return {name: getattr(attempt, name) for name in Attempt.__slots__}


def _share(fidelity: float | None) -> str:
    return "unknown" if fidelity is None else f"{fidelity:.4f}"


def _microseconds(seconds: float | None) -> str:
    return "duration unknown" if seconds is None else f"{seconds * 1e6:.2f} µs"
