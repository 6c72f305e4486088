"""Executors that workers of test clusters import: slow, failing and dying ones."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from qcascade.executors.base import Task
from qcascade.executors.shots import ShotsExecutor


class Slow(ShotsExecutor):
    """A chunk is eight rows, takes 0.1 s, and is written down with the process that runs it; all wait while there is a file "hold"."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(50, seed=seed)
        self.folder = str(folder)

    def fetch(self, *arguments: Any, **options: Any) -> Any:
        folder = Path(self.folder)
        (folder / f"{time.monotonic_ns()}-{os.getpid()}").touch()
        time.sleep(0.1)
        while (folder / "hold").exists():
            time.sleep(0.02)
        return super().fetch(*arguments, **options)

    def predicted(self, task: Task, shots: int | None) -> float:
        return 0.1

    def grain(self, task: Task) -> int:
        return 8


class Failing(ShotsExecutor):
    """Raises."""

    def fetch(self, *arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("as the worker said")


class Dying(ShotsExecutor):
    """The first process to run it dies."""

    def __init__(self, mark: Path) -> None:
        super().__init__(50, seed=1)
        self.mark = str(mark)

    def fetch(self, *arguments: Any, **options: Any) -> Any:
        try:
            Path(self.mark).touch(exist_ok=False)
        except FileExistsError:
            return super().fetch(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def ran(folder: Path) -> list[int]:
    """Processes that ran chunks of a `Slow`, in order."""
    return [int(file.name.split("-")[1]) for file in sorted(folder.iterdir()) if file.name != "hold"]
