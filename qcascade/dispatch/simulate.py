"""Tasks of a device simulated exactly in its place, without noise: what "simulate" falls back to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcascade.circuits.angles import angle_name
from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import lower
from qcascade.errors import ExecutionError
from qcascade.executors.base import Task, Values
from qcascade.executors.local import drawn, in_blocks
from qcascade.executors.native import NativeCircuit
from qcascade.executors.shots import read_probabilities

_AMPLITUDES = 2**24  # simulated at a time
_WIDEST = 24


def simulated(task: Task, shots: int | None, seeds: Sequence[bytes]) -> Values:
    """Counts [N, 2^bits] of a task, drawn by a seed for every row; probabilities where `shots` is None.

    Raises:
        ExecutionError: The circuit is too wide, or in a form of its executor's own.
    """
    native = task.circuit
    if not isinstance(native, NativeCircuit) or len(native.qubits) > _WIDEST:
        what = f"{len(native.qubits)} qubits" if isinstance(native, NativeCircuit) else "a form of its executor's own"
        raise ExecutionError(
            f"a circuit of {what} cannot be simulated in the device's place (at most {_WIDEST} qubits can); use "
            "Policy(fallback='strict')."
        )
    names = tuple(angle_name(place) for place in range(native.angles))
    program = lower(CircuitTemplate(native.symbolic(), names, ()))
    counts = np.empty((len(task.angles), 2**task.bits))
    rows = max(16, _AMPLITUDES >> len(native.qubits))
    for start in range(0, len(task.angles), rows):
        some = task.angles[start : start + rows]
        chance = read_probabilities(program, native.reads, in_blocks(some), shots is None)[: len(some)]
        place = slice(start, start + len(some))
        counts[place] = chance if shots is None else drawn(chance, shots, seeds[place])
    return counts
