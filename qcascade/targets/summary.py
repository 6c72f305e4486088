"""Targets in short, for lists: one line of figures each, as text, as tab-separated values, or in full for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from qcascade.targets import planning
from qcascade.targets.catalogue import get_target, targets
from qcascade.targets.target import Target

COLUMNS = ("name", "qubits", "two-qubit gate", "two-qubit error", "readout error", "calibrated", "description")


@dataclass(frozen=True, slots=True)
class TargetSummary:
    """One line of the list; errors are medians over what is usable, None where unknown."""

    name: str
    qubits: int | None
    two_qubit_gates: tuple[str, ...]
    two_qubit_error: float | None
    readout_error: float | None
    calibrated: str | None
    description: str

    def row(self) -> tuple[str, ...]:
        """Its cells under `COLUMNS`, empty where unknown."""
        return (
            self.name,
            "" if self.qubits is None else str(self.qubits),
            " ".join(self.two_qubit_gates),
            _figure(self.two_qubit_error),
            _figure(self.readout_error),
            self.calibrated or "",
            self.description,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def summarize(target: Target) -> TargetSummary:
    """One target in short.

    Example:
        >>> summarize(planning.line(4, error=2e-3)).row()[:4]
        ('line-4', '4', 'cz', '0.002')
    """
    return TargetSummary(
        target.name,
        target.qubits,
        target.two_qubit_gates,
        target.median_error(),
        target.median_readout_error(),
        target.calibrated,
        target.description,
    )


def summaries(track: Callable[[Iterable[str]], Iterable[str]] = iter) -> tuple[TargetSummary, ...]:
    """All targets in short, those of any size by their pattern.

    Args:
        track: Passes the names on one by one, as a progress bar does: the first list of all converts every snapshot.
    """
    found = []
    for name in track(targets()):
        if name in planning.PATTERNS:
            shape = planning.PATTERNS[name]
            found.append(TargetSummary(name, None, ("cz",), None, None, None, shape))
        else:
            found.append(summarize(get_target(name)))
    return tuple(found)


def details(target: Target) -> tuple[tuple[str, str], ...]:
    """One target in full: labels and values.

    Example:
        >>> dict(details(planning.grid(2, 2)))["edges"]
        '4 usable'
    """
    short = summarize(target)
    rows = [
        ("name", target.name),
        ("description", target.description),
        ("calibrated", target.calibrated or "no day known"),
        ("source", target.source or "none"),
        ("qubits", "no limit" if target.qubits is None else _usable(target.qubits, target.nodes, target.dead_qubits)),
        ("edges", _usable(len(target.edges) + len(target.dead_edges), target.edges, target.dead_edges)),
        ("largest piece", f"{len(target.largest_component)} qubits"),
        ("native gates", ", ".join(target.operations) or "any"),
        ("two-qubit error", _median(short.two_qubit_error)),
        ("one-qubit error", _median(target.median_error(1))),
        ("readout error", _median(short.readout_error)),
        ("two-qubit gates at once", str(target.parallel_two_qubit_gates or "all that share no qubit")),
        ("seconds of a shot beside gates and readout", _or_unknown(target.shot_overhead)),
        ("seconds of a job beside its shots", _or_unknown(target.job_overhead)),
        ("price", _price(target)),
        ("digest", target.digest),
    ]
    return tuple(rows)


def _usable(total: int, usable: tuple[Any, ...], dead: tuple[Any, ...]) -> str:
    if not dead:
        return f"{len(usable)} usable"
    listed = ", ".join("-".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in dead)
    return f"{len(usable)} of {total} usable; removed: {listed}"


def _price(target: Target) -> str:
    price = target.price
    if price is None:
        return "unknown"
    named = {
        "a job": price.per_job,
        "a circuit": price.per_circuit,
        "a shot": price.per_shot,
        "a second": price.per_second,
        "a one-qubit gate and shot": price.per_one_qubit_gate,
        "a two-qubit gate and shot": price.per_two_qubit_gate,
        "a measurement and shot": price.per_measurement,
    }
    parts = [f"{value:g} {price.currency} {what}" for what, value in named.items() if value]
    return f"{', '.join(parts) or 'free'} ({price.source or 'no source'})"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _median(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}, median"


def _or_unknown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
