"""Candidates' costs in full: every figure of the plan with its unit, where time goes, and what would break even."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from qcascade.cost_models.device import USEFUL_FIDELITY, fidelity_curve
from qcascade.cost_models.hardware import Run, shot_seconds
from qcascade.plan import Costs
from qcascade.report.html.evidence import Sheet, Use
from qcascade.report.html.page import UNKNOWN, Markup, Value, figure, joined, paragraph, tag
from qcascade.report.html.plots import Axis, Line, Mark, decades, line_plot, point_plot, share_bar
from qcascade.report.text import adds
from qcascade.report.units import bytes_text, duration_text, flops_text, number_text

MOST_PLOTTED = 12  # sheets with figures; the others have their numbers
_POINTS = 12  # of a curve
_MOST_ERROR = 0.49  # a gate of a greater one is dead

# field of `Costs` -> what it is, and how it is written; a currency is put behind a price
FIELDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "qubits": ("Qubits of the widest circuit", lambda v: f"{v:,}"),
    "two_qubit_gates": ("Two-qubit gates without loading, the most of any circuit", lambda v: f"{v:,}"),
    "loading_two_qubit_gates": ("Two-qubit gates that load data, the most of any circuit", lambda v: f"{v:,}"),
    "two_qubit_depth": ("Two-qubit depth, loading included, of the deepest circuit", lambda v: f"{v:,}"),
    "fidelity": ("Predicted fidelity of the least faithful circuit", lambda v: f"{v:.3g}"),
    "circuit_seconds": ("Longest circuit, readout included", duration_text),
    "shots": ("Shots of a circuit, the most of any", lambda v: f"{v:,}"),
    "circuits_forward": ("Circuits of a forward pass", lambda v: f"{v:,}"),
    "circuits_backward": ("Circuits of a backward pass", lambda v: f"{v:,}"),
    "jobs_forward": ("Jobs of a forward pass", lambda v: f"{v:,}"),
    "jobs_backward": ("Jobs of a backward pass", lambda v: f"{v:,}"),
    "bytes_to_device": ("Sent to the device, forward", bytes_text),
    "bytes_from_device": ("Sent back, forward", bytes_text),
    "bytes_to_device_training": ("Sent to the device, training step", bytes_text),
    "bytes_from_device_training": ("Sent back, training step", bytes_text),
    "seconds_target": ("On the target, forward, without queueing", duration_text),
    "seconds_target_training": ("On the target, training step", duration_text),
    "seconds_simulated": ("Simulated here, forward", duration_text),
    "seconds_simulated_training": ("Simulated here, training step", duration_text),
    "price_forward": ("Price of a forward pass", number_text),
    "price_training": ("Price of a training step", number_text),
    "break_even_shot_seconds": ("Break-even: a shot may take at most", duration_text),
    "break_even_two_qubit_error": (
        f"Break-even: two-qubit error for a fidelity of {USEFUL_FIDELITY}",
        lambda v: f"{v:.2g}",
    ),
    "break_even": ("Break-even in words", str),
}


_NONE = {
    "break_even_shot_seconds": "no shot rate",
    "break_even_two_qubit_error": "no two-qubit error",
}  # nothing would do


def candidate_cards(sheets: list[Sheet], rows: dict[str, str]) -> Markup:
    """A card for each sheet."""
    cards = [_card(sheet, rows, plotted=n < MOST_PLOTTED) for n, sheet in enumerate(sheets)]
    if len(sheets) > MOST_PLOTTED:
        cards.insert(
            0,
            paragraph(
                f"The first {MOST_PLOTTED} of {len(sheets)} have figures; the others have their numbers.", note=True
            ),
        )
    return joined(cards, "\n")


def _card(sheet: Sheet, rows: dict[str, str], *, plotted: bool) -> Markup:
    region, carried = sheet.regions[0], len(sheet.offloaded)
    links = [tag("a", r.name, href=f"#{rows[r.name]}", class_="name") for r in sheet.regions[:4]]
    more = f" and {len(sheet.regions) - 4} more" if len(sheet.regions) > 4 else ""
    verdict, beside = "offloaded" if carried else "kept", adds(sheet.candidate.kernel)
    parts = [
        tag("h3", sheet.title),
        paragraph(
            tag(
                "span",
                f"{carried} of {len(sheet.regions)} {'added' if beside else 'offloaded'}",
                class_=f"chip {verdict}",
            ),
            " beside " if beside else " in place of ",
            joined(links, ", "),
            f"{more} ({region.pattern}, {flops_text(region.flops)} each).",
        ),
        tag("dl", *_facts(sheet.candidate.costs), class_="facts"),
    ]
    if plotted:
        parts.append(tag("div", *_figures(sheet), class_="figures"))
    return tag("article", *parts, class_="card", id=sheet.id)


def _facts(costs: Costs) -> Iterator[Markup]:
    for name, value in dataclasses.asdict(costs).items():
        if name == "price_currency":  # stands with the prices
            continue
        label, text = FIELDS[name]
        if value is None and _NONE.get(name, "?") in (costs.break_even or ""):
            told = tag("span", "none", class_="unknown")  # the words say why
        elif value is None:
            told = Value(None).markup()
        elif isinstance(value, str):
            told = tag("span", text(value))
        else:
            unit = f" {costs.price_currency}" if name.startswith("price") else ""
            told = Value(value, text(value) + unit).markup()
        words = "words" if name == "break_even" else None
        yield tag("div", tag("dt", label), tag("dd", told), data_field=name, class_=words)


def _figures(sheet: Sheet) -> Iterator[Markup]:
    costs, region = sheet.candidate.costs, sheet.regions[0]
    times = [
        ("classical, here", region.seconds),
        ("quantum, simulated here", costs.seconds_simulated),
        (f"quantum, on {sheet.plan.target}", costs.seconds_target),
    ]
    steps = [
        ("classical, here", region.seconds_training),
        ("quantum, simulated here", costs.seconds_simulated_training),
        (f"quantum, on {sheet.plan.target}", costs.seconds_target_training),
    ]
    for name, rows in (("A forward pass", times), ("A training step", steps)):
        drawn = point_plot(rows, duration_text, title=f"{name} of the example's batch, seconds", unknown=UNKNOWN)
        yield figure(
            drawn, f"{name} of the example's batch, predicted; time is on a logarithmic axis, without queueing."
        )
    for number, use in enumerate(sheet.uses, 1):
        both, loading = use.costs.circuit.two_qubit_gates, use.costs.circuit.loading_two_qubit_gates
        if both is None or not loading:
            continue
        name = f"Two-qubit gates of circuit {number} of {len(sheet.uses)}"
        gates = [("computing", float(both - loading)), ("loading data", float(loading))]
        yield figure(
            share_bar(gates, lambda v: f"{v:,.0f}", title=name), f"{name}: what computes, and what loads its data."
        )
    if sheet.uses:
        spent = _spent(sheet.uses, sheet)
        if spent is not None:
            title = f"Where a forward pass on {sheet.plan.target} spends its time"
            yield figure(share_bar(spent, duration_text, title=title), f"{title}; queueing is not in it.")
        yield from _time_break_even(sheet)
        yield from _error_break_even(sheet)


def _spent(uses: tuple[Use, ...], sheet: Sheet) -> list[tuple[str, float]] | None:
    """Seconds of a forward pass by what they go to; None where a circuit's time is not known."""
    record = sheet.plan.record
    assert record is not None
    shots = [u.costs.forward * u.costs.shots for u in uses]
    durations = [u.costs.circuit.duration for u in uses]
    known = [d * u.costs.folded for d, u in zip(durations, uses, strict=True) if d is not None]
    if len(known) < len(uses):
        return None
    return [
        ("gates and readout", sum(n * d for n, d in zip(shots, known, strict=True))),
        ("between shots", sum(shots) * (record.target.shot_overhead or 0.0)),
        ("submitting", len(uses) * (record.target.job_overhead or 0.0)),
    ]


