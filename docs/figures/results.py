"""Reading results files, and how numbers are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"


@cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    """The lines of tests/benchmarks/results/NAME.jsonl."""
    return rows_of(RESULTS / f"{name}.jsonl")


@cache
def rows_of(file: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a results file."""
    return tuple(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Mean ± standard deviation; the mean alone of one value."""
    known = list(values)
    if len(known) < 2:
        return f"{known[0]:.{digits}f}"
    return f"{mean(known):.{digits}f} ± {stdev(known):.{digits}f}"


def between(values: Iterable[float], form: str = "{:.2f}") -> str:
    """Least to greatest, once where they are written alike."""
    known = sorted(values)
    low, high = form.format(known[0]), form.format(known[-1])
    return low if low == high else f"{low} to {high}"


def significant(value: float, digits: int = 3) -> str:
    """With so many significant digits, none of them in an exponent.

    >>> significant(3.14159), significant(846.6), significant(3971.5)
    ('3.14', '847', '3972')
    """
    if value >= 10**digits:
        return f"{value:.0f}"
    text = f"{value:#.{digits}g}"
    return text.rstrip(".")


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
