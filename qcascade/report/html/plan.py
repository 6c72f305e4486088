"""A partition plan as one page: summary, graph, regions, candidates, circuits, device, and what the figures mean."""

from __future__ import annotations

from collections.abc import Iterator

from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.plan import PartitionPlan, PlanRecord, Verdict
from qcascade.report.circuit_svg import MAX_COLUMNS, MAX_WIRES, circuit_svg
from qcascade.report.html.candidates import candidate_cards
from qcascade.report.html.device import device_maps
from qcascade.report.html.evidence import Sheet, Use, find_sheets
from qcascade.report.html.graph import draw_graph
from qcascade.report.html.page import Markup, Page, details, figure, joined, listed, paragraph, tag
from qcascade.report.html.plots import share_bar
from qcascade.report.html.regions import regions_table, row_ids
from qcascade.report.text import adds, basis, hardware, headline
from qcascade.report.units import duration_text, flops_text
from qcascade.routing.compiled import CompiledTemplate

MOST_CIRCUITS = 10  # drawn
MOST_MAPS = 4
_READ = "The plan was read from a file, which does not hold what this is drawn from; make it again with qcascade.plan to see it."


def render_plan(plan: PartitionPlan) -> str:
    """The page; the same plan gives the same bytes.

    Example:
        >>> from qcascade.plan import CaptureRecord, Summary
        >>> empty = PartitionPlan("Model", "ideal", "offload", CaptureRecord("export"), Summary(0, 0, 0, 0))
        >>> "0 regions found, 0 offloaded" in render_plan(empty)
        True
    """
    sheets, of = find_sheets(plan)
    rows = row_ids(plan)
    page = Page(
        plan.model,
        f"Partition report · target {plan.target} · objective {plan.objective} · captured by {plan.capture.method}",
    )
    page.section("Summary").add(*_summary(plan))
    graph = page.section("Graph")
    drawn: dict[str, str] = {}
    if plan.record is None:
        graph.add(paragraph(_READ, note=True))
    else:
        drawn = {unit.region: f"u{n}" for n, unit in enumerate(plan.record.units) if unit.region}
        graph.add(*_graph(plan, plan.record, page, rows, len(drawn)))
    page.section("Regions").add(regions_table(plan, of, drawn))
    costs = page.section("Costs")
    if sheets:
        costs.add(*basis(plan), candidate_cards(sheets, rows))
    elif plan.regions:
        costs.add("No candidate was costed: the reasons are in the table of regions.")
    else:
        costs.add("No region was found, so nothing was costed.")
    _circuits(page, plan, sheets)
    page.section("How to read this", "method").add(*_method(plan))
    return page.to_html()


def _summary(plan: PartitionPlan) -> Iterator[Markup]:
    s, record = plan.summary, plan.record
    yield tag("p", headline(plan) + ".", class_="lead")
    share = f"{100 * (s.flops_offloaded or 0) / s.flops_total:.1f} %" if s.flops_total else "not known"
    beside = sum(adds(r.kernel) for r in plan.regions)
    added = f"{beside} added beside, " if beside else ""
    tiles = [
        ("Regions found", f"{s.regions}", f"{s.offloaded - beside} offloaded, {added}{s.regions - s.offloaded} kept"),
        ("Carried by kernels", share, f"of {flops_text(s.flops_total)}"),
        ("Target", plan.target, _target(record) if record else ""),
        ("Objective", plan.objective, _OBJECTIVES.get(plan.objective, "")),
    ]
    yield tag(
        "dl", *(tag("div", tag("dt", n), tag("dd", v, tag("small", more))) for n, v, more in tiles), class_="tiles"
    )
    if record is not None and s.flops_total:
        gone = {r.name for r in plan.regions if r.verdict is Verdict.OFFLOADED and not adds(r.kernel)}
        carried = sum(u.flops or 0 for u in record.units if u.region in gone)
        kept = sum(u.flops or 0 for u in record.units if u.region and u.region not in gone)
        parts = [
            ("offloaded regions", float(carried)),
            ("regions kept, or added to" if beside else "kept regions", float(kept)),
            ("outside regions", float(max(0, s.flops_total - carried - kept))),
        ]
        yield figure(
            share_bar(parts, flops_text, title="FLOPs of a forward pass"),
            "FLOPs of a forward pass of the example's batch, by what they are part of.",
        )
    yield paragraph(hardware(plan))
    if plan.capture.notes:
        yield tag("h3", "Notes of the capture")
        yield listed(plan.capture.notes)