def _time_break_even(sheet: Sheet) -> Iterator[Markup]:
    """Seconds of a forward pass as a function of a shot's time, beside the region here."""
    record, costs, region = sheet.plan.record, sheet.candidate.costs, sheet.regions[0]
    assert record is not None
    if not region.seconds:
        return
    shots = sum(u.costs.forward * u.costs.shots for u in sheet.uses)
    waits = len(sheet.uses) * (record.target.job_overhead or 0.0)
    even = costs.break_even_shot_seconds
    now = shot_seconds([Run(u.costs, u.costs.forward) for u in sheet.uses], record.target)
    around = [value for value in (even, now, None if even or now else 1e-4) if value]
    low, high = min(around) / 30, max(around) * 30
    points = tuple((x, waits + shots * x) for x in decades(low, high, 40))
    top = max(points[-1][1], region.seconds) * 2
    bottom = min(points[0][1], region.seconds) / 3
    marks = [Mark(even, region.seconds, f"break-even: {duration_text(even)} a shot")] if even else []
    if now:
        marks.append(Mark(now, waits + shots * now, f"{sheet.plan.target} now: {duration_text(now)}"))
    lines = [
        Line("quantum: shots and submissions", points),
        Line("classical, here", ((low, region.seconds), (high, region.seconds))),
    ]
    drawn = line_plot(
        lines,
        marks,
        Axis("seconds of a shot", low, high, duration_text),
        Axis("forward pass", bottom, top, duration_text),
        title="Break-even in time",
    )
    told = f"A forward pass takes {shots:,} shots in {len(sheet.uses)} {'job' if len(sheet.uses) == 1 else 'jobs'}. "
    told += (
        f"It would be as fast as the region here at {duration_text(even)} a shot."
        if even
        else f"No shot rate would pay: submitting alone takes {duration_text(waits)}, the region {duration_text(region.seconds)}."
    )
    yield figure(drawn, f"Break-even in time. {told} Gates that load data are in it.")


