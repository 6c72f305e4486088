"""Tasks of a device simulated exactly in its place, without noise: what "simulate" falls back to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qcascade.circuits.angles import angle_circuit, angle_name
from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import lower
from qcascade.errors import ExecutionError
from qcascade.executors.base import Task, Values
from qcascade.executors.local import drawn, in_blocks
from qcascade.executors.native import NativeCircuit
from qcascade.executors.settings import settings_of
from qcascade.executors.shots import read_probabilities, turned

_AMPLITUDES = 2**24  # simulated at a time
_WIDEST = 24


def simulated(task: Task, shots: int | None, seeds: Sequence[bytes]) -> Values:
    """Counts [N, 2^bits] of a task, drawn by a seed for every row; probabilities where `shots` is None.

    Raises:
        ExecutionError: The circuit is too wide, or in a form of its executor's own.
    """
    template, reads = _plain(task.circuit)
    program = lower(template)
    counts = np.empty((len(task.angles), 2**task.bits))
    rows = max(16, _AMPLITUDES >> template.qubits)
    for start in range(0, len(task.angles), rows):
        some = task.angles[start : start + rows]
        chance = read_probabilities(program, reads, in_blocks(some), shots is None)[: len(some)]
        place = slice(start, start + len(some))
        counts[place] = chance if shots is None else drawn(chance, shots, seeds[place])
    return counts


def _plain(circuit: Any) -> tuple[CircuitTemplate, Sequence[int]]:
    """A task's circuit with its angles as data, and the qubits that are read."""
    match circuit:
        case NativeCircuit() if len(circuit.qubits) <= _WIDEST:
            names = tuple(angle_name(place) for place in range(circuit.angles))
            return CircuitTemplate(circuit.symbolic(), names, ()), circuit.reads
        case (CircuitTemplate() as template, int(place)) if template.qubits <= _WIDEST:  # of a `ShotsExecutor`
            prepared = angle_circuit(template)
            setting = settings_of(template.measurement, template.qubits)[place]
            return turned(template, prepared, place), prepared.reads(setting.qubits)
        case NativeCircuit():
            what = f"{len(circuit.qubits)} qubits"
        case (CircuitTemplate() as template, int()):
            what = f"{template.qubits} qubits"
        case _:
            what = "a form of its executor's own"
    raise ExecutionError(
        f"a circuit of {what} cannot be simulated in the device's place (at most {_WIDEST} qubits can); use "
        "Policy(fallback='strict')."
    )
