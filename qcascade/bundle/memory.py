"""A bound on memory while a bundle's model is loaded and run: what a stranger's graph asks for fails instead of filling the machine.

What comes in: how many bytes may be taken beyond what the process has. What happens: on Linux the process's soft limit of data
(RLIMIT_DATA: private writable memory) is lowered for as long as the block runs, so that an allocation beyond it fails at once, in
onnxruntime and in torch alike. Shape inference alone cannot do it: sizes may be computed from values. Where there is no /proc
(elsewhere than on Linux) nothing is bounded. The limit is the whole process's: while blocks run in several threads, the largest of
their bounds holds, and a child that is started then has it too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from qcascade.memory import free_memory

LEAST = 2**30  # bytes that are allowed on a full machine too: what is free there is known only roughly
_MOST = 2**63 - 1  # what a limit can say
_STATISTICS = Path("/proc/self/statm")  # pages; the sixth number counts data and stack
_LOCK = threading.Lock()
_BOUNDS: list[int] = []  # of the blocks that run now
_before: tuple[int, int] = (-1, -1)  # the limits while no block runs


def available() -> int | None:
    """Bytes that this machine, or container, has left; None where nothing can be bounded.

    Example:
        >>> available() != 0
        True
    """
    return free_memory() if _STATISTICS.exists() else None


@contextlib.contextmanager
def bounded(allowed: int | None) -> Iterator[None]:
    """Within the block, at most this many bytes more than now; None: no bound.

    Example:
        >>> import numpy as np
        >>> with bounded(2**28):
        ...     np.ones(2**20).sum()
        np.float64(1048576.0)
    """
    global _before
    if allowed is None or not _STATISTICS.exists():
        yield
        return
    import resource

    used = int(_STATISTICS.read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    with _LOCK:
        if not _BOUNDS:
            _before = resource.getrlimit(resource.RLIMIT_DATA)
        bound = min(used + allowed, _MOST)
        _BOUNDS.append(bound)
    try:
        with _LOCK:
            _apply()
        yield
    finally:
        with _LOCK:
            _BOUNDS.remove(bound)
            _apply()


def _apply() -> None:
    import resource

    soft, hard = _before
    if _BOUNDS:
        bound = max(_BOUNDS)
        soft = bound if soft == resource.RLIM_INFINITY else min(bound, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
