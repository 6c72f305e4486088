"""When each gate of a compiled circuit runs: as late as possible (ALAP), so that qubits stay in |0⟩ as long as they can.

Prediction and noisy simulation share this schedule. Changes of frame take no time and are left to the caller to skip.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import heapify, heapreplace

_ROUNDING = 1e-12  # seconds


def before_the_end(
    places: Sequence[tuple[int, ...]], seconds: Sequence[float], parallel_two_qubit_gates: int | None = None
) -> list[float]:
    """How long before the end of the circuit each gate starts.

    Gates are laid from the last to the first, each as late as the gates after it on its qubits allow and, where only so
    many two-qubit gates run at once, as late as one of those slots is free.

    Args:
        places: Qubits of each gate, in circuit order.
        seconds: Duration of each gate.
        parallel_two_qubit_gates: Gates of two or more qubits that run at once; None: all that share no qubit.

    Returns:
        Seconds from the start of each gate to the end of the last.

    Example:
        >>> before_the_end([(0,), (0, 1), (1,)], [1.0, 3.0, 1.0])
        [5.0, 4.0, 1.0]
    """
    free: dict[int, float] = {}
    slots = [0.0] * (parallel_two_qubit_gates or 0)
    heapify(slots)
    starts = [0.0] * len(places)
    for number in range(len(places) - 1, -1, -1):
        place, duration = places[number], seconds[number]
        start = duration + max([free.get(qubit, 0.0) for qubit in place])
        if slots and len(place) > 1:
            start = max(start, slots[0] + duration)
            heapreplace(slots, start)
        for qubit in place:
            free[qubit] = start
        starts[number] = start
    return starts


def idle_times(
    places: Sequence[tuple[int, ...]], seconds: Sequence[float], starts: Sequence[float], read: Collection[int] = ()
) -> list[tuple[int, int, float]]:
    """The waits of every qubit after its first gate, up to the end of the circuit.

    Args:
        places: As above.
        seconds: As above.
        starts: What `before_the_end` returned.
        read: Qubits that are measured: only these still wait after their last gate. Where none is, all do.

    Returns:
        (number of the gate that the wait follows, qubit, seconds > 0); waits for a measurement come last.

    Example:
        >>> idle_times([(0, 1), (1,), (0, 1)], [2.0, 1.0, 2.0], [5.0, 3.0, 2.0])
        [(0, 0, 1.0)]
    """
    last: dict[int, tuple[int, float]] = {}
    waits: list[tuple[int, int, float]] = []
    for number, place in enumerate(places):
        start = starts[number]
        end = start - seconds[number]
        for qubit in place:
            if qubit in last and (wait := last[qubit][1] - start) > _ROUNDING:
                waits.append((last[qubit][0], qubit, wait))
            last[qubit] = (number, end)
    waits.extend((n, q, end) for q, (n, end) in last.items() if end > _ROUNDING and (not read or q in read))
    return waits
