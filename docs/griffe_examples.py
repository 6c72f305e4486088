"""How our docstrings become API pages: `Example:` sections are doctests, comments behind a dataclass's fields describe them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Change docstrings as they are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """The parser knows `Examples:`."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """A class that lists neither arguments nor attributes gets the comments behind its fields as a table."""
        text = cls.docstring.value if cls.docstring is not None else ""
        if cls.docstring is None or "Args:" in text or "Attributes:" in text:
            return
        if fields := dict(_comments(cls)):
            lines = "\n".join(f"    {name}: {comment}" for name, comment in fields.items())
            head, examples, rest = text.partition("\nExample")
            cls.docstring.value = f"{head.rstrip()}\n\nAttributes:\n{lines}\n{examples}{rest}"


def _comments(cls: griffe.Class) -> Iterator[tuple[str, str]]:
    for name, member in cls.members.items():
        if isinstance(member, griffe.Attribute) and "instance-attribute" in member.labels and not name.startswith("_"):
            line = member.source.splitlines()[0]
            yield name, line.partition("  # ")[2] or "–"