_OBJECTIVES = {
    "offload": "the most FLOPs within the limits",
    "train_time": "only what trains faster here, simulated",
    "hardware_time": "only what the target runs faster",
}


def _target(record: PlanRecord) -> str:
    target = record.target
    if target.qubits is None:
        return "no limits, no errors"
    return (
        f"{len(target.nodes)} of {target.qubits} qubits usable; calibrated {target.calibrated or 'on a day not known'}"
    )


def _graph(plan: PartitionPlan, record: PlanRecord, page: Page, rows: dict[str, str], drawn: int) -> Iterator[Markup]:
    made = draw_graph(record.units, {r.name: r for r in plan.regions}, rows)
    page.data("graph-data", made.data)
    kinds = (
        ("offloaded", "◆ offloaded to a kernel, or with one added beside it"),
        ("kept", "region kept classical"),
        ("classical", "not a region"),
    )
    entries = []
    for kind, name in kinds:
        box = tag(
            "svg",
            tag("rect", x=1, y=1, width=20, height=12, rx=3, class_=f"key {kind}"),
            width=22,
            height=14,
            aria_hidden="true",
        )
        entries.append(tag("li", box, name))
    yield tag("ul", *entries, class_="legend")
    buttons = (("zoom-in", "Zoom in"), ("zoom-out", "Zoom out"), ("zoom-fit", "Show all"))
    hint = tag("p", "Drag to move, Ctrl + wheel or pinch to zoom; arrow keys walk along the dataflow.", class_="note")
    tools = tag(
        "div",
        *(tag("button", n, type="button", id=i) for i, n in buttons),
        hint,
        class_="graph-tools",
        id="graph-tools",
        hidden=True,
    )
    aside = tag("aside", id="unit", aria_label="The selected part", aria_live="polite", hidden=True)
    yield tag("div", tools, made.svg, aside, class_="graph", id="graph-holder")
    notes = [f"{len(record.units)} parts. Parameters, sizes and rearrangements of tensors are left out."]
    if made.hidden_edges:
        notes.append(
            f"{made.hidden_edges} connections between blocks that are not neighbours appear when one of their ends is selected."
        )
    inside = sum(1 for r in plan.regions if r.name not in {u.region for u in record.units})
    if inside:
        notes.append(
            f"{inside} regions lie inside larger ones, or outside what was captured, and are in the table only."
        )
    if not record.whole:
        notes.append(
            "The model was captured module by module: what its own code does between the parts is not seen, and not drawn."
        )
    yield paragraph(" ".join(notes), note=True)


def _circuits(page: Page, plan: PartitionPlan, sheets: list[Sheet]) -> None:
    section = page.section("Circuits")
    if plan.record is None:
        section.add(paragraph(_READ, note=True))
        return
    distinct: dict[str, tuple[Sheet, int, Use]] = {}
    for sheet in sheets:
        for number, use in enumerate(sheet.uses, 1):
            distinct.setdefault(_content(use.template), (sheet, number, use))
    found = list(distinct.values())
    section.add(joined(_key()) if found else "No candidate has circuits.")
    for sheet, number, use in found[:MOST_CIRCUITS]:
        section.add(_circuit(sheet, number, use))
    if len(found) > MOST_CIRCUITS:
        section.add(paragraph(f"Not drawn: {len(found) - MOST_CIRCUITS} more.", note=True))
    _device(page, plan.record, found)


def _content(template: CircuitTemplate) -> str:
    return repr((template.circuit.to_dict(), template.data, template.amplitudes, template.measurement))


def _key() -> Iterator[Markup]:
    names = (
        ("data", "turned by data"),
        ("weight", "turned by a trained weight"),
        ("fixed", "fixed"),
        ("loading", "loads amplitudes"),
    )
    entries = []
    for kind, name in names:
        box = tag("rect", width=14, height=14, rx=3, class_=kind)
        entries.append(tag("li", tag("svg", box, width=14, height=14, class_="circuit", aria_hidden="true"), name))
    yield tag("ul", *entries, class_="legend")
    yield paragraph(
        f"At most {MAX_COLUMNS} layers and {MAX_WIRES} qubits of a circuit are drawn; the drawing says what is left out.",
        note=True,
    )


