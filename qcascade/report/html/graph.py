"""The model's graph as one drawing: blocks of modules in reading order, units inside them layer by layer.

What comes in: the units of a plan's record, with every region's verdict. What goes out: an SVG element that is whole
without scripts (regions are links to their rows), and the data that the page's script uses for zoom, selection and keys.

Layout, in O(n log n): the tree of modules is cut where a subtree has at most `MOST_IN_BLOCK` units; consecutive units of
one cut are a block, and own code of a module around its parts joins the block before. In a block a unit is one row below the
lowest of those it reads there; blocks fill rows, as words do. Edges inside a block and to the next one are drawn; others
when a unit is selected.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qcascade.errors import QCascadeError
from qcascade.kernels.base import KERNELS
from qcascade.plan import GraphUnit, Region, Verdict
from qcascade.report.html.page import Markup, tag
from qcascade.report.units import bytes_text, duration_text, flops_text

MOST_IN_BLOCK = 12
_MOST_MERGED = 9  # units of small blocks in a row that are drawn as one
_WIDE = 4  # units side by side
_W, _H, _GAP_X, _GAP_Y = 176.0, 42.0, 14.0, 28.0
_PAD, _TITLE, _BETWEEN, _ROWS = 14.0, 34.0, 54.0, 46.0
_ROOM = 162.0  # for words in a unit
_ASPECT = 2.3
_LARGE = 500  # units whose names cannot be read when all are shown


@dataclass(eq=False)
class Block:
    """Units drawn together, under the module that they are of."""

    path: str
    members: list[int]
    last: str = ""  # of merged blocks, the last one's path
    places: dict[int, tuple[float, float]] = field(default_factory=dict)  # inside the block
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0
    y: float = 0.0

    @property
    def title(self) -> str:
        """What stands over it."""
        return self.path if not self.last or self.last == self.path else f"{self.path} … {self.last}"


@dataclass(frozen=True)
class Drawing:
    """The SVG element, the script's data, and how many edges are not drawn."""

    svg: Markup
    data: dict[str, Any]
    hidden_edges: int


def draw_graph(units: Sequence[GraphUnit], regions: Mapping[str, Region], rows: Mapping[str, str]) -> Drawing:
    """The drawing.

    Args:
        units: In an order of the dataflow.
        regions: The plan's, by name.
        rows: Ids of the regions' rows in the page, by name.
    """
    blocks = arrange(units)
    at, home = {}, {}
    for number, block in enumerate(blocks):
        for unit, (x, y) in block.places.items():
            at[unit], home[unit] = (block.x + x, block.y + y), number
    width = max((b.x + b.width for b in blocks), default=100.0) + _PAD
    height = max((b.y + b.height for b in blocks), default=100.0) + _PAD
    lines, heads, hidden = _edges(units, blocks, at, home)
    parts: list[Markup] = [
        tag("title", "The model's graph: regions and what runs between them, in the order of the dataflow")
    ]
    for block in blocks:
        parts.append(
            tag(
                "rect",
                x=_n(block.x),
                y=_n(block.y),
                width=_n(block.width),
                height=_n(block.height),
                rx=10,
                class_="block",
            )
        )
        shown = _cut(block.title, (block.width - 2 * _PAD) / 14.6, from_left=True)
        parts.append(tag("text", shown, x=_n(block.x + _PAD), y=_n(block.y + 19), class_="title"))
    parts.append(tag("path", d="".join(lines), class_="lines"))
    parts.append(tag("path", d="".join(heads), class_="heads"))
    for number in sorted(at):
        parts.append(_unit(number, units[number], regions, rows, at[number], blocks[home[number]].path))
    svg = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {_n(width)} {_n(height)}",
        id="model-graph",
        class_="large" if len(units) > _LARGE else None,
        role="group",
        aria_label="The model's graph",
    )
    data = {
        "size": [round(width, 1), round(height, 1)],
        "unit": [_W, _H],
        "units": [_told(unit, regions, rows, at[number]) for number, unit in enumerate(units)],
    }
    return Drawing(svg, data, hidden)


