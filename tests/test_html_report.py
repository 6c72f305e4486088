"""The HTML report: a well-formed page whose figures are the plan's, whose links lead somewhere, and that names cannot break."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit
from sympy import Symbol
from torch import nn

import qcascade
from qcascade.bundle.plan_json import plan_of
from qcascade.capture import capture
from qcascade.cli import main
from qcascade.compiler import make_request, plan_captured
from qcascade.cost_models.device import device_compiled
from qcascade.errors import QCascadeError
from qcascade.executors.mitigation import ZeroNoiseExtrapolation
from qcascade.plan import CaptureRecord, Costs, GraphUnit, PartitionPlan, Region, Summary, Verdict
from qcascade.report.circuit_svg import MAX_COLUMNS, circuit_svg
from qcascade.report.html.candidates import FIELDS
from qcascade.report.html.device import colour, device_maps, layout
from qcascade.report.html.evidence import find_sheets
from qcascade.report.html.graph import arrange, draw_graph
from qcascade.report.html.page import Page, png_figure, svg_figure, table
from qcascade.report.text import basis, hardware, headline
from qcascade.report.units import duration_text
from qcascade.targets import get_target

STYLE = Path(qcascade.__file__).parent / "report" / "html" / "style.css"
VOID = {"meta", "br", "img", "input", "wbr"}


class Tiny(nn.Module):
    """An embedding, one layer of attention, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(600, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(ids)).mean(1))


KERNELS = {
    "amplitude_attention_pooling": {"max_length": 8, "slots": 2},
    "random_circuit_embedding": {"qubits": 4},
    "reuploading_head": {"qubits": 3, "uploads": 1},
}


@pytest.fixture(scope="module")
def plans() -> dict[str, PartitionPlan]:
    torch.manual_seed(0)
    model, ids = Tiny(), torch.arange(16).reshape(2, 8)
    attention = {name: KERNELS[name] for name in ("amplitude_attention_pooling",)}
    requests = {"ideal": make_request(kernels=KERNELS), "ibm_torino": make_request("ibm_torino", kernels=attention)}
    captured = capture(model, ids)
    return {name: plan_captured(captured, request) for name, request in requests.items()}


@pytest.fixture(scope="module")
def pages(plans: dict[str, PartitionPlan]) -> dict[str, str]:
    return {name: plan.to_html() for name, plan in plans.items()}


class Element:
    def __init__(self, kind: str, attributes: dict[str, str], parent: Element | None) -> None:
        self.kind, self.attributes, self.parent = kind, attributes, parent
        self.children: list[Element | str] = []

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, kind: str | None = None) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                if kind in (None, child.kind):
                    yield child
                yield from child.all(kind)

    def by_id(self, id: str) -> Element:
        return next(e for e in self.all() if e.attributes.get("id") == id)


