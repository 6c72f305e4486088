"""All figures of all subjects."""

from __future__ import annotations

import accuracy
import dispatching
import models
import routing
import simulator
import sources
import studies
import study_values


def figures() -> tuple[dict[str, str], list[str]]:
    """Every figure by its name, and what is wrong: a results file that is not as a subject reads it, a name used twice.

    A subject that cannot be read has no figures here; those of the others are not kept back by it.
    """
    found: dict[str, str] = {}
    wrong = []
    for subject in (accuracy, dispatching, models, routing, simulator, sources, studies, study_values):
        try:
            mine = subject.figures()
        except (KeyError, IndexError, StopIteration, FileNotFoundError) as error:
            wrong.append(
                f"docs/figures/{subject.__name__}.py: the results files have no {error}; change one of the two"
            )
            continue
        wrong.extend(f"two figures are called {name}" for name in sorted(found.keys() & mine.keys()))
        found |= mine
    return found, wrong