def arrange(units: Sequence[GraphUnit]) -> list[Block]:
    """Blocks with their places and those of their units."""
    blocks = _merged(_blocks(units))
    for block in blocks:
        _lay_out(block, units)
    area = sum((b.width + _BETWEEN) * (b.height + _ROWS) for b in blocks)
    widest = max([math.sqrt(area * _ASPECT), *(b.width for b in blocks)]) if blocks else 0.0
    x, y, tallest = _PAD, _PAD, 0.0
    for block in blocks:
        if x > _PAD and x + block.width > widest + _PAD:
            x, y, tallest = _PAD, y + tallest + _ROWS, 0.0
        block.x, block.y = x, y
        x, tallest = x + block.width + _BETWEEN, max(tallest, block.height)
    return blocks


def _blocks(units: Sequence[GraphUnit]) -> list[Block]:
    counts: Counter[str] = Counter(prefix for unit in units for prefix in _prefixes(unit.module))
    blocks: list[Block] = []
    for number, unit in enumerate(units):
        key = next((p for p in _prefixes(unit.module) if counts[p] <= MOST_IN_BLOCK), unit.module)
        if unit.kind in ("input", "output"):
            key = unit.kind
        last = blocks[-1] if blocks else None
        joins = last is not None and (key == last.path or (unit.kind == "classical" and _is_ancestor(key, last.path)))
        if last is not None and joins and len(last.members) < MOST_IN_BLOCK + 4:
            last.members.append(number)
        else:
            blocks.append(Block(key, [number]))
    return blocks


def _merged(blocks: list[Block]) -> list[Block]:
    """Neighbours of few units in one block."""
    found: list[Block] = []
    for block in blocks:
        last = found[-1] if found else None
        small = len(block.members) <= 3
        if last is not None and small and last.last and len(last.members) + len(block.members) <= _MOST_MERGED:
            last.members += block.members
            last.last = block.path
        else:
            found.append(Block(block.path or "model", list(block.members), block.path if small else ""))
    return found