class Strict(HTMLParser):
    """A tree; every element that is opened is closed, by its own name."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.at = Element("", {}, None)
        self.feed(page)
        self.close()
        assert self.at is self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        made = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(made)
        if tag not in VOID:
            self.at = made

    def handle_endtag(self, tag: str) -> None:
        assert self.at.kind == tag
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


@pytest.fixture(scope="module")
def trees(pages: dict[str, str]) -> dict[str, Element]:
    return {name: Strict(page).root for name, page in pages.items()}


@pytest.mark.parametrize("target", ["ideal", "ibm_torino"])
def test_page_is_sound(trees: dict[str, Element], target: str) -> None:
    root = trees[target]
    ids = [e.attributes["id"] for e in root.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for link in root.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids
        assert link.text.strip()
    for use in root.all("use"):
        assert use.attributes["href"].removeprefix("#") in ids
    headings = [int(e.kind[1]) for e in root.all() if re.fullmatch(r"h\d", e.kind)]
    assert headings[0] == headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert next(root.all("html")).attributes["lang"] == "en"
    for figure in root.all("svg"):
        hidden = figure.attributes.get("aria-hidden") == "true"
        assert hidden or any(isinstance(c, Element) and c.kind == "title" and c.text for c in figure.children)
    for control in (*root.all("input"), *root.all("select")):
        assert control.parent is not None
        assert control.parent.kind == "label" and control.parent.text.strip()
    for button in root.all("button"):
        assert button.text.strip() and button.attributes["type"] == "button"
    for scrolled in root.all():
        if scrolled.attributes.get("role") == "region":
            assert scrolled.attributes["aria-label"] and scrolled.attributes["tabindex"] == "0"
    for found in root.all("table"):
        assert next(found.all("caption")).text
        assert all(th.attributes["scope"] in ("col", "row") for th in found.all("th"))
    for element in root.all():
        assert "style" not in element.attributes
        assert not any(name.startswith("on") for name in element.attributes)


@pytest.mark.parametrize("target", ["ideal", "ibm_torino"])
def test_nothing_is_loaded(trees: dict[str, Element], target: str) -> None:
    root = trees[target]
    policy = next(
        m.attributes["content"]
        for m in root.all("meta")
        if "content-security-policy" in m.attributes.get("http-equiv", "").lower()
    )
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    for element in root.all():
        assert element.kind not in ("link", "iframe", "object", "embed", "base", "form", "foreignobject")
        for name in ("src", "href", "action"):
            assert element.attributes.get(name, "#").startswith(("#", "data:image/"))


def number(cell: Element) -> float | str:
    data = next(cell.all("data"), None)
    return cell.text if data is None else float(data.attributes["value"])


@pytest.mark.parametrize("target", ["ideal", "ibm_torino"])
def test_figures_are_the_plans(plans: dict[str, PartitionPlan], trees: dict[str, Element], target: str) -> None:
    plan, root = plans[target].to_dict(), trees[target]
    rows = list(next(e for e in root.by_id("regions-table").all("tbody")).all("tr"))
    expected = [(r, c) for r in plan["regions"] for c in r["candidates"] or [None]]
    assert len(rows) == len(expected)
    names = ("qubits", "two_qubit_gates", "loading_two_qubit_gates", "fidelity", "seconds_target", "seconds_simulated")
    for row, (region, candidate) in zip(rows, expected, strict=True):
        cells = [c for c in row.children if isinstance(c, Element)]
        assert next(cells[0].all()).text == region["name"]
        assert cells[1].text.startswith(region["verdict"])
        assert (
            region["reason"] if candidate is None or candidate["refusal"] is None else candidate["refusal"]
        ) in cells[1].text
        assert cells[2].text == ("none" if candidate is None else candidate["kernel"])
        assert [number(cells[3]), number(cells[4])] == [region["flops"], region["seconds"]]
        shown = [number(c) for c in cells[5:]]
        if candidate is None or candidate["refusal"] is not None:
            assert shown == ["–"] * 6
        else:
            assert shown == ["not known" if candidate[n] is None else candidate[n] for n in names]


@pytest.mark.parametrize("target", ["ideal", "ibm_torino"])
def test_costs_are_all_there(plans: dict[str, PartitionPlan], trees: dict[str, Element], target: str) -> None:
    assert {f.name for f in dataclasses.fields(Costs)} == {*FIELDS, "price_currency"}
    sheets, _ = find_sheets(plans[target])
    assert len(sheets) == {"ideal": 2, "ibm_torino": 1}[target]
    for sheet in sheets:
        card = trees[target].by_id(sheet.id)
        shown = {e.attributes["data-field"]: next(e.all("dd")) for e in card.all() if "data-field" in e.attributes}
        for name in FIELDS:
            value = getattr(sheet.candidate.costs, name)
            if value is not None:
                assert number(shown[name]) == value
            else:
                none = target != "ideal" and name == "break_even_shot_seconds"  # submitting alone takes longer
                assert number(shown[name]) == ("none" if none else "not known")


@pytest.mark.parametrize("target", ["ideal", "ibm_torino"])
def test_sentences_are_those_of_the_text(
    plans: dict[str, PartitionPlan], trees: dict[str, Element], target: str
) -> None:
    plan, words = plans[target], next(trees[target].all("main")).text
    for sentence in (headline(plan), hardware(plan), *basis(plan)):
        assert sentence in words
        assert sentence in str(plan)
    assert "faster at any of this today" in hardware(plan)


@pytest.fixture(scope="module")
def mitigated() -> PartitionPlan:
    kernels = {"reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1}}
    mitigation = [ZeroNoiseExtrapolation((1, 3))]
    model = nn.Sequential(nn.Linear(2, 2))
    return qcascade.plan(model, torch.zeros(4, 2), target="ibm_torino", kernels=kernels, mitigation=mitigation)


def test_time_break_even_meets_the_time_on_the_target(mitigated: PartitionPlan) -> None:
    (sheet,), costs = find_sheets(mitigated)[0], mitigated.regions[0].candidates[0].costs
    shots = sum(use.costs.forward * use.costs.shots for use in sheet.uses)
    assert costs.seconds_target is not None
    shot = (costs.seconds_target - 2.0 * len(sheet.uses)) / shots
    assert f"ibm_torino now: {duration_text(shot)}" in mitigated.to_html()


def test_error_break_even_lies_on_its_curve(mitigated: PartitionPlan) -> None:
    error = mitigated.regions[0].candidates[0].costs.break_even_two_qubit_error
    assert error is not None and error > 0.1
    drawings = Strict(mitigated.to_html()).root.all("svg")
    plot = next(e for e in drawings if any(t.text == "Break-even in error" for t in e.all("title")))
    mark = next(plot.all("circle")).attributes
    line = next(e for e in plot.all("path") if e.attributes["class"] == "line first").attributes["d"]
    places = [tuple(map(float, point.split())) for point in line[1:].split("L")]
    assert (float(mark["cx"]), float(mark["cy"])) in [(x, pytest.approx(y, abs=0.3)) for x, y in places]
    assert float(mark["cx"]) < places[-1][0]


def test_bars_of_gates_are_of_circuits_there_are() -> None:
    options = {"qubits": 3, "uploads": 4}
    plan = qcascade.plan(nn.Sequential(nn.Linear(8, 2)), torch.zeros(4, 8), kernels={"reuploading_head": options})
    (sheet,), root = find_sheets(plan)[0], Strict(plan.to_html()).root
    circuits = [use.costs.circuit for use in sheet.uses]
    assert circuits[0].two_qubit_gates < circuits[1].two_qubit_gates and not circuits[1].loading_two_qubit_gates
    bars = [e for e in root.all("figure") if "Two-qubit gates of circuit" in e.text]
    assert len(bars) == 1 and "circuit 1 of 2" in bars[0].text
    loading = circuits[0].loading_two_qubit_gates
    shown = [entry.text.split(" (")[0] for entry in bars[0].all("li")]
    assert shown == [f"computing: {circuits[0].two_qubit_gates - loading}", f"loading data: {loading}"]
    assert "the most of any circuit of a kernel" in str(plan)


def test_adapters_stand_beside_their_regions() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    plan = qcascade.plan(model, torch.zeros(4, 8), kernels=["amplitude_adapter"])
    assert "2 regions found, 0 offloaded, 1 with a kernel added beside, 0.0 % of" in str(plan)
    assert "\nAdded beside\n" in str(plan) and "\nOffloaded\n" not in str(plan)
    page = Strict(plan.to_html()).root
    card, summary = page.by_id("candidate-1").text, page.by_id("summary").text
    assert "1 of 1 added beside" in card and "in place of" not in card
    assert "0 offloaded, 1 added beside, 1 kept" in summary
    assert "offloaded regions: 0 FLOP (0.0 %)" in summary and "regions kept, or added to: 640 FLOP" in summary


def test_a_model_without_regions_has_its_device() -> None:
    plan = qcascade.plan(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8), target="ibm_torino")
    assert not plan.regions
    root = Strict(plan.to_html()).root
    assert len(list(root.by_id("device").all("figure"))) == 1
    assert "No region was found" in root.by_id("costs").text
    ids = {e.attributes["id"] for e in root.all() if "id" in e.attributes}
    assert {e.attributes["href"][1:] for e in root.all("a")} <= ids
    assert "No candidate was costed" in hardware(plan) and str(plan).endswith(hardware(plan))


def test_circuits_that_are_too_large_say_so() -> None:
    asked = {"target": "ibm_torino", "kernels": ["reuploading_head"], "objective": "hardware_time"}
    plan = qcascade.plan(nn.Sequential(nn.Linear(4096, 2)), torch.zeros(2, 4096), **asked)
    assert "the circuits are too large to be routed for ibm_torino" in hardware(plan)
    reason = plan.regions[0].reason
    assert reason.startswith(
        "its circuits are too large to be routed for the target, so nothing says it is faster than"
    )
    assert "; no shot rate would pay" in reason and "to break even no" not in reason
    assert "1 circuit is too large to be routed" in plan.to_html()


def test_a_target_without_times_says_so() -> None:
    plan = qcascade.plan(nn.Sequential(nn.Linear(4, 2)), torch.zeros(2, 4), target="line-7")
    assert "target line-7 states no times" in hardware(plan)


def test_parts_of_a_model_have_no_inputs_of_the_model() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.tail = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print(end="") if x.sum().item() > 0 else None  # ends capture as a whole
            return self.tail(self.body(x))

    plan = qcascade.plan(Parts(), torch.zeros(2, 4))
    assert plan.record is not None and not plan.record.whole
    ends = [unit.label for unit in plan.record.units if unit.kind in ("input", "output")]
    assert ends == ["enters body", "leaves body", "enters tail", "leaves tail"]


def test_same_plan_same_bytes(plans: dict[str, PartitionPlan], pages: dict[str, str]) -> None:
    for name, plan in plans.items():
        assert plan.to_html() == pages[name]
        assert pickle.loads(pickle.dumps(plan)).to_html() == pages[name]


def test_a_plan_from_a_file(plans: dict[str, PartitionPlan]) -> None:
    read = plan_of(json.loads(plans["ideal"].to_json()))
    assert read == plans["ideal"] and read.record is None
    root = Strict(read.to_html()).root
    assert "was read from a file" in root.by_id("graph").text
    assert len(list(root.by_id("regions-table").all("tr"))) > 5


def test_units_of_the_graph(plans: dict[str, PartitionPlan]) -> None:
    plan = plans["ideal"]
    assert plan.record is not None
    units = plan.record.units
    assert sum(u.flops or 0 for u in units) == plan.summary.flops_total
    assert all(source < number for number, unit in enumerate(units) for source in unit.inputs)
    assert [u.region for u in units if u.region] == [
        "embed",
        "layer.self_attn",
        "layer.linear1",
        "layer.linear2",
        "head",
    ]
    names = {n: u.region or u.kind for n, u in enumerate(units)}
    attention = next(u for u in units if u.region == "layer.self_attn")
    assert [names[i] for i in attention.inputs] == ["embed"]
    assert [u.kind for u in units if u.kind != "classical" and u.kind != "region"] == ["input", "output"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "a.b", "a.b.0", "a.b.1", "c"]), st.integers(0, 5)), min_size=1, max_size=60
    )
)
@settings(max_examples=40, deadline=None)
def test_every_unit_has_a_place_of_its_own(drawn: list[tuple[str, int]]) -> None:
    units = [
        GraphUnit("x", path, "classical", (), 1, 0, 0, 0.0, None, tuple(sorted({max(0, n - 1 - back)} if n else set())))
        for n, (path, back) in enumerate(drawn)
    ]
    blocks = arrange(units)
    assert sorted(n for b in blocks for n in b.members) == list(range(len(units)))
    boxes = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in blocks]
    for block, (x0, y0, x1, y1) in zip(blocks, boxes, strict=True):
        assert len(set(block.places.values())) == len(block.members)
        assert all(0 <= x < block.width and 0 <= y < block.height for x, y in block.places.values())
        assert not any(
            x0 < u1 and u0 < x1 and y0 < v1 and v0 < y1
            for u0, v0, u1, v1 in boxes
            if (u0, v0, u1, v1) != (x0, y0, x1, y1)
        )


def traced(path: str) -> list[tuple[float, float]]:
    """Points along a path of M, H, V and C."""
    points: list[tuple[float, float]] = []
    for command, text in re.findall(r"([MHVC])([^MHVC]*)", path):
        numbers = [float(part) for part in text.split()]
        if command == "M":
            points.append((numbers[0], numbers[1]))
            continue
        x, y = points[-1]
        ends = {"H": [(numbers[0], y)] * 3, "V": [(x, numbers[0])] * 3}.get(command)
        (a, b), (c, d), (e, f) = ends or zip(numbers[::2], numbers[1::2], strict=True)
        for n in range(1, 41):
            t = n / 40
            shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            points.append(
                tuple(sum(s * v for s, v in zip(shares, vs, strict=True)) for vs in ((x, a, c, e), (y, b, d, f)))  # type: ignore[arg-type]
            )
    return points


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "a.b", "a.b.0", "a.b.1", "c", "d"]), st.sets(st.integers(0, 7), max_size=3)),
        min_size=2,
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_lines_run_behind_no_unit(drawn: list[tuple[str, set[int]]]) -> None:
    units = [
        GraphUnit("x", path, "classical", (), 1, 0, 0, 0.0, None, tuple(sorted({n - 1 - b for b in back if b < n})))
        for n, (path, back) in enumerate(drawn)
    ]
    drawing = draw_graph(units, {}, {})
    path = re.search(r'<path d="([^"]*)" class="lines">', drawing.svg)
    lines = re.findall(r"M[^M]*", path[1] if path else "")
    assert len(lines) == sum(len(u.inputs) for u in units) - drawing.hidden_edges
    width, height = drawing.data["unit"]
    boxes = [(x + 0.5, y + 0.5, x + width - 0.5, y + height - 0.5) for *_, x, y in drawing.data["units"]]
    for x, y in (point for line in lines for point in traced(line)):
        assert x > 0 and not any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in boxes)


def test_what_is_added_beside_a_region_says_so() -> None:
    told = {}
    for kernel in ("amplitude_adapter", "reuploading_head", "of_another_machine"):
        region = Region("a", "a", "linear", Verdict.OFFLOADED, "asked for", kernel=kernel)
        unit = GraphUnit("a", "a", "region", (), 1, 0, 0, 0.0, "a", ())
        told[kernel] = draw_graph([unit], {"a": region}, {"a": "region-1"})
    beside = {name: "beside" in drawn.svg and "beside" in str(drawn.data) for name, drawn in told.items()}
    assert beside == {"amplitude_adapter": True, "reuploading_head": False, "of_another_machine": False}


NASTY = st.lists(
    st.sampled_from([*"<>&\"'`=/ab.\u2028\u202e\u0000{}", "</script>", "<!--", "]]>", "{{script}}"]),
    min_size=1,
    max_size=20,
).map("".join)


@given(NASTY)
@settings(max_examples=25, deadline=None)
def test_names_cannot_break_the_page(name: str) -> None:
    region = Region(name, name, "linear", Verdict.KEPT, f"because {name}", flops=1)
    plan = PartitionPlan(name, "ideal", "offload", CaptureRecord("export", (name,)), Summary(1, 0, 1, 0), (region,))
    harmless = PartitionPlan(
        "n",
        "ideal",
        "offload",
        CaptureRecord("export", ("n",)),
        Summary(1, 0, 1, 0),
        (dataclasses.replace(region, name="n", module="n", reason="because n"),),
    )
    found, expected = (
        [(e.kind, sorted(e.attributes)) for e in Strict(p.to_html()).root.all() if e.kind != "wbr"]
        for p in (plan, harmless)
    )
    assert found == expected


def test_names_cannot_leave_the_data(plans: dict[str, PartitionPlan]) -> None:
    name = "</script><script>alert(1)</script><!--\u2028"
    plan = plans["ideal"]
    assert plan.record is not None
    units = tuple(dataclasses.replace(u, label=name, module=name) for u in plan.record.units)
    page = dataclasses.replace(plan, record=dataclasses.replace(plan.record, units=units)).to_html()
    root = Strict(page).root
    data = json.loads(root.by_id("graph-data").text)
    assert data["units"][0][0] == name
    assert len(list(root.all("script"))) == 2
    assert "alert(1)" not in [s.text for s in root.all("script")]


def test_circuits() -> None:
    circuit = Circuit(3).Ry(Symbol("x"), 0).Rz(Symbol("w"), 1).CX(0, 1).CZ(1, 2).SWAP(0, 2).H(2)
    drawing = Strict(circuit_svg(circuit, title="t", data=["x"], weights=["w"], loads=8, read=[0, 1, 2])).root
    kinds = [e.attributes.get("class") for e in drawing.all()]
    assert (
        kinds.count("box data")
        == kinds.count("box weight")
        == kinds.count("box fixed")
        == kinds.count("box loading")
        == 1
    )
    assert kinds.count("wire") == kinds.count("meter") == 3
    told = {t.text for t in drawing.all("title")}
    assert {"Ry(x) half-turns on q[0]", "CX on q[0], q[1]"} <= told
    long = Circuit(2)
    for _ in range(MAX_COLUMNS + 5):
        long.CX(0, 1)
    assert "… 5 more layers (5 gates)" in circuit_svg(long, title="long")
    assert "… 8 more qubits" in circuit_svg(Circuit(40).H(0), title="wide")


@pytest.mark.parametrize("name", ["ibm_torino", "grid-4x5", "line-40", "quantinuum_h1_1", "ibm_hanoi"])
def test_qubits_have_places_of_their_own(name: str) -> None:
    target = get_target(name)
    places = layout(target)
    assert sorted(places) == list(range(target.qubits or 0))
    nearest = min(math.dist(a, b) for q, a in places.items() for r, b in places.items() if q < r)
    assert nearest > 0.6
    if name != "quantinuum_h1_1":
        assert max(math.dist(places[a], places[b]) for a, b in target.edges) < 3
    if name in ("ibm_torino", "grid-4x5", "line-40"):
        assert {round(math.dist(places[a], places[b]), 6) for a, b in target.edges} == {1.0}


def test_map_shows_what_was_routed(plans: dict[str, PartitionPlan], trees: dict[str, Element]) -> None:
    section, target = trees["ibm_torino"].by_id("device"), get_target("ibm_torino")
    tables = [t for t in section.all("table") if "Qubits" in next(t.all("caption")).text]
    sheets, _ = find_sheets(plans["ibm_torino"])
    routed = [device_compiled(u.template, target) for s in sheets for u in s.uses]
    assert 1 <= len(tables) <= len(routed)
    for shown, compiled in zip(tables, routed, strict=False):
        assert compiled is not None
        rows = [[number(c) for c in r.children if isinstance(c, Element)] for r in next(shown.all("tbody")).all("tr")]
        assert {str(r[0]): r[1] for r in rows} == {f"q{q}": node for q, node in compiled.placement.items()}
        assert [r[2] for r in rows] == [target.properties[int(r[1])].readout_error for r in rows]
    rings = sum(e.attributes.get("class") == "ring" for e in section.all("circle"))
    assert rings == 1 + sum(len(list(next(t.all("tbody")).all("tr"))) for t in tables)  # and one in the legend


def test_scale_of_colours_is_monotonic_in_lightness() -> None:
    def lightness(shade: str | None) -> float:
        assert shade is not None
        return luminance(shade)

    steps = [lightness(colour(0.001 * 100 ** (n / 20), (0.001, 0.1))) for n in range(21)]
    assert steps == sorted(steps) and steps[0] < 0.05 < 0.5 < steps[-1]


def test_legend_counts_and_tells_one_value_once() -> None:
    assert "0.0023 everywhere" in device_maps(get_target("quantinuum_h1_1"), [])
    assert "dashed: 1 qubit and " in device_maps(get_target("ibm_torino"), [])


def luminance(shade: str) -> float:
    parts = [int(shade[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def themes() -> dict[str, dict[str, str]]:
    """The colours of each scheme, from the style sheet."""
    style = STYLE.read_text()
    blocks = [
        dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", body)) for body in re.findall(r":root[^{]*\{([^}]*)\}", style)
    ]
    light, system, dark, printed = blocks
    assert system == dark and set(light) == set(dark)
    assert {**light, **printed} == light
    return {"light": light, "dark": dark}


TEXT = [
    ("text", "page"), ("text", "surface"), ("text", "raised"), ("muted", "page"), ("muted", "surface"), ("muted", "raised"),
    ("link", "page"),
    ("link", "surface"), ("link", "raised"), ("on-offloaded", "offloaded"), ("on-kept", "kept"), ("on-classical", "classical"),
    ("on-gate", "data"), ("on-gate", "weight"), ("on-gate", "loading"), ("on-gate", "fixed"), ("ring", "page"),
]  # fmt: skip
SHAPES = [
    ("first", "page"),
    ("second", "page"),
    ("third", "page"),
    ("ring", "page"),
    ("focus", "page"),
    ("kept-line", "page"),
    ("edge", "page"),
    ("fixed", "page"),
]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    colours = themes()[theme]
    low = {
        (a, b): round(contrast(colours[a], colours[b]), 2) for a, b in TEXT if contrast(colours[a], colours[b]) < 4.5
    }
    assert not low
    low = {
        (a, b): round(contrast(colours[a], colours[b]), 2) for a, b in SHAPES if contrast(colours[a], colours[b]) < 3
    }
    assert not low


def test_builder_for_others() -> None:
    page = Page("A study", "Two runs")
    results = page.section("Results")
    png = b"\x89PNG\r\n\x1a\n" + b"0" * 8
    results.add("Plain <text>.", table(["run", "loss"], [["a", 0.5], ["b", None]], caption="Losses"))
    results.add(png_figure(png, alt="curve", caption="Loss"), svg_figure("<svg></svg>", alt="plot", caption="Plot"))
    root = Strict(page.to_html()).root
    assert "Plain <text>." in next(root.all("main")).text
    assert [e.text for e in root.all("td")] == ["0.5", "not known"]
    assert [e.attributes["alt"] for e in root.all("img")] == ["curve", "plot"]
    with pytest.raises(QCascadeError, match="section 'results'"):
        page.section("Results")
    with pytest.raises(QCascadeError, match="alt is empty"):
        png_figure(png, alt=" ", caption="")
    with pytest.raises(QCascadeError, match="no image/png"):
        png_figure(b"GIF", alt="x", caption="")


def test_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nmodel = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))\n"
    )
    for out, code in (("report.html", 0), ("no/such/folder.html", 2)):
        arguments = ["qcascade", "report", f"{tmp_path}/net.py:model", "--format", "html", "-o", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stop:
            main()
        assert int(stop.value.code or 0) == code
    assert Strict((tmp_path / "report.html").read_text()).root.by_id("regions-table")
