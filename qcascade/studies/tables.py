"""Tables of a study: on the terminal by rich, and the same as markdown, so that what is read and what is committed agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

from qcascade.errors import ExecutionError


@dataclass(frozen=True, slots=True)
class StudyTable:
    """A table of text.

    Attributes:
        notes: Sentences under it.

    Example:
        >>> print(StudyTable("Squares", ("n", "n²"), (("2", "4"),)).markdown())
        **Squares**
        <BLANKLINE>
        | n | n² |
        |---|---|
        | 2 | 4 |
        <BLANKLINE>
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ExecutionError(
                f"the table {self.title!r} has {len(self.columns)} columns; every row needs as many cells."
            )

    def markdown(self) -> str:
        """As GitHub shows it."""
        lines = [_row(self.columns), "|" + "---|" * len(self.columns), *map(_row, self.rows)]
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"**{self.title}**\n\n" + "\n".join(lines) + "\n" + notes

    def text(self, width: int = 120) -> str:
        """For a terminal of so many columns."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        out = StringIO()
        console = Console(file=out, width=width, highlight=False, markup=False)
        console.print(table)
        for note in self.notes:
            console.print(note)
        return out.getvalue()


def to_markdown(heading: str, tables: Sequence[StudyTable], commands: Sequence[str]) -> str:
    """A whole table.md: heading, tables, and the commands that their records name."""
    said = "".join(f"\n    {one}" for one in dict.fromkeys(commands))
    body = "\n".join(table.markdown() for table in tables)
    return f"# {heading}\n\nWritten by:\n{said}\n\n{body}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
