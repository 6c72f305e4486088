"""The marked spans of a page: found, replaced, compared.

A span is `<!--= NAME -->text<!--/-->` in a line, or, where the figure has lines of its own (a table, a list), the same with the
figure on lines between. Links in a figure are relative to the repository's root; they are made relative to the page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_SPAN = re.compile(r"<!--= ([\w.+-]+) -->(.*?)<!--/-->", re.DOTALL)
_LINK = re.compile(r"\]\(((?:results|tests|docs)/[^)]+)\)")
_ROOT = Path(__file__).parents[2]


def pages(root: Path) -> Iterator[Path]:
    """README.md and every page of docs/."""
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))


def written(text: str, figures: Mapping[str, str], page: Path) -> tuple[str, list[str]]:
    """The page with every span as `figures` has it, and what is wrong: spans of unknown names, which are left as they are.

    Raises:
        SystemExit: A span is not closed.
    """
    if text.count("<!--= ") != len(_SPAN.findall(text)):
        raise SystemExit(f"{page}: a figure's span is not closed with <!--/-->")
    unknown = sorted({name for name, _ in _SPAN.findall(text)} - figures.keys())
    wrong = [f"{page}: no figure is called {name}; `python docs/figures --list` prints all" for name in unknown]

    def span(match: re.Match[str]) -> str:
        name = match[1]
        if name not in figures:
            return match[0]
        value = _LINK.sub(lambda link: f"]({_relative(link[1], page)})", figures[name])
        inside = f"\n\n{value.strip()}\n\n" if "\n" in value else value
        return f"<!--= {name} -->{inside}<!--/-->"

    return _SPAN.sub(span, text), wrong


def difference(before: str, after: str) -> str:
    """The first span that differs, in words."""
    for old, new in zip(_SPAN.findall(before), _SPAN.findall(after), strict=True):
        if old != new:
            return f"{new[0]} is {old[1].strip()[:80]!r}, the results say {new[1].strip()[:80]!r}"
    return "differs"


def _relative(path: str, page: Path) -> str:
    return os.path.relpath(_ROOT / path, page.parent)
