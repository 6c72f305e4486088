"""A page that is one file: sections of text, tables and figures, in one style, that loads nothing from anywhere.

What comes in: plain strings, which are escaped, or `Markup` that the functions here have made. What goes out: an HTML
document with its style, script and images inside, and a Content-Security-Policy that forbids everything else: no network,
no script and no style but those two, told by their hashes. The same content gives the same bytes. Without scripts
everything is there; the script adds sorting, filtering and the switch of colours.

Refused: figures without a text that stands for them, and sections of one name.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

from qcascade.errors import QCascadeError

UNKNOWN = "not known"
NONE = "–"  # in a table: there is no such figure
MAX_NAME = 300  # characters of a text that a model gives
_HERE = "qcascade.report.html"


class Markup(str):
    """HTML that is safe as it is."""

    __slots__ = ()


Content: TypeAlias = str | Markup


def escaped(content: Content) -> str:
    """Markup as it is, other text escaped and without characters that do not print."""
    if isinstance(content, Markup):
        return content
    if not content.isprintable():
        content = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in content)
    return html.escape(content)


def tag(kind: str, *children: Content, **attributes: str | int | float | bool | None) -> Markup:
    """An element. In names of attributes `_` stands for `-`, and one at the end is dropped; None and False leave one out.

    Example:
        >>> tag("td", "a < b", class_="number", hidden=True)
        '<td class="number" hidden>a &lt; b</td>'
    """
    parts = [f"<{kind}"]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        parts.append(
            f" {name}" if value is True else f' {name}="{escaped(value if isinstance(value, str) else str(value))}"'
        )
    parts.append(">")
    parts += [escaped(child) for child in children]
    if kind not in _VOID:
        parts.append(f"</{kind}>")
    return Markup("".join(parts))


_VOID = frozenset({"br", "img", "input", "meta", "wbr"})


def breakable(name: str) -> Markup:
    """A name that may break after its dots and underscores, and before its capitals.

    Example:
        >>> breakable("layer.0.q_proj")
        'layer.<wbr>0.<wbr>q_<wbr>proj'
    """
    return joined(re.split(r"(?<=[._])|(?<=[a-z])(?=[A-Z])", name), Markup("<wbr>"))


def joined(parts: Iterable[Content], between: Content = "") -> Markup:
    """Contents in a row."""
    return Markup(escaped(between).join(escaped(part) for part in parts))


def paragraph(*content: Content, note: bool = False) -> Markup:
    """A paragraph; a note is set smaller."""
    return tag("p", *content, class_="note" if note else None)


def listed(items: Iterable[Content]) -> Markup:
    """A list."""
    return tag("ul", *(tag("li", item) for item in items))


@dataclass(frozen=True, slots=True)
class Value:
    """A figure: what machines read, what people read, and None where it is not known."""

    value: float | int | None
    text: str = ""

    def markup(self) -> Markup:
        """A `data` element."""
        if self.value is None:
            return tag("span", UNKNOWN, class_="unknown")
        return tag("data", self.text or f"{self.value:,}", value=repr(self.value))


Cell: TypeAlias = Content | Value | int | float | None


def cell_text(cell: Cell) -> Markup:
    """A cell's content."""
    if isinstance(cell, Value):
        return cell.markup()
    if cell is None or isinstance(cell, int | float):
        return Value(cell, "" if cell is None else f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}").markup()
    return Markup(escaped(cell))


@dataclass(frozen=True, slots=True)
class Row:
    """Cells with an id and attributes that filters read."""

    cells: Sequence[Cell]
    id: str | None = None
    data: dict[str, str] = field(default_factory=dict)


def table(
    columns: Sequence[str],
    rows: Iterable[Row | Sequence[Cell]],
    *,
    caption: str,
    id: str | None = None,
    tools: Content = "",
    large: bool = False,
) -> Markup:
    """A table, its first column heading the rows; columns of figures are set right. It sorts where scripts run.

    Args:
        columns: Headings, with units.
        rows: Cells; None is shown as not known.
        caption: What it shows, in one sentence.
        id: Of the table, for links.
        tools: Controls above it.
        large: Only its first 200 rows are shown where scripts run, until something in the page shows the others.

    Example:
        >>> "not known" in table(["run", "seconds"], [["a", 0.5], ["b", None]], caption="Times")
        True
    """
    made = [row if isinstance(row, Row) else Row(row) for row in rows]
    numeric = [any(isinstance(r.cells[n], Value | int | float) for r in made) for n in range(len(columns))]
    head = tag(
        "tr",
        *(
            tag("th", name, scope="col", class_="number" if n else None)
            for name, n in zip(columns, numeric, strict=True)
        ),
    )
    body = []
    for row in made:
        cells = [tag("th", cell_text(row.cells[0]), scope="row")]
        for name, number, cell in zip(columns[1:], numeric[1:], row.cells[1:], strict=True):
            kind = "none" if cell == NONE else "number" if number else None
            cells.append(tag("td", cell_text(cell), class_=kind, data_label=name))
        data = {f"data_{key}": value for key, value in row.data.items()}
        body.append(tag("tr", *cells, id=row.id, **data))
    whole = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", head),
        tag("tbody", joined(body, "\n")),
        id=id,
        class_="large" if large else None,
    )
    return joined([tools, tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)])


