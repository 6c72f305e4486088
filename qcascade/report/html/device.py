"""The map of a device: qubits and couplings coloured by their calibrated errors, those that a circuit takes ringed.

What comes in: a target, and what its circuits were compiled to. What goes out: figures and tables. Colours are of the
cividis scale (made for all kinds of colour vision), over the logarithm of the error, with a legend; what is dead is dashed,
and what is not known has no colour.

Where the qubits lie: rows as they are numbered, where that puts all coupled qubits next to each other (lines, grids,
heavy-hex devices numbered by rows); a circle where all are coupled; else by stress (Kamada and Kawai, 1989).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import networkx as nx

from qcascade.report.html.page import Cell, Markup, Value, figure, joined, paragraph, table, tag
from qcascade.report.units import duration_text
from qcascade.routing.compiled import CompiledTemplate
from qcascade.routing.names import placed_gates
from qcascade.targets import Target

Point = tuple[float, float]
_STEP, _RADIUS, _MARGIN = 36.0, 12.0, 26.0
_MOST_STRESS = 200  # qubits placed by stress; more by forces
_LINE = 16  # qubits in a row of a long line
_CIVIDIS = tuple(
    bytes.fromhex(stop)
    for stop in ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838"]
)


def device_maps(target: Target, circuits: Sequence[tuple[str, CompiledTemplate]]) -> Markup:
    """The device, and a map and tables for each circuit.

    Args:
        target: A device with couplings.
        circuits: What each is called, and what it was compiled to.
    """
    points = layout(target)
    scales = _scales(target)
    parts = [_legend(target, scales)]
    maps: Sequence[tuple[str, CompiledTemplate | None]] = circuits or [("", None)]
    for number, (name, compiled) in enumerate(maps):
        parts.append(tag("h3", name) if name else Markup())
        drawn = _map(target, points, scales, compiled, base=number == 0)
        told = f"{target.name}, calibrated {target.calibrated or 'on a day not known'}"
        if compiled is not None:
            told += (
                f": {len(compiled.placement)} qubits taken, ringed, each with the circuit's own number where it starts."
            )
        tables = [] if compiled is None else [tag("div", _qubits(target, compiled), _couplings(target, compiled))]
        parts.append(tag("div", figure(drawn, told, wide=True), *tables, class_="pair"))
    return joined(parts, "\n")


def layout(target: Target) -> dict[int, Point]:
    """Where each qubit of a device lies, in steps.

    Example:
        >>> from qcascade.targets import get_target
        >>> layout(get_target("grid-2x3"))[4]
        (1.0, 1.0)
    """
    count = target.qubits or 0
    pairs = {*target.edges, *target.dead_edges}
    if target.all_to_all and count > 2:
        radius = count / (2 * math.pi) * 1.05
        return {
            q: (radius * math.sin(2 * math.pi * q / count), -radius * math.cos(2 * math.pi * q / count))
            for q in range(count)
        }
    rows = _by_rows(count, pairs)
    if rows is not None:
        return rows
    graph = nx.Graph(sorted(pairs))
    graph.add_nodes_from(range(count))
    found: dict[int, Point] = {}
    shift = 0.0
    for piece in sorted(nx.connected_components(graph), key=lambda nodes: (-len(nodes), min(nodes))):
        part = graph.subgraph(sorted(piece))
        ordered = nx.Graph()
        ordered.add_nodes_from(sorted(part))
        ordered.add_edges_from(sorted(part.edges))
        if len(piece) == 1:
            places = {next(iter(piece)): (0.0, 0.0)}
        else:
            stress = len(piece) <= _MOST_STRESS
            raw = nx.kamada_kawai_layout(ordered) if stress else nx.spring_layout(ordered, seed=0)
            lengths = [math.dist(raw[a], raw[b]) for a, b in ordered.edges]
            nearest = min(math.dist(raw[a], raw[b]) for a, b in combinations(sorted(raw), 2))
            scale = max(1.15 * len(lengths) / sum(lengths), 0.8 / max(nearest, 0.2 / len(raw)))
            places = {q: (float(x) * scale, float(y) * scale) for q, (x, y) in raw.items()}
        low, high = min(x for x, _ in places.values()), max(x for x, _ in places.values())
        found |= {q: (x - low + shift, y) for q, (x, y) in places.items()}
        shift += high - low + 1.2
    return found


def _by_rows(count: int, pairs: Iterable[tuple[int, int]]) -> dict[int, Point] | None:
    """Qubits in rows as they are numbered, single ones between rows under what they are coupled to; None where that fails."""
    near: dict[int, set[int]] = {q: set() for q in range(count)}
    for first, second in pairs:
        near[first].add(second)
        near[second].add(first)
    runs: list[list[int]] = []
    for q in range(count):
        if runs and q - 1 in near[q]:
            runs[-1].append(q)
        else:
            runs.append([q])
    if len(runs) == 1 and count > _LINE:
        return {
            q: (float(q % _LINE if q // _LINE % 2 == 0 else _LINE - 1 - q % _LINE), float(q // _LINE))
            for q in range(count)
        }
    places: dict[int, Point] = {}
    y, single = -1.0, False
    for run in runs:
        links = [
            (places[other][0], index)
            for index, q in enumerate(run)
            for other in near[q]
            if other in places and other < run[0]
        ]
        offsets = {x - index for x, index in links}
        if (places and not links) or len(offsets) > 1:
            return None
        if not (single and len(run) == 1):
            y += 1
        single = len(run) == 1
        offset = next(iter(offsets), 0.0)
        places |= {q: (offset + index, y) for index, q in enumerate(run)}
    crowded = len(set(places.values())) < count
    far = any(math.dist(places[a], places[b]) > 1.01 for a, b in pairs)
    return None if crowded or far else places


def _scales(target: Target) -> dict[str, tuple[float, float] | None]:
    """Least and greatest error of readout and couplings; None where none is known."""
    readout = [p.readout_error for p in target.properties if p.readout_error]
    coupling = [error for _, _, error in target.graph.edges.data("error") if error]
    usable = [value for value in readout if value < 0.5]
    return {
        "readout": (min(usable), max(usable)) if usable else None,
        "coupling": (min(coupling), max(coupling)) if coupling else None,
    }


def colour(value: float | None, scale: tuple[float, float] | None) -> str | None:
    """The colour of an error on a scale; None where it is not known.

    Example:
        >>> colour(0.01, (0.001, 0.01)), colour(None, (0.001, 0.01))
        ('#fee838', None)
    """
    if value is None or scale is None:
        return None
    low, high = scale
    at = 0.5 if high <= low else (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
    at = min(1.0, at) * (len(_CIVIDIS) - 1)
    first = min(int(at), len(_CIVIDIS) - 2)
    mixed = (round(a + (b - a) * (at - first)) for a, b in zip(_CIVIDIS[first], _CIVIDIS[first + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def ink(fill: str) -> str:
    """The class of text on a colour: dark or light, whichever reads better."""
    red, green, blue = (int(fill[n : n + 2], 16) for n in (1, 3, 5))
    return "dark-ink" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "light-ink"


def _map(
    target: Target,
    points: dict[int, Point],
    scales: dict[str, tuple[float, float] | None],
    compiled: CompiledTemplate | None,
    *,
    base: bool,
) -> Markup:
    """The map; what all maps share is drawn in the first, and taken from there by the others."""
    low_x, low_y = min(x for x, _ in points.values()), min(y for _, y in points.values())
    at = {q: ((x - low_x) * _STEP + _MARGIN, (y - low_y) * _STEP + _MARGIN) for q, (x, y) in points.items()}
    width, height = (max(p[n] for p in at.values()) + _MARGIN for n in (0, 1))
    title = f"Map of {target.name}: {len(target.nodes)} usable qubits, {len(target.edges)} couplings"
    taken = "" if compiled is None else "; taken: " + ", ".join(str(q) for q in sorted(compiled.placement.values()))
    shared = (
        tag("g", *_couplings_drawn(target, at, scales), *_qubits_drawn(target, at, scales), id="device-base")
        if base
        else tag("use", href="#device-base")
    )
    parts = [tag("title", title + taken), shared]
    if compiled is not None:
        for first, second in sorted(_used(compiled)):
            x1, y1, x2, y2 = _between(at[first], at[second])
            parts.append(tag("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), class_="used"))
        for logical, node in sorted(compiled.placement.items()):
            x, y = at[node]
            parts.append(tag("circle", cx=_n(x), cy=_n(y), r=_RADIUS + 3, class_="ring"))
            parts.append(tag("text", f"q{logical}", x=_n(x + 11), y=_n(y - 12), class_="tag"))
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {_n(width)} {_n(height)}",
        width=_n(width),
        height=_n(height),
        class_="device",
        role="img",
    )


def _between(first: Point, second: Point) -> tuple[float, float, float, float]:
    """The line between two rings, from edge to edge: qubits' numbers are not struck through."""
    share = (_RADIUS + 3) / max(math.dist(first, second), 2.5 * _RADIUS)
    dx, dy = share * (second[0] - first[0]), share * (second[1] - first[1])
    return first[0] + dx, first[1] + dy, second[0] - dx, second[1] - dy


