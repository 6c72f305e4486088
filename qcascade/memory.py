"""Memory that is left, of the machine or of the container that the process runs in, whichever has less.

What comes in: nothing. What goes out: bytes. A container's limit is read from Linux' control groups (version 2, then version 1);
where it has none, or elsewhere than on Linux, the machine's free memory counts alone.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_GROUPS = (  # limit and use of a container, and what of the use is files' pages that may be dropped
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def free_memory() -> int:
    """Bytes that may be taken now.

    Example:
        >>> free_memory() > 0
        True
    """
    left = int(psutil.virtual_memory().available)
    for limit, used, dropped in _GROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            most, taken = int(Path(limit).read_text()), int(Path(used).read_text())
            statistics = dict(line.split() for line in Path(used).with_name("memory.stat").read_text().splitlines())
            left = min(left, most - taken + int(statistics.get(dropped, 0)))
    return max(left, 0)
