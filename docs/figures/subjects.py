"""All figures of all subjects."""

from __future__ import annotations

import accuracy
import dispatching
import models
import routing
import simulator
import sources
import studies


def figures() -> dict[str, str]:
    """Every figure by its name.

    Raises:
        SystemExit: Two subjects use one name.
    """
    found: dict[str, str] = {}
    for subject in (accuracy, dispatching, models, routing, simulator, sources, studies):
        mine = subject.figures()
        if twice := sorted(found.keys() & mine.keys()):
            raise SystemExit(f"two figures are called {twice[0]}")
        found |= mine
    return found
