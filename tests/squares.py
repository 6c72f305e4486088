"""A study of nothing, in a file of its own: processes that run it import no test and none of what tests need."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    seed: int


def squared(run: Run) -> dict[str, int]:
    return {"square": run.seed**2}


def endless(run: Run, folder: Path) -> dict[str, int]:
    """Says which process it is, in a file of that name."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)
    return {}


def killed(run: Run) -> dict[str, int]:
    """As the system does with a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}
