"""What a study leaves to read in its folder: table.md and, if asked for, report.html, the same tables with its plots in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qcascade.errors import ExecutionError
from qcascade.report.html import Page, paragraph, png_figure, table
from qcascade.report.html.page import tag
from qcascade.studies.tables import StudyTable, to_markdown

FORMATS = ("text", "html")


def write_results(
    out: Path, heading: str, tables: Sequence[StudyTable], commands: Sequence[str], *, page: bool = False
) -> None:
    """Write them; plots are those that lie in the folder.

    Args:
        out: The study's folder.
        heading: Of both files.
        tables: In their order.
        commands: That wrote the records.
        page: report.html too.

    Raises:
        ExecutionError: A file cannot be written.
    """
    files = {"table.md": to_markdown(heading, tables, commands)}
    if page:
        files["report.html"] = to_page(heading, tables, commands, sorted(out.glob("*.png"))).to_html()
    for name, text in files.items():
        try:
            (out / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ExecutionError(f"{out / name} cannot be written ({error.strerror}).") from error


def to_page(heading: str, tables: Sequence[StudyTable], commands: Sequence[str], plots: Sequence[Path] = ()) -> Page:
    """A page of tables, pictures and commands.

    Example:
        >>> page = to_page("Squares", [StudyTable("Of n", ("n", "n²"), (("2", "4"),))], ["qcascade study squares"])
        >>> [section.title for section in page.sections]
        ['Tables', 'Commands']
    """
    page = Page(heading, "All figures are out of the records that the commands below wrote.")
    shown = page.section("Tables")
    for one in tables:
        shown.add(table(one.columns, one.rows, caption=one.title), *(paragraph(note, note=True) for note in one.notes))
    if plots:
        pictures = page.section("Plots")
        for plot in plots:
            name = plot.stem.replace("-", " ").replace("_", " ")
            pictures.add(
                png_figure(plot.read_bytes(), alt=f"Plot of {name}, whose figures are in the tables", caption=name)
            )
    written = tag("pre", "\n".join(dict.fromkeys(commands)))
    page.section("Commands").add(
        "What was typed, or repeats the runs:",
        tag("div", written, class_="scroll", tabindex=0, role="region", aria_label="Commands"),
    )
    return page
