"""The table of regions and their candidates: one row for each candidate, one for a region that has none.

Figures are those of the plan, in machine-readable form in `data` elements; rows carry what the filters ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qcascade.plan import Candidate, PartitionPlan, Region
from qcascade.report.html.evidence import Sheet
from qcascade.report.html.page import NONE, Cell, Markup, Row, Value, breakable, joined, table, tag
from qcascade.report.units import duration_text, flops_text

MOST_SHOWN = 200  # rows; the script and the style sheet say the same
COLUMNS = (
    "Region",
    "Verdict and why",
    "Kernel",
    "FLOPs, forward",
    "Time here, forward",
    "Qubits",
    "Two-qubit gates",
    "Gates of loading",
    "Fidelity",
    "Time on target, forward",
    "Simulated here, forward",
)


def row_ids(plan: PartitionPlan) -> dict[str, str]:
    """The id of each region's first row."""
    return {region.name: f"region-{number}" for number, region in enumerate(plan.regions, 1)}


def regions_table(plan: PartitionPlan, sheets: Mapping[tuple[str, int], Sheet], drawn: Mapping[str, str]) -> Markup:
    """The table.

    Args:
        plan: The plan.
        sheets: By region and the candidate's place.
        drawn: Ids of regions in the graph, by name.
    """
    made = table(
        COLUMNS,
        _rows(plan, sheets, drawn),
        caption="Every region with its candidates; a candidate's name leads to its costs",
        id="regions-table",
        tools=_tools(plan),
        large=sum(max(1, len(region.candidates)) for region in plan.regions) > MOST_SHOWN,
    )
    return tag("div", made, class_="regions")


def _rows(plan: PartitionPlan, sheets: Mapping[tuple[str, int], Sheet], drawn: Mapping[str, str]) -> Iterator[Row]:
    ids = row_ids(plan)
    for region in plan.regions:
        data = {"verdict": region.verdict.value, "pattern": region.pattern}
        link, label = drawn.get(region.name), breakable(region.name)
        name = tag("a", label, href=f"#{link}", class_="name") if link else tag("span", label, class_="name")
        grows = f", {region.complexity}" if region.complexity else ""
        own = joined([name, tag("span", region.pattern + grows, class_="sub")])
        classical: list[Cell] = [
            Value(region.flops, flops_text(region.flops)),
            Value(region.seconds, duration_text(region.seconds)),
        ]
        if not region.candidates:
            cells = [own, _why(region, region.reason), "none", *classical, *[NONE] * 6]
            yield Row(cells, ids[region.name], data)
        for place, candidate in enumerate(region.candidates):
            sheet = sheets.get((region.name, place))
            id = ids[region.name] if place == 0 else f"{ids[region.name]}-{place + 1}"
            yield Row([own, *_candidate(region, candidate, sheet, classical)], id, data)


def _candidate(region: Region, candidate: Candidate, sheet: Sheet | None, classical: list[Cell]) -> list[Cell]:
    c = candidate.costs
    if sheet is None:
        return [_why(region, candidate.refusal or region.reason), breakable(candidate.kernel), *classical, *[NONE] * 6]
    other = f"goes to {region.kernel}: " if region.kernel and region.kernel != candidate.kernel else ""
    return [
        _why(region, other + region.reason),
        tag("a", breakable(candidate.kernel), href=f"#{sheet.id}"),
        *classical,
        Value(c.qubits),
        Value(c.two_qubit_gates),
        Value(c.loading_two_qubit_gates),
        Value(c.fidelity, "" if c.fidelity is None else f"{c.fidelity:.3g}"),
        Value(c.seconds_target, duration_text(c.seconds_target)),
        Value(c.seconds_simulated, duration_text(c.seconds_simulated)),
    ]


def _why(region: Region, reason: str) -> Markup:
    return joined([tag("span", region.verdict.value, class_=f"chip {region.verdict.value}"), " ", reason])


def _tools(plan: PartitionPlan) -> Markup:
    """Filters, which the script shows."""
    patterns = sorted({r.pattern for r in plan.regions})
    verdicts = sorted({r.verdict.value for r in plan.regions})
    search = tag(
        "label",
        "Find ",
        tag("input", type="search", id="filter-text", placeholder="name, kernel or reason", autocomplete="off"),
    )
    return tag(
        "div",
        search,
        tag("label", "Verdict ", _select("filter-verdict", verdicts)),
        tag("label", "Pattern ", _select("filter-pattern", patterns)),
        tag("button", "Show all", type="button", id="filter-all", hidden=True),
        tag("output", id="filter-count", for_="filter-text filter-verdict filter-pattern"),
        class_="tools",
        id="filters",
        hidden=True,
    )


def _select(id: str, values: list[str]) -> Markup:
    return tag("select", tag("option", "all", value=""), joined(tag("option", v, value=v) for v in values), id=id)
