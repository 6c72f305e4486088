"""A study of nothing, in a file of its own: processes that run it import no test and none of what tests need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    seed: int


def squared(run: Run) -> dict[str, int]:
    return {"square": run.seed**2}
