"""What running on the target takes: fidelity, seconds, jobs, price, and what would have to change for it to pay.

Fidelity is that of the least faithful circuit. Seconds are the shots' (gates, readout, reset and delay) and the
submissions', queueing left out; overheads that the target does not state count nothing, so seconds are then a lower bound. A
step's circuits leave in one submission a template forward and one backward. With zero-noise extrapolation a circuit is taken
to last as many times longer as its two-qubit gates are run, which is a little too long.

Break-even has two sides. Time: how long a shot may take for a forward pass to be as fast as the region here; there is none
where submitting alone takes longer. Error: which two-qubit error, the same everywhere, would give the least faithful
circuit a fidelity of `USEFUL_FIDELITY`; there is none where the rest (one-qubit gates, readout, idling) alone is below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qcascade.cost_models.base import COST_MODELS, Subject
from qcascade.cost_models.device import USEFUL_FIDELITY
from qcascade.cost_models.quantum import CircuitCosts, subject_costs
from qcascade.report.units import seconds_text
from qcascade.targets import Price, Target


@dataclass(frozen=True, slots=True)
class Run:
    """A number of circuits of one kind, all shots of each."""

    costs: CircuitCosts
    circuits: int

    @property
    def shots(self) -> int:
        """Of all circuits."""
        return self.circuits * self.costs.shots

    def seconds(self, target: Target) -> float | None:
        """Of the shots, without submission."""
        duration = self.costs.circuit.duration
        if duration is None:
            return None
        return self.shots * (duration * self.costs.folded + (target.shot_overhead or 0.0))


def price(runs: list[Run], target: Target) -> float | None:
    """What running costs in the currency of the target's price; each run is one submission.

    None where the target states no price, or the circuits or their time are not known.
    """
    if target.price is None:
        return None
    total = 0.0
    for run in runs:
        shot = _shot_price(run, target.price)
        seconds = run.seconds(target) if target.price.per_second else 0.0
        if shot is None or seconds is None:
            return None
        total += (
            target.price.per_job
            + run.circuits * target.price.per_circuit
            + run.shots * shot
            + (seconds + (target.job_overhead or 0.0)) * target.price.per_second
        )
    return total


def _shot_price(run: Run, price: Price) -> float | None:
    circuit = run.costs.circuit
    if circuit.one_qubit_gates is None or circuit.two_qubit_gates is None:
        return price.per_shot if price.per_one_qubit_gate == price.per_two_qubit_gate == 0 else None
    return (
        price.per_shot
        + (circuit.one_qubit_gates + run.costs.turned) * price.per_one_qubit_gate
        + circuit.two_qubit_gates * run.costs.folded * price.per_two_qubit_gate
        + run.costs.measured * price.per_measurement
    )


def seconds(runs: list[Run], target: Target) -> float | None:
    """Of all shots and submissions; None where a circuit's time is not known."""
    parts = [run.seconds(target) for run in runs]
    known = [p for p in parts if p is not None]
    return sum(known) + len(runs) * (target.job_overhead or 0.0) if len(known) == len(parts) else None


def shot_seconds(runs: list[Run], target: Target) -> float | None:
    """Of one shot, the mean over all of them; None where a circuit's time is not known."""
    parts = [run.seconds(target) for run in runs]
    known = [p for p in parts if p is not None]
    return sum(known) / sum(run.shots for run in runs) if len(known) == len(parts) else None


@COST_MODELS.register("hardware")
def hardware_costs(subject: Subject) -> Mapping[str, Any]:
    """Fidelity, seconds, jobs, price and break-even."""
    target, uses = subject.target, subject_costs(subject)
    forward = [Run(u, u.forward) for u in uses]
    backward = [Run(u, u.backward) for u in uses]
    durations = [u.circuit.duration for u in uses if u.circuit.duration is not None]
    fidelities = [u.circuit.fidelity for u in uses if u.circuit.fidelity is not None]
    shot, error = break_even_shot_seconds(subject), break_even_two_qubit_error(uses)
    return {
        "fidelity": min(fidelities) if len(fidelities) == len(uses) else None,
        "circuit_seconds": max(durations) if len(durations) == len(uses) else None,
        "jobs_forward": len(forward),
        "jobs_backward": len(backward),
        "seconds_target": seconds(forward, target),
        "seconds_target_training": seconds([*forward, *backward], target),
        "price_forward": price(forward, target),
        "price_training": price([*forward, *backward], target),
        "price_currency": None if target.price is None else target.price.currency,
        "break_even_shot_seconds": shot,
        "break_even_two_qubit_error": error,
        "break_even": "; ".join(_told(subject, uses, shot, error)),
    }


def break_even_shot_seconds(subject: Subject) -> float | None:
    """How long a shot may take for a forward pass to take as long as the region here; None: no shot rate would do."""
    uses = subject_costs(subject)
    left = subject.region_seconds - len(uses) * (subject.target.job_overhead or 0.0)
    return left / sum(u.forward * u.shots for u in uses) if left > 0 else None


def break_even_two_qubit_error(uses: tuple[CircuitCosts, ...]) -> float | None:
    """Two-qubit error at which every circuit reaches `USEFUL_FIDELITY`; None: not known, or no error would do."""
    errors = [u.circuit.break_even_error for u in uses if u.circuit.two_qubit_gates != 0]
    known = [e for e in errors if e is not None]
    return min(known, default=None) if len(known) == len(errors) else None


def _told(subject: Subject, uses: tuple[CircuitCosts, ...], shot: float | None, error: float | None) -> Iterator[str]:
    target = subject.target
    if shot is None:
        yield (
            f"no shot rate would pay: submitting takes {seconds_text(len(uses) * (target.job_overhead or 0.0))}, "
            f"the region {seconds_text(subject.region_seconds)}"
        )
    else:
        there, now = shot_seconds([Run(u, u.forward) for u in uses], target), ""
        if there is not None:
            now = f" (on {target.name} {seconds_text(there)}, {seconds_text(target.shot_overhead)} of it between shots)"
        yield f"a shot would have to take at most {seconds_text(shot)}{now}"
    if any(u.circuit.fidelity is None for u in uses):
        return
    if error is not None:
        median = target.median_error()
        here = "unknown" if median is None else f"{median:.2g}"
        yield f"a fidelity of {USEFUL_FIDELITY} needs a two-qubit error of {error:.2g} (median here {here})"
    elif any(u.circuit.two_qubit_gates for u in uses):
        yield f"no two-qubit error gives a fidelity of {USEFUL_FIDELITY}: readout, one-qubit gates and idling alone cost more"