def png_figure(png: bytes, *, alt: str, caption: Content) -> Markup:
    """A picture in PNG form, inside the page.

    Args:
        png: The file's bytes.
        alt: What it shows, for those who do not see it.
        caption: Under it.

    Raises:
        QCascadeError: There is no alt, or the bytes are no PNG.
    """
    return _picture(png, "image/png", alt, caption, png.startswith(b"\x89PNG\r\n\x1a\n"))


def svg_figure(svg: str, *, alt: str, caption: Content) -> Markup:
    """A drawing in SVG form (as matplotlib writes it, say) as a picture, so that nothing in it runs.

    Args:
        svg: The document.
        alt: What it shows, for those who do not see it.
        caption: Under it.

    Raises:
        QCascadeError: There is no alt, or it is no SVG document.
    """
    return _picture(svg.encode(), "image/svg+xml", alt, caption, "<svg" in svg)


def _picture(content: bytes, kind: str, alt: str, caption: Content, valid: bool) -> Markup:
    if not valid:
        raise QCascadeError(f"the picture is no {kind}; give the bytes of one.")
    if not alt.strip():
        raise QCascadeError("alt is empty; say in words what the figure shows.")
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return tag("figure", tag("img", src=source, alt=alt, class_="plate"), tag("figcaption", caption))


def figure(drawing: Markup, caption: Content, *, wide: bool = False) -> Markup:
    """A drawing made here, with its caption; a wide one scrolls sideways."""
    if wide:
        label = html.unescape(re.sub(r"<[^>]*>", "", escaped(caption)))
        drawing = tag("div", drawing, class_="scroll", tabindex=0, role="region", aria_label=label[:200])
    return tag("figure", drawing, tag("figcaption", caption))


def details(summary: Content, *content: Content) -> Markup:
    """What is folded until it is asked for; in print it is open."""
    return tag("details", tag("summary", summary), *content)


@dataclass(slots=True)
class Section:
    """A part of a page under a heading, which the menu names."""

    title: str
    id: str
    parts: list[Content] = field(default_factory=list)

    def add(self, *parts: Content) -> Section:
        """Append content; plain text becomes a paragraph."""
        self.parts += [part if isinstance(part, Markup) else paragraph(part) for part in parts]
        return self


@dataclass(slots=True)
class Page:
    """A page under construction.

    Args:
        title: The page's own heading.
        subtitle: One line under it.

    Example:
        >>> page = Page("Study", "Two runs")
        >>> _ = page.section("Results").add("As measured.", table(["run", "s"], [["a", 1.5]], caption="Times"))
        >>> "Results</h2>" in page.to_html()
        True
    """

    title: str
    subtitle: Content = ""
    sections: list[Section] = field(default_factory=list)
    _data: dict[str, Any] = field(default_factory=dict)

    def section(self, title: str, id: str | None = None) -> Section:
        """A new section; its id is made of its title where none is given.

        Raises:
            QCascadeError: The page has one of that id.
        """
        name = id or re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or f"section-{len(self.sections)}"
        if name in (s.id for s in self.sections):
            raise QCascadeError(f"the page has a section {name!r}; give another id.")
        made = Section(title, name)
        self.sections.append(made)
        return made

    def data(self, id: str, value: Any) -> None:
        """Values that the page's script reads; JSON, and never run."""
        self._data[id] = value

    def to_html(self) -> str:
        """The document."""
        style, script = _resource("style.css"), _resource("script.js")
        sections = [
            tag(
                "section",
                tag("h2", s.title, id=f"{s.id}-title"),
                joined(s.parts, "\n"),
                id=s.id,
                aria_labelledby=f"{s.id}-title",
            )
            for s in self.sections
        ]
        values = {
            "title": escaped(self.title),
            "heading": breakable(self.title),
            "subtitle": escaped(self.subtitle),
            "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'",
            "style": style,
            "script": script,
            "menu": joined(tag("a", s.title, href=f"#{s.id}") for s in self.sections),
            "content": joined(sections, "\n"),
            "data": joined(
                Markup(f'<script type="application/json" id="{escaped(id)}">{embedded(value)}</script>')
                for id, value in self._data.items()
            ),
        }
        return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _resource("template.html"))


def embedded(value: Any) -> str:
    """JSON that may stand in a script element whatever strings it holds.

    Example:
        >>> "<" in embedded("</script><!--")
        False
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _resource(name: str) -> str:
    return files(_HERE).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