def _error_break_even(sheet: Sheet) -> Iterator[Markup]:
    """Fidelity of the circuit that asks for the smallest two-qubit error, as a function of that error."""
    record, even = sheet.plan.record, sheet.candidate.costs.break_even_two_qubit_error
    assert record is not None
    routed = [(u.costs.circuit, u.compiled) for u in sheet.uses if u.compiled is not None]
    known = [
        (circuit.break_even_error or 0.0, circuit.fidelity, compiled)
        for circuit, compiled in routed
        if circuit.fidelity is not None and compiled.two_qubit_gates
    ]
    if not known:
        return
    _, fidelity, compiled = min(known, key=lambda found: found[:2])
    median = record.target.median_error()
    marked = [error for error in (even, median) if error]
    low, high = min([1e-5, *(e / 2 for e in marked)]), min(_MOST_ERROR, max([0.1, *(2 * e for e in marked)]))
    curve, errors = fidelity_curve(compiled), sorted({*decades(low, high, _POINTS), *marked})
    points = tuple((x, y) for x, y in ((x, curve(x)) for x in errors) if y is not None)
    if len(points) < 2:
        return
    marks = [Mark(even, USEFUL_FIDELITY, f"needs {even:.2g}")] if even else []
    if median is not None:
        there = curve(median)
        marks += [] if there is None else [Mark(median, there, f"median of {record.target.name}: {median:.2g}")]
    scale = Axis("fidelity", 0.0, 1.0, lambda v: f"{v:.2f}", logarithmic=False)
    if max(y for _, y in points) < 0.1:  # a linear axis would show nothing
        scale = Axis("fidelity", max(1e-12, 0.1 * min(y for _, y in points)), 1.0, lambda v: f"{v:g}")
    lines = [
        Line("predicted fidelity", points),
        Line(f"useful: {USEFUL_FIDELITY}", ((low, USEFUL_FIDELITY), (high, USEFUL_FIDELITY))),
    ]
    drawn = line_plot(
        lines,
        marks,
        Axis("two-qubit error, the same everywhere", low, high, lambda v: f"{v:g}"),
        scale,
        title="Break-even in error",
    )
    told = f"With its own calibrated errors the circuit is predicted to have {fidelity:.3g}."
    if not even:
        told += f" No two-qubit error gives {USEFUL_FIDELITY}: readout, one-qubit gates and idling alone cost more."
    yield figure(drawn, f"Break-even in error, of the circuit that asks for the smallest. {told}")
