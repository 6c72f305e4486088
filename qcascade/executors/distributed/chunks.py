"""How work is divided: chunks that are long at first and short at the end, so that all workers end at the same time.

Each chunk holds half of what every worker's share of the rest would be (guided self-scheduling, Polychronopoulos and Kuck 1987),
but no less than is worth a message: their number grows with the logarithm of the work. Loads whose rows come in long grains go
first, since nothing shorter than a grain can fill the gaps at the end. How long rows take is predicted first and measured from then on.
Division changes no result.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_LEAST = 0.05  # seconds that are worth a message, which costs some milliseconds of processors at both ends
_SHARE = 2  # chunks of every worker's share of the rest
MESSAGE_BYTES = 2**23  # of one message: Dask warns of larger ones


@dataclass(frozen=True, slots=True)
class Load:
    """Rows that are alike."""

    rows: int
    grain: int  # rows that are simulated together: a chunk holds a multiple, or the rest
    seconds: float  # a row, predicted or measured
    size: int  # bytes a row, of what goes or comes, whichever is more


Slice = tuple[int, int, int]  # place of the load, first row, end


def divide(loads: Sequence[Load], workers: int) -> list[list[Slice]]:
    """Rows of all loads as chunks, in the order in which they are to begin.

    Example:
        >>> [sum(stop - start for _, start, stop in chunk) for chunk in divide([Load(400, 16, 0.01, 100)], 2)]
        [96, 80, 48, 48, 32, 16, 16, 16, 16, 16, 16]
        >>> divide([Load(10, 1, 0.001, 100), Load(10, 5, 0.01, 100)], 1)[0]
        [(1, 0, 5)]
    """
    left = sum(load.rows * load.seconds for load in loads)
    chunks: list[list[Slice]] = []
    room, space = 0.0, 0
    for place, load in sorted(enumerate(loads), key=lambda one: -one[1].grain * one[1].seconds):
        start = 0
        while start < load.rows:
            if room <= 0 or space < load.size:
                chunks.append([])
                room, space = max(_LEAST, left / (_SHARE * workers)), MESSAGE_BYTES
            rows = min(max(1, round(room / load.seconds)), max(1, space // max(1, load.size)))
            rows = max(1, rows // load.grain) * load.grain
            stop = min(load.rows, start + rows)
            chunks[-1].append((place, start, stop))
            taken = (stop - start) * load.seconds
            room, space, left = room - taken, space - (stop - start) * load.size, left - taken
            if room < load.grain * load.seconds / 2:
                room = 0.0
            start = stop
    return chunks


class Rates:
    """Seconds a row, as measured.

    Example:
        >>> rates = Rates()
        >>> rates.put("circuit", 10, 0.1)
        >>> rates.get("circuit", 1.0), rates.get("another", 1.0)
        (0.01, 1.0)
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def get(self, what: Hashable, predicted: float) -> float:
        """The last ones weigh most; as predicted where nothing was measured."""
        return max(1e-9, self._known.get(what, predicted))

    def put(self, what: Hashable, rows: int, seconds: float) -> None:
        """Rows that took so long."""
        if not rows:
            return
        with self._lock:
            one = seconds / rows
            known = self._known.get(what)
            self._known[what] = one if known is None else (known + one) / 2
