"""Small plots as SVG: lines over logarithmic or linear axes, points on one logarithmic axis, shares of a whole.

What comes in: figures in one unit an axis, with a function that writes them. What goes out: `svg` elements in the page's
classes, readable in both colour schemes; a legend tells lines apart by dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qcascade.report.html.page import Markup, joined, tag

_WIDTH, _HEIGHT = 340, 250  # no wider, or words are too small on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 14, 14, 46
_CHARACTER = 7.2  # width of one, in words of 12 px
_STYLES = (("first", ""), ("second", " dashed"), ("third", ""))


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points, of the style of its place."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with its words."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of positive numbers (logarithmic) or of any, and how they are written."""

    name: str
    low: float
    high: float
    text: Callable[[float], str]
    logarithmic: bool = True

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1, cut off at the ends."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return min(1.0, max(0.0, (at - low) / (high - low)))

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside the range."""
        if not self.logarithmic:
            return [self.low + (self.high - self.low) * n / 4 for n in range(5)]
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / most))
        return [10.0**n for n in range(first, last + 1, step)]


def line_plot(lines: Sequence[Line], marks: Sequence[Mark], x: Axis, y: Axis, *, title: str) -> Markup:
    """Lines and marked points.

    Example:
        >>> axis = Axis("n", 1, 100, str)
        >>> line_plot([Line("n", ((1, 1), (100, 100)))], [], axis, axis, title="n").count("<path")
        3
    """

    def at(px: float, py: float) -> tuple[float, float]:
        return (
            _LEFT + x.place(px) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - y.place(py) * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts: list[Markup] = [tag("title", title)]
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value in x.ticks(4):
        across, text = _n(at(value, y.low)[0]), x.text(value)
        parts.append(tag("line", x1=across, x2=across, y1=_TOP, y2=floor, class_="grid"))
        parts.append(
            tag("text", text, x=_inside(across, text), y=floor + 17, text_anchor="middle", font_size=12, class_="muted")
        )
    for value in y.ticks():
        py = at(x.low, value)[1]
        parts.append(tag("line", x1=_LEFT, x2=right, y1=_n(py), y2=_n(py), class_="grid"))
        parts.append(
            tag("text", y.text(value), x=_LEFT - 7, y=_n(py + 4), text_anchor="end", font_size=12, class_="muted")
        )
    parts.append(tag("path", d=f"M{_LEFT} {_TOP}V{floor}H{right}", class_="axis"))
    parts.append(tag("text", x.name, x=(_LEFT + right) / 2, y=_HEIGHT - 8, text_anchor="middle", font_size=13))
    middle = (_TOP + floor) / 2
    parts.append(
        tag("text", y.name, transform=f"translate(13 {middle}) rotate(-90)", text_anchor="middle", font_size=13)
    )
    for (style, dashes), line in zip(_STYLES, lines, strict=False):
        d = "M" + "L".join(f"{_n(px)} {_n(py)}" for px, py in (at(*point) for point in line.points))
        parts.append(tag("path", d=d, class_=f"line {style}{dashes}"))
    told: list[tuple[float, float, float]] = []  # words of marks: where they begin, how high, how long
    for number, mark in enumerate(marks):
        px, py = at(mark.x, mark.y)
        parts.append(tag("circle", cx=_n(px), cy=_n(py), r=5, class_="fill-second"))
        length, first = _CHARACTER * len(mark.text), number % 2 == 0
        right_of, left_of = px + 8 + length < _WIDTH, px - 8 - length > _LEFT
        anchor, start = ("end", px - 8) if left_of else ("end", _WIDTH - 2.0)
        if right_of and (first or not left_of):
            anchor, start = "start", px + 8
        wanted = py - 9 if (first and py > _TOP + 22) or py > floor - 22 else py + 20
        begins = start if anchor == "start" else start - length
        free = (
            h
            for h in (wanted, py + 20, py - 9, py + 36, py - 25)
            if not any(_meet((begins, h, length), o) for o in told)
        )
        y_text = next(free, wanted)
        told.append((begins, y_text, length))
        words = tag("text", mark.text, x=_n(start), y=_n(y_text), text_anchor=anchor, font_size=12, class_="halo")
        parts.append(words)
    legend = tag(
        "ul", *(_entry(line.name, style) for style, line in zip(_STYLES, lines, strict=False)), class_="legend"
    )
    return joined(
        [tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", width=_WIDTH, height=_HEIGHT, role="img"), legend]
    )


def _entry(name: str, style: tuple[str, str]) -> Markup:
    line = tag("path", d="M1 6H25", class_=f"line {style[0]}{style[1]}")
    return tag("li", tag("svg", line, width=26, height=12, viewBox="0 0 26 12", aria_hidden="true"), name)


def point_plot(
    rows: Sequence[tuple[str, float | None]], text: Callable[[float], str], *, title: str, unknown: str
) -> Markup:
    """One point a row on a common logarithmic axis, with its value in words; a value that is not known has no point.

    Example:
        >>> point_plot([("a", 1.0), ("b", None)], str, title="t", unknown="not known").count("<circle")
        1
    """
    known = [value for _, value in rows if value is not None and value > 0]
    low, high = (min(known) / 3, max(known) * 3) if known else (1.0, 10.0)
    axis = Axis("", low, high, text)
    row, left, right = 44, 8, _WIDTH - 96
    height = row * len(rows) + 30
    parts: list[Markup] = [tag("title", title)]
    for value in axis.ticks(4) if known else []:
        across = _n(left + axis.place(value) * (right - left))
        parts.append(tag("line", x1=across, x2=across, y1=4, y2=height - 24, class_="grid"))
        x = _inside(across, text(value))
        parts.append(tag("text", text(value), x=x, y=height - 8, text_anchor="middle", font_size=12, class_="muted"))
    for number, (name, found) in enumerate(rows):
        y = row * number + 32
        parts.append(tag("text", name, x=left, y=y - 12, font_size=13))
        parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="axis"))
        if found is not None and found > 0:
            px = left + axis.place(found) * (right - left)
            parts.append(tag("circle", cx=_n(px), cy=y, r=6, class_=f"fill-{_STYLES[number % 3][0]}"))
        told = unknown if found is None else text(found)
        parts.append(tag("text", told, x=right + 10, y=y + 5, font_size=13, class_="muted" if found is None else None))
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {height}", width=_WIDTH, height=height, role="img")


def share_bar(parts: Sequence[tuple[str, float]], text: Callable[[float], str], *, title: str) -> Markup:
    """Shares of a whole as one bar with a legend of values and percentages; at most three parts.

    Example:
        >>> "75.0 %" in share_bar([("a", 3.0), ("b", 1.0)], str, title="t")
        True
    """
    total = sum(value for _, value in parts)
    drawn: list[Markup] = [tag("title", title)]
    x = 0.0
    for (style, _), (_, value) in zip(_STYLES, parts, strict=False):
        width = _WIDTH * value / total if total else 0.0
        if width > 0:
            drawn.append(tag("rect", x=_n(x), y=0, width=_n(max(width - 1, 0.6)), height=20, class_=f"fill-{style}"))
        x += width
    entries = []
    for (style, _), (name, value) in zip(_STYLES, parts, strict=False):
        box = tag(
            "svg",
            tag("rect", width=12, height=12, rx=2, class_=f"fill-{style}"),
            width=12,
            height=12,
            aria_hidden="true",
        )
        share = f" ({100 * value / total:.1f} %)" if total else ""
        entries.append(tag("li", box, f"{name}: {text(value)}{share}"))
    whole = {"viewBox": f"0 0 {_WIDTH} 20", "preserveAspectRatio": "none"}
    bar = tag("svg", *drawn, **whole, width=_WIDTH, height=20, role="img", class_="bar-of-shares")
    return joined([bar, tag("ul", *entries, class_="legend")])


def decades(low: float, high: float, points: int) -> Iterator[float]:
    """Points evenly spaced in their logarithm."""
    for number in range(points):
        yield low * (high / low) ** (number / (points - 1))


def _meet(first: tuple[float, float, float], second: tuple[float, float, float]) -> bool:
    """Whether words run into each other."""
    (x1, y1, length1), (x2, y2, length2) = first, second
    return x1 < x2 + length2 and x2 < x1 + length1 and abs(y1 - y2) < 15


def _inside(across: str, text: str) -> str:
    """Where the middle of words is, so that none of them leave the drawing."""
    half = _CHARACTER * len(text) / 2 + 1
    return _n(min(max(float(across), half), _WIDTH - half))


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