def _circuit(sheet: Sheet, number: int, use: Use) -> Markup:
    template = use.template
    loads = 2**template.qubits if template.amplitudes else 0
    measured = (
        f"{len(template.measurement.paulis)} expectation values"
        if isinstance(template.measurement, Expectations)
        else f"{2**template.qubits:,} probabilities"
    )
    name = f"{sheet.candidate.kernel}, circuit {number} of {len(sheet.uses)}"
    settings = "1 setting" if use.costs.settings == 1 else f"{use.costs.settings} settings"
    loaded = f"{loads:,} amplitudes loaded" if loads else "nothing loaded"
    told = (
        f"{template.qubits} qubits, {template.circuit.n_gates} gates ({template.circuit.n_2qb_gates()} on two qubits), "
        f"{len(template.data)} data angles, {len(template.weights)} weights, {loaded}; measures {measured} in {settings}."
    )
    drawing = circuit_svg(
        template.circuit,
        title=f"{name}: {told}",
        data=template.data,
        weights=template.weights,
        loads=loads,
        read=range(template.qubits),
    )
    caption = joined([told, " As designed, of ", tag("a", sheet.title, href=f"#{sheet.id}"), "."])
    parts = [tag("h3", name), figure(drawing, caption, wide=True)]
    if use.compiled is not None:
        parts.append(_compiled(name, use.compiled))
    return tag("article", *parts, class_="card")


def _compiled(name: str, compiled: CompiledTemplate) -> Markup:
    circuit = compiled.circuit
    fidelity = "not known" if compiled.fidelity is None else f"{compiled.fidelity:.3g}"
    length = "not known" if compiled.duration is None else duration_text(compiled.duration)
    told = (
        f"{compiled.two_qubit_gates} two-qubit gates in {compiled.two_qubit_depth} layers, loading included; predicted fidelity "
        f"{fidelity}, {length} with readout; by {compiled.method}."
    )
    symbols = [str(s) for s in circuit.circuit.free_symbols()]
    drawing = circuit_svg(
        circuit.circuit,
        title=f"{name}, as compiled: {told}",
        weights=symbols,
        read=circuit.measured,
        names=[f"{q.index[0]}" for q in circuit.circuit.qubits],
    )
    caption = f"{told} Rows are the device's qubits; coloured gates have an angle that data, weights or loading set."
    return details(f"As compiled for {compiled.target.name}", figure(drawing, caption, wide=True))


def _device(page: Page, record: PlanRecord, found: list[tuple[Sheet, int, Use]]) -> None:
    if record.target.qubits is None:
        return
    section = page.section("Device")
    routed = [(sheet, number, use.compiled) for sheet, number, use in found if use.compiled is not None]
    maps = [(f"{sheet.candidate.kernel}, circuit {number}", compiled) for sheet, number, compiled in routed[:MOST_MAPS]]
    section.add(record.target.description + ". " + record.target.source, device_maps(record.target, maps))
    if len(routed) > MOST_MAPS:
        section.add(paragraph(f"Without a map here: {len(routed) - MOST_MAPS} more.", note=True))
    left = len(found) - len(routed)
    if left:
        section.add(
            paragraph(
                f"{left} {'circuit is' if left == 1 else 'circuits are'} too large to be routed: "
                "figures on the device are not known.",
                note=True,
            )
        )


def _method(plan: PartitionPlan) -> Iterator[Markup]:
    yield listed(
        [
            *basis(plan),
            "A figure that is not known says so; it is never taken as 0. Seconds here are predicted by a roofline of this machine "
            "that was calibrated once.",
            "Fidelity is predicted from calibrated errors of gates and readout and from idling; loading the data is in it.",
            "Circuits of a backward pass count two-term shift rules for every angle.",
            "Break-even in time asks how long a shot may take for a forward pass to be as fast as the region here; in error, which "
            "two-qubit error would give the least faithful circuit a fidelity of 0.5.",
            "The same in numbers: qcascade report MODEL --format json.",
        ]
    )
