"""A template's circuit as the target runs it: counted after routing, or as built where there is nothing to route.

Routing here takes few seeds, and for large circuits one method, so that a plan is quick; `qcascade.route` may do better.
Circuits that are too large to be of use on any device are not routed: their figures on the target are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from pytket.circuit import OpType

from qcascade.circuits.angles import angle_circuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.cost_models.loading import loading
from qcascade.targets import Target

if TYPE_CHECKING:
    from qcascade.routing import CompiledTemplate

SEEDS = 2  # of the routing of a plan
USEFUL_FIDELITY = 0.5  # below it most runs tell nothing
MOST_SEARCHED, MOST_ROUTED = 100, 2500  # two-qubit gates before routing


@dataclass(frozen=True, slots=True)
class DeviceCircuit:
    """One circuit, loading included; None where it is not known."""

    qubits: int
    angles: int  # that depend on data, weights or amplitudes: each is shifted by two circuits
    two_qubit_gates: int | None  # of all, loading included
    two_qubit_depth: int | None
    loading_two_qubit_gates: int | None
    one_qubit_gates: int | None = None  # without changes of frame, which take no time
    fidelity: float | None = None
    duration: float | None = None  # seconds, readout included
    break_even_error: float | None = None  # two-qubit error at which fidelity would be `USEFUL_FIDELITY`, if any


@lru_cache(maxsize=256)
def device_circuit(template: CircuitTemplate, target: Target) -> DeviceCircuit:
    """Count a template's circuit on a target; the same template object is counted once.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from qcascade.targets import get_target
        >>> device_circuit(CircuitTemplate(Circuit(3).CX(0, 1).CX(1, 2), (), ()), get_target("ideal")).two_qubit_depth
        2
    """
    body = replace(template, amplitudes=False)
    loaded = loading(template)
    built = DeviceCircuit(
        template.qubits,
        len(angle_circuit(body).angles.constants) + loaded.angles,
        template.circuit.n_2qb_gates() + loaded.two_qubit_gates,
        _depth(template, loaded.layers),
        loaded.two_qubit_gates,
    )
    if target.qubits is None:
        return built
    whole = device_compiled(template, target)
    if whole is None:
        return replace(built, two_qubit_gates=None, two_qubit_depth=None, loading_two_qubit_gates=None)
    from qcascade.routing import compile_template
    from qcascade.routing.names import DIAGONAL, placed_gates

    seconds = _budget(_two_qubit_gates(template))
    alone = compile_template(body, target, seeds=SEEDS, seconds=seconds) if template.amplitudes else whole
    gates = placed_gates(whole.circuit.circuit)
    return DeviceCircuit(
        template.qubits,
        len(whole.circuit.angles.constants),
        whole.two_qubit_gates,
        whole.two_qubit_depth,
        max(0, whole.two_qubit_gates - alone.two_qubit_gates) if template.amplitudes else 0,
        sum(len(place) == 1 and name not in DIAGONAL for name, place in gates),
        whole.fidelity,
        whole.duration,
        _break_even(whole),
    )


@lru_cache(maxsize=256)
def device_compiled(template: CircuitTemplate, target: Target) -> CompiledTemplate | None:
    """The circuit that a plan counts: as routed for it; None where there is nothing to route, or it is too large.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from qcascade.targets import get_target
        >>> device_compiled(CircuitTemplate(Circuit(2).Ry(0.3, 0).CX(0, 1), (), ()), get_target("line-3")).two_qubit_gates
        1
    """
    gates = _two_qubit_gates(template)
    if target.qubits is None or template.qubits > len(target.largest_component) or gates > MOST_ROUTED:
        return None
    from qcascade.routing import compile_template  # takes half a second to import

    return compile_template(template, target, seeds=SEEDS, seconds=_budget(gates))


def _depth(template: CircuitTemplate, layers: Sequence[int]) -> int:
    """Layers of two-qubit gates where so many are before the circuit on each qubit."""
    if not template.amplitudes:
        return template.circuit.depth_2q()
    ready = dict(zip(template.circuit.qubits, layers, strict=True))
    for command in template.circuit.get_commands():
        done = max((ready[qubit] for qubit in command.qubits), default=0)
        counted = len(command.qubits) == 2 and command.op.type != OpType.Barrier
        ready.update(dict.fromkeys(command.qubits, done + counted))
    return max(ready.values())


def _two_qubit_gates(template: CircuitTemplate) -> int:
    """Before routing, loading included."""
    return template.circuit.n_2qb_gates() + loading(template).two_qubit_gates


def _budget(two_qubit_gates: int) -> float | None:
    """Seconds of a routing."""
    return None if two_qubit_gates <= MOST_SEARCHED else 0.0


def fidelity_curve(compiled: CompiledTemplate) -> Callable[[float], float | None]:
    """The circuit's predicted fidelity as a function of a two-qubit error that is the same everywhere."""
    from qcascade.routing.fidelity import predict_gates
    from qcascade.routing.names import placed_gates

    target, placed = compiled.target, placed_gates(compiled.circuit.circuit)
    nodes = [compiled.circuit.circuit.qubits[place].index[0] for place in compiled.circuit.measured]

    def fidelity(error: float) -> float | None:
        gates = tuple(replace(g, error=error) if len(g.qubits) == 2 else g for g in target.gates)
        return predict_gates(placed, replace(target, gates=gates), nodes).fidelity

    return fidelity


def _break_even(compiled: CompiledTemplate) -> float | None:
    """The two-qubit error, the same everywhere, at which the circuit reaches `USEFUL_FIDELITY`, by bisection."""
    fidelity, low, high = fidelity_curve(compiled), 0.0, 0.45
    best = fidelity(low)
    if best is None or best < USEFUL_FIDELITY or not compiled.two_qubit_gates:
        return None
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        reached = fidelity(middle)
        assert reached is not None
        low, high = (middle, high) if reached >= USEFUL_FIDELITY else (low, middle)
    return low
