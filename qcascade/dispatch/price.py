"""What a submission costs by a target's price: per job, circuit, shot and gate. Prices by the second are not predicted.

Changes of frame are free, as in plans (`cost_models.device`).
"""

from __future__ import annotations

from collections.abc import Sequence

from qcascade.executors.base import Task
from qcascade.executors.native import NativeCircuit
from qcascade.targets import Target


def price(tasks: Sequence[Task], shots: int | None, target: Target | None) -> float | None:
    """In the currency of the target's price; None where it is not known.

    Example:
        >>> price([], 100, None) is None
        True
    """
    if target is None or target.price is None or target.price.per_second or shots is None:
        return None
    rates, total = target.price, target.price.per_job
    for task in tasks:
        if not isinstance(task.circuit, NativeCircuit):
            return None
        shot = (
            rates.per_shot
            + task.circuit.gates_on(1) * rates.per_one_qubit_gate
            + task.circuit.gates_on(2) * rates.per_two_qubit_gate
            + task.bits * rates.per_measurement
        )
        total += len(task.angles) * (rates.per_circuit + shots * shot)
    return total
