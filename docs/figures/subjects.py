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
        SystemExit: Two subjects use one name, or a results file is not as a subject reads it.
    """
    found: dict[str, str] = {}
    for subject in (accuracy, dispatching, models, routing, simulator, sources, studies):
        try:
            mine = subject.figures()
        except (KeyError, IndexError, StopIteration) as error:
            message = f"docs/figures/{subject.__name__}.py: the results files have no {error}; change one of the two."
            raise SystemExit(message) from error
        if twice := sorted(found.keys() & mine.keys()):
            raise SystemExit(f"two figures are called {twice[0]}")
        found |= mine
    return found