def _prefixes(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _is_ancestor(path: str, of: str) -> bool:
    return not path or of.startswith(path + ".")


def _lay_out(block: Block, units: Sequence[GraphUnit]) -> None:
    inside, rank = set(block.members), dict[int, int]()
    for number in block.members:
        rank[number] = max((rank[i] + 1 for i in units[number].inputs if i in inside and i in rank), default=0)
    rows: dict[int, list[int]] = {}
    for number in block.members:
        rows.setdefault(rank[number], []).append(number)
    lines = [row[n : n + _WIDE] for _, row in sorted(rows.items()) for n in range(0, len(row), _WIDE)]
    widest = max(len(line) for line in lines)
    full = widest * _W + (widest - 1) * _GAP_X
    centre: dict[int, float] = {}
    for level, line in enumerate(lines):
        known = {n: [centre[i] for i in units[n].inputs if i in centre] for n in line}
        line.sort(key=lambda n: (sum(known[n]) / len(known[n]) if known[n] else -1.0, n))
        start = _PAD + (full - len(line) * _W - (len(line) - 1) * _GAP_X) / 2
        for column, number in enumerate(line):
            x = start + column * (_W + _GAP_X)
            centre[number] = x + _W / 2
            block.places[number] = (x, _TITLE + 8 + level * (_H + _GAP_Y))
    level_of = {number: level for level, line in enumerate(lines) for number in line}
    skips = any(level_of[n] - level_of[i] > 1 for n in block.members for i in units[n].inputs if i in level_of)
    block.width = full + 2 * _PAD + (22 if skips else 0)
    block.height = _TITLE + 8 + len(lines) * (_H + _GAP_Y) - _GAP_Y + _PAD


def _edges(
    units: Sequence[GraphUnit], blocks: Sequence[Block], at: Mapping[int, tuple[float, float]], home: Mapping[int, int]
) -> tuple[list[str], list[str], int]:
    """Paths of the lines and of their heads, and how many are not drawn.

    A line runs beside the boxes and between their rows, never behind a unit that it does not meet: it leaves to the right
    where its unit is the last of a row, and comes in from the left where it is the first, else through the gutters.
    """
    rows: list[dict[float, list[float]]] = [{} for _ in blocks]
    for number, (x, y) in at.items():
        rows[home[number]].setdefault(y, []).append(x)
    lanes: dict[tuple[int, int], dict[int, int]] = {}  # by blocks of the ends: a lane of its own for each source

    def leave(number: int) -> tuple[str, float]:
        """The start of a line to the right, and how high it runs."""
        (x, y), row = at[number], rows[home[number]][at[number][1]]
        if x == max(row):
            return f"M{_n(x + _W)} {_n(y + _H / 2)}", y + _H / 2
        lane = y + _H + 3 + 2.5 * sorted(row).index(x)
        return f"M{_n(x + _W / 2 + 12)} {_n(y + _H)}V{_n(lane)}", lane

    def enter(number: int, *, left: bool) -> tuple[float, str, str]:
        """How high a line comes in from the left, or the right; its end, and its head."""
        (x, y), row = at[number], rows[home[number]][at[number][1]]
        if left and x == min(row):
            return y + _H / 2, f"H{_n(x - 6)}", _head(x - 1, y + _H / 2, "right")
        if not left and x == max(row):
            return y + _H / 2 - 8, f"H{_n(x + _W + 6)}", _head(x + _W + 1, y + _H / 2 - 8, "left")
        over, lane = x + _W / 2 + (-12 if left else 12), y - 11 - 2.5 * sorted(row).index(x)
        return lane, f"H{_n(over)}V{_n(y - 5)}", _head(over, y - 1, "down")

    lines, heads, hidden = [], [], 0
    for number, unit in enumerate(units):
        tx, ty = at[number]
        for source in unit.inputs:
            sx, sy = at[source]
            first, second = blocks[home[source]], blocks[home[number]]
            if home[number] - home[source] not in (0, 1):
                hidden += 1
                continue
            if first is second and 0 < ty - sy < 1.5 * (_H + _GAP_Y):
                x1, y1, x2, y2 = sx + _W / 2, sy + _H, tx + _W / 2, ty - 1
                lines.append(f"M{_n(x1)} {_n(y1)}C{_n(x1)} {_n(y1 + 12)} {_n(x2)} {_n(y2 - 14)} {_n(x2)} {_n(y2 - 4)}")
                heads.append(_head(x2, y2, "down"))
                continue
            start, y1 = leave(source)
            y2, end, head = enter(number, left=first is not second)
            heads.append(head)
            used = lanes.setdefault((home[source], home[number]), {})
            lane = used.setdefault(source, len(used))
            if first is second:
                passed = [max(row) for y, row in rows[home[number]].items() if sy <= y <= ty]
                if max(passed) <= min(sx, tx):
                    side = sx + _W + 24
                    lines.append(f"{start}C{_n(side)} {_n(y1)} {_n(side)} {_n(y2)} {_n(tx + _W + 6)} {_n(y2)}")
                else:
                    lines.append(f"{start}H{_n(max(passed) + _W + 8 + 4 * min(lane, 6))}V{_n(y2)}{end}")
            elif first.y == second.y:
                x1, x2 = first.x + first.width, second.x
                middle = (x1 + x2) / 2
                bend = f"C{_n(middle)} {_n(y1)} {_n(middle)} {_n(y2)} {_n(x2)} {_n(y2)}"
                lines.append(f"{start}H{_n(x1)}{bend}{end}")
            else:
                lane = min(lane, 2)
                gutter, left, centre = second.y - _ROWS / 2 + 4 * lane, second.x - 4 - 4 * lane, sx + _W / 2
                if any(y > sy and x <= centre <= x + _W for y, row in rows[home[source]].items() for x in row):
                    start += f"H{_n(first.x + first.width + 4 + 4 * lane)}V{_n(gutter)}"
                else:
                    start = f"M{_n(centre)} {_n(sy + _H)}V{_n(gutter)}"
                lines.append(f"{start}H{_n(left)}V{_n(y2)}{end}")
    return lines, heads, hidden


def _head(x: float, y: float, towards: str) -> str:
    return f"M{_n(x)} {_n(y)}" + {"down": "l-4 -8h8z", "right": "l-8 -4v8z", "left": "l8 -4v8z"}[towards]


def _unit(
    number: int,
    unit: GraphUnit,
    regions: Mapping[str, Region],
    rows: Mapping[str, str],
    at: tuple[float, float],
    path: str,
) -> Markup:
    region = regions.get(unit.region) if unit.region else None
    kind = region.verdict.value if region else unit.kind
    name = unit.region or unit.label
    short = name.removeprefix(path + ".") if region and path else name
    badge = "◆ " if region and region.verdict is Verdict.OFFLOADED else ""
    if region:
        below = f"{region.pattern} · {flops_text(region.flops)}"
    else:
        below = ", ".join(unit.operations) or {"input": "input", "output": "result"}.get(unit.kind, "")
    x, y = at
    parts = [
        tag("rect", x=_n(x), y=_n(y), width=_n(_W), height=_n(_H), rx=9 if region else 6),
        tag("text", badge + _cut(short, _ROOM / 13 - 1.1 * bool(badge), from_left=True), x=_n(x + 10), y=_n(y + 18)),
        tag("text", _cut(below, _ROOM / 11), x=_n(x + 10), y=_n(y + 33), class_="sub"),
    ]
    how = kind + (", by a kernel added beside it" if region and _adds(region) else "")
    label = f"{name}, {region.pattern}, {how}" if region else f"{name}, {unit.kind}, not a region"
    shared: dict[str, Any] = {"id": f"u{number}", "class_": f"unit {kind}", "aria_label": label}
    if region:
        return tag("a", *parts, href=f"#{rows[region.name]}", tabindex=-1, **shared)
    return tag("g", *parts, role="img", **shared)


def _told(
    unit: GraphUnit, regions: Mapping[str, Region], rows: Mapping[str, str], at: tuple[float, float]
) -> list[Any]:
    """What the script says of a unit: name, kind, what is shown as (label, text), row, inputs, place."""
    region = regions.get(unit.region) if unit.region else None
    facts = [["module", unit.module or "the model itself"]]
    if region:
        facts += [["pattern", region.pattern], ["grows", region.complexity or "not known"], ["reason", region.reason]]
        if region.kernel:
            facts.append(["kernel", region.kernel + (", added beside the region" if _adds(region) else "")])
    if unit.kind not in ("input", "output"):
        facts += [
            ["forward pass", flops_text(unit.flops) if unit.flops is not None else "not known"],
            ["memory", bytes_text(unit.bytes) if unit.bytes is not None else "not known"],
            ["time here", f"{duration_text(unit.seconds)} (roofline)" if unit.seconds is not None else "not known"],
            ["nodes", f"{unit.nodes}: {', '.join(unit.operations) or 'none named'}"],
        ]
    kind = region.verdict.value if region else unit.kind
    row = rows.get(unit.region) if unit.region else None
    return [unit.region or unit.label, kind, facts, row, list(unit.inputs), round(at[0], 1), round(at[1], 1)]


def _adds(region: Region) -> bool:
    """Whether its kernel stands beside it (adapters), and carries nothing away."""
    try:
        return region.kernel is not None and KERNELS.get(region.kernel).adds
    except QCascadeError:  # the plan is of a machine with other kernels
        return False


def _cut(text: str, room: float, *, from_left: bool = False) -> str:
    """As much of a text as a room holds, which is told in sizes of the letters."""
    if sum(map(_width, text)) <= room:
        return text
    kept, left = "", room - 1.0
    for letter in reversed(text) if from_left else text:
        left -= _width(letter)
        if left < 0:
            break
        kept += letter
    return "…" + kept[::-1] if from_left else kept + "…"


def _width(letter: str) -> float:
    """The width of a letter in a sans-serif of its size 1, rather too much."""
    if letter in "mwMW@%" or unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in "_fijlrtI.,:;|!()[] ":
        return 0.5 if letter == "_" else 0.41
    return 0.78 if letter.isupper() or not letter.isascii() else 0.61 if letter.islower() else 0.64


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
