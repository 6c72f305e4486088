"""What a step's circuits would take at a place: the plan's models, for an executor's own shots and the bindings that ran.

What comes in: the templates that a kernel ran in a step with how many bindings, and an executor. What goes out: a `Forecast` for the
same work there. Seconds and price are those of the target (`cost_models.hardware`), queueing left out; of executors that simulate, or
whose target states no times, nothing is known beforehand, and the forecast counts circuits. Fidelity is the target's for the least
faithful circuit, without mitigation; 1 for samples of the exact state, and not known of a backend without a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qcascade.circuits.template import CircuitTemplate
from qcascade.cost_models.device import device_circuit
from qcascade.cost_models.hardware import Run, price, seconds
from qcascade.cost_models.quantum import circuit_costs
from qcascade.executors.base import Executor
from qcascade.executors.settings import settings_of
from qcascade.executors.shots import ShotsExecutor
from qcascade.kernels.base import CircuitUse
from qcascade.targets import Target, get_target

_ADJOINT = 4  # circuits that an adjoint backward pass counts as, roughly


@dataclass(frozen=True, slots=True)
class Work:
    """Bindings of one template in a step."""

    template: CircuitTemplate
    bindings: int

    @property
    def circuits(self) -> int:
        """One for every measurement setting."""
        return self.bindings * len(settings_of(self.template.measurement, self.template.qubits))


@dataclass(frozen=True, slots=True)
class Forecast:
    """A step at a place. None: not known."""

    circuits: int  # gradients included where there are any
    seconds: float | None
    price: float | None
    fidelity: float | None
    refused: str | None = None  # why it cannot run there


def forecast(work: Sequence[Work], executor: Executor, *, gradients: bool) -> Forecast:
    """A step by an executor; `gradients`: with its backward pass.

    Example:
        >>> from pytket.circuit import Circuit
        >>> template = CircuitTemplate(Circuit(2).CX(0, 1), (), ())
        >>> forecast([Work(template, 5)], ShotsExecutor(100), gradients=True).circuits
        5
    """
    target: Target | None = getattr(executor, "target", None)
    known = target is not None and target.qubits is not None
    if known and target is not None:
        for one in work:
            if one.template.qubits > len(target.largest_component):
                why = f"a circuit has {one.template.qubits} qubits and {target.name} {len(target.largest_component)}"
                return Forecast(0, None, None, None, f"{why} that are joined")
    runs, fidelities, total = list[Run](), list[float | None](), 0
    for one in work:
        circuits = one.circuits * executor.overhead
        total += circuits * (1 + _shifted(one.template, executor) * gradients)
        if known and target is not None:
            use = CircuitUse(one.template, one.bindings, 1, 0, 0, 0)
            costs = replace(circuit_costs(use, target, executor.mitigation_plan), shots=executor.shots or 0)
            fidelities.append(costs.circuit.fidelity)
            runs.append(Run(costs, circuits))
            if gradients:
                runs.append(Run(costs, circuits * _shifted(one.template, executor)))
    if target is None or not known:
        exact = isinstance(getattr(executor, "inner", executor), ShotsExecutor)
        return Forecast(total, None, 0.0, 1.0 if exact else None)
    faithful = [value for value in fidelities if value is not None]
    fidelity = min(faithful, default=None) if len(faithful) == len(fidelities) else None
    if (
        executor.name == "noisy" or executor.shots is None
    ):  # noise that is simulated: neither the target's time nor its price
        return Forecast(total, None, 0.0, fidelity)
    timed = target.job_overhead is not None or any(run.costs.circuit.duration for run in runs)
    return Forecast(total, seconds(runs, target) if timed else None, price(runs, target), fidelity)


def _shifted(template: CircuitTemplate, executor: Executor) -> int:
    """Circuits of a gradient for each circuit of a value."""
    if executor.adjoint:
        return _ADJOINT
    angles = device_circuit(template, get_target("ideal")).angles
    return 2 * angles if executor.gradients == "shift" else 2 * executor.spsa_samples * bool(angles)