def _couplings_drawn(
    target: Target, at: dict[int, Point], scales: dict[str, tuple[float, float] | None]
) -> Iterable[Markup]:
    if target.all_to_all and len(target.nodes) > 2:
        return
    for first, second in target.dead_edges:
        (x1, y1), (x2, y2) = at[first], at[second]
        yield tag("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), class_="on-device-dead-edge")
    for first, second in target.edges:
        (x1, y1), (x2, y2) = at[first], at[second]
        error = target.graph.edges[first, second]["error"]
        shade = colour(error, scales["coupling"])
        words = f"{first}–{second}: two-qubit error {_error(error)}"
        kind = "on-device-coupling" if shade else "on-device-coupling on-device-unknown-error"
        line = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
        if shade:
            yield tag("line", **line, class_="on-device-casing")
        yield tag("line", tag("title", words), **line, stroke=shade, class_=kind)


def _qubits_drawn(
    target: Target, at: dict[int, Point], scales: dict[str, tuple[float, float] | None]
) -> Iterable[Markup]:
    dead = set(target.dead_qubits)
    for q, (x, y) in sorted(at.items()):
        if q in dead:
            yield tag(
                "circle",
                tag("title", f"qubit {q}: cannot be used"),
                cx=_n(x),
                cy=_n(y),
                r=_RADIUS,
                class_="on-device-dead",
            )
            continue
        error = target.properties[q].readout_error if target.properties else None
        shade = colour(error, scales["readout"])
        words = f"qubit {q}: readout error {_error(error)}"
        kind = "on-device-qubit" if shade else "on-device-qubit on-device-unknown-error"
        yield tag("circle", tag("title", words), cx=_n(x), cy=_n(y), r=_RADIUS, fill=shade, class_=kind)
        text = f"on-device-{ink(shade) if shade else 'number'}"
        yield tag("text", str(q), x=_n(x), y=_n(y + 3.5), text_anchor="middle", class_=text)


def _legend(target: Target, scales: dict[str, tuple[float, float] | None]) -> Markup:
    entries = []
    names = {"readout": "Qubit: readout error", "coupling": "Coupling: error of the best two-qubit gate"}
    for kind, name in names.items():
        scale = scales[kind]
        if scale is None:
            entries.append(tag("li", f"{name}: not known of this device"))
            continue
        stops = [
            tag("rect", x=12 * n, width=12.5, height=12, fill="#{:02x}{:02x}{:02x}".format(*rgb))
            for n, rgb in enumerate(_CIVIDIS)
        ]
        bar = tag("svg", *stops, width=120, height=12, viewBox="0 0 120 12", aria_hidden="true")
        if scale[0] == scale[1]:
            box = tag(
                "svg",
                tag("rect", width=12, height=12, fill=colour(scale[0], scale)),
                width=12,
                height=12,
                aria_hidden="true",
            )
            entries.append(tag("li", f"{name} ", box, f"{scale[0]:.2g} everywhere"))
            continue
        entries.append(
            tag("li", f"{name} ", tag("span", f"{scale[0]:.2g}"), bar, tag("span", f"{scale[1]:.2g} (logarithmic)"))
        )
    ring = tag(
        "svg", tag("circle", cx=8, cy=8, r=6, class_="ring"), width=16, height=16, class_="device", aria_hidden="true"
    )
    entries.append(tag("li", ring, "taken by the circuit"))
    if target.dead_qubits or target.dead_edges:
        dead = f"{_counted(len(target.dead_qubits), 'qubit')} and {_counted(len(target.dead_edges), 'coupling')}"
        entries.append(tag("li", f"dashed: {dead} that cannot be used"))
    legend = tag("ul", *entries, class_="legend")
    if target.all_to_all:
        return joined(
            [
                legend,
                paragraph(
                    "Every pair of its qubits is coupled; only the couplings that a circuit takes are drawn.", note=True
                ),
            ]
        )
    return legend


def _qubits(target: Target, compiled: CompiledTemplate) -> Markup:
    rows: list[list[Cell]] = []
    for logical, node in sorted(compiled.placement.items()):
        entry = target.properties[node] if target.properties else None
        pulses = [g.error for g in target.gates if g.qubits == (node,) and g.error]
        rows.append(
            [
                f"q{logical}",
                Value(node, str(node)),
                _figure(entry.readout_error if entry else None),
                _figure(max(pulses) if pulses else None),
                _seconds(entry.t1 if entry else None),
                _seconds(entry.t2 if entry else None),
            ]
        )
    columns = ("qubit of the circuit", "qubit of the device", "readout error", "one-qubit error", "T1", "T2")
    return table(columns, rows, caption="Qubits taken at the start, with their calibration")


def _couplings(target: Target, compiled: CompiledTemplate) -> Markup:
    rows: list[list[Cell]] = [
        [f"{first}–{second}", count, _figure(target.graph.edges[first, second]["error"])]
        for (first, second), count in sorted(_used(compiled).items())
    ]
    if not rows:
        return paragraph("The circuit has no two-qubit gates.", note=True)
    return table(
        ("coupling", "two-qubit gates", "error of its best gate"), rows, caption="Couplings taken, loading included"
    )


def _used(compiled: CompiledTemplate) -> Counter[tuple[int, int]]:
    """Two-qubit gates by pair of device qubits, smaller first."""
    gates = placed_gates(compiled.circuit.circuit)
    return Counter((min(place), max(place)) for _, place in gates if len(place) == 2)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _figure(value: float | None) -> Value:
    return Value(value, "" if value is None else f"{value:.3g}")


def _seconds(value: float | None) -> Value:
    return Value(value, duration_text(value))


def _error(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
