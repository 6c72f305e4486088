"""The HTML report in a real browser: it runs without a complaint or a request, by keyboard, on a phone, in the dark, on paper."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import qcascade
from qcascade.plan import CaptureRecord, PartitionPlan, Region, Summary, Verdict
from qcascade.report.html.page import Page as Document
from qcascade.report.html.plots import Axis, Mark, line_plot, point_plot

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAME = "</script><img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no chromium, chromium-browser or google-chrome on the path")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a small model on a line of qubits; a name in it is hostile."""
    torch.manual_seed(0)
    layers = [nn.Linear(16, 16) for _ in range(6)]
    model = nn.Sequential(nn.Embedding(600, 16), *layers, nn.Tanh(), nn.Flatten(), nn.Linear(64, 2))
    kernels = {"random_circuit_embedding": {"qubits": 2, "layers": 1}}
    plan = qcascade.plan(model, torch.zeros(2, 4, dtype=torch.long), target="line-8", kernels=kernels)
    assert plan.record is not None
    units = tuple(dataclasses.replace(u, label=NAME) if u.kind == "classical" else u for u in plan.record.units)
    regions = tuple(dataclasses.replace(r, reason=NAME) if r.name == "3" else r for r in plan.regions)
    plan = dataclasses.replace(plan, regions=regions, record=dataclasses.replace(plan.record, units=units))
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(plan.to_html(), encoding="utf-8")
    return file


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Any]:
    """Opens the report as a device would, and checks at the end that nothing was said or asked for."""
    said: list[str] = []
    contexts = []

    def open_page(**device: Any) -> Page:
        context = browser.new_context(**device)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url == report.as_uri() or said.append(request.url))
        page.goto(report.as_uri())
        if device.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
NAMED = """() => {
  const e = document.activeElement;
  const name = e.getAttribute("aria-label") || (e.labels && e.labels[0]?.textContent) || e.textContent;
  const style = getComputedStyle(e), inner = e.querySelector("rect");
  const ring = style.outlineStyle !== "none" || (inner && getComputedStyle(inner).strokeWidth === "4px");
  return [e.tagName.toLowerCase(), e.id || e.className?.baseVal || e.className || "", (name || "").trim(), ring];
}"""


def test_keyboard(opened: Any) -> None:
    page = opened(**DESKTOP)
    stops: list[list[Any]] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(NAMED))
        if stops[-1][0] == "body":
            break
    stops = [s for s in stops if s[0] != "body"]
    assert all(name and ring for _, _, name, ring in stops), [s for s in stops if not (s[2] and s[3])]
    order = [s[1] for s in stops]
    assert stops[0][2] == "Skip to the content"
    assert order.index("theme") < order.index("zoom-in") < order.index("filter-text") < order.index("filter-verdict")
    units = [n for n, (_, id, _, _) in enumerate(stops) if id.startswith("u") and id[1:].isdigit()]
    assert len(units) == 1  # the graph is one stop
    page.focus("#u0")
    page.keyboard.press("ArrowDown")
    first = page.evaluate("document.activeElement.id")
    assert first != "u0"
    page.keyboard.press("Enter")
    assert page.is_visible("#unit")
    assert page.inner_text("#unit h3")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.id") != first
    page.keyboard.press("Escape")
    assert not page.is_visible("#unit")
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.id") == "u0"
    assert page.title() == "Sequential"


def test_graph_is_moved_and_selected(opened: Any) -> None:
    page = opened(**DESKTOP)
    view = page.get_attribute("#model-graph", "viewBox")
    page.click("#zoom-in")
    assert float(page.get_attribute("#model-graph", "viewBox").split()[2]) < float(view.split()[2])
    page.click("#zoom-fit")
    assert page.get_attribute("#model-graph", "viewBox") == view
    page.locator("#model-graph").hover(position={"x": 5, "y": 5})  # waits until nothing moves any more
    box = page.locator("#model-graph").bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] + 65, box["y"] + 45, steps=4)
    page.mouse.up()
    assert float(page.get_attribute("#model-graph", "viewBox").split()[0]) < float(view.split()[0])
    page.click("#zoom-fit")
    page.locator("#model-graph a.unit.offloaded").first.click()
    assert "kernel" in page.inner_text("#unit")
    assert page.get_attribute("#model-graph .highlight", "d")
    page.locator("#model-graph .unit.classical").first.click()
    assert NAME in page.inner_text("#unit")  # as text
    page.click("#regions-table tbody tr:nth-child(2) th a")
    assert page.is_visible("#unit") and page.evaluate("document.activeElement.closest('#model-graph') !== null")


def test_table_sorts_and_filters(opened: Any) -> None:
    page = opened(**DESKTOP)
    shown = "[...document.querySelectorAll('#regions-table tbody tr:not([hidden])')]"
    flops = f"{shown}.map(r => Number(r.cells[3].querySelector('data').value))"
    before = page.evaluate(flops)
    page.click("#regions-table thead th:nth-child(4) button")
    assert page.evaluate(flops) == sorted(before)
    page.click("#regions-table thead th:nth-child(4) button")
    assert page.evaluate(flops) == sorted(before, reverse=True)
    assert page.get_attribute("#regions-table thead th:nth-child(4)", "aria-sort") == "descending"
    page.click("#regions-table thead th:nth-child(6) button")
    last = (
        "[...document.querySelectorAll('#regions-table tbody tr')].map(r => r.cells[5].querySelector('data') !== null)"
    )
    known = page.evaluate(last)
    assert known == sorted(known, reverse=True)  # what is not known comes last
    page.select_option("#filter-verdict", "offloaded")
    assert len(page.evaluate(flops)) == 1
    assert page.inner_text("#filter-count") == f"1 of {len(before)} rows"
    page.select_option("#filter-verdict", "")
    page.fill("#filter-text", "EMBEDDING random")
    for _ in range(100):  # the page waits for the last key; its policy lets nobody wait inside it
        if page.inner_text("#filter-count").startswith("1 of"):
            break
        page.wait_for_timeout(50)
    assert page.inner_text("#filter-count") == f"1 of {len(before)} rows"


@pytest.mark.parametrize(
    "device", [PHONE, {"viewport": {"width": 320, "height": 640}}, DESKTOP], ids=["phone", "narrow", "desktop"]
)
def test_nothing_sticks_out(opened: Any, device: dict[str, Any]) -> None:
    page = opened(**device)
    assert page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]
    controls = (
        "[...document.querySelectorAll('button, select, input')].filter(e => e.offsetParent && !e.closest('thead'))"
    )
    small = page.evaluate(f"{controls}.filter(e => e.offsetHeight < 32).length")
    assert small == 0


def test_dark(opened: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page = opened(**DESKTOP, color_scheme="dark")
    assert page.evaluate(background) == "rgb(15, 20, 27)"
    page.click("#theme")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.click("#theme")
    assert page.evaluate(background) == "rgb(15, 20, 27)"
    page.emulate_media(media="print")
    assert page.evaluate(background) == "rgb(255, 255, 255)"


def test_print(opened: Any, tmp_path: Path) -> None:
    page = opened(**DESKTOP)
    page.emulate_media(media="print")
    assert not page.is_visible("nav") and not page.is_visible("#graph-tools") and not page.is_visible("#filters")
    folded = page.locator("details svg").first
    assert folded.is_visible()
    page.emulate_media(media="screen")
    assert page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)[:5] == b"%PDF-"


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs poppler's pdftotext")
def test_printed_pages_repeat_the_head_of_a_table(browser: Browser, tmp_path: Path) -> None:
    """Chromium leaves form controls out of repeated heads, and the columns' names were buttons."""
    page = browser.new_page(**DESKTOP)
    page.goto(_many(tmp_path).as_uri())
    page.wait_for_selector("html[data-ready]")
    page.pdf(path=tmp_path / "many.pdf", prefer_css_page_size=True)
    text = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "many.pdf", "-"], capture_output=True, text=True, check=True
    )
    pages = text.stdout.split("\f")
    holding = [one for one in pages if "layer.150" in one or "layer.100" in one]
    assert holding and all("Verdict and why" in one for one in holding)


def test_without_scripts(opened: Any) -> None:
    page = opened(**DESKTOP, java_script_enabled=False)
    assert (
        page.is_visible("#regions-table")
        and page.is_visible("#model-graph .unit.offloaded")
        and page.is_visible("dl.facts")
    )
    assert page.locator("button:visible, input:visible, select:visible").count() == 0


def _many(folder: Path) -> Path:
    """The page of a plan of 300 regions."""
    regions = tuple(Region(f"layer.{n}", f"layer.{n}", "linear", Verdict.KEPT, "none", flops=n) for n in range(300))
    plan = PartitionPlan("Many", "ideal", "offload", CaptureRecord("export"), Summary(300, 0, 1, 0), regions)
    page = folder / "many.html"
    page.write_text(plan.to_html(), encoding="utf-8")
    return page


def test_many_rows(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page(**DESKTOP)
    page.goto(_many(tmp_path).as_uri())
    page.wait_for_selector("html[data-ready]")
    visible = "[...document.querySelectorAll('#regions-table tbody tr')].filter(r => r.checkVisibility()).length"
    assert page.evaluate(visible) == 200
    assert page.inner_text("#filter-count") == "300 of 300 rows, the first 200 shown"
    page.select_option("#filter-pattern", "linear")
    assert page.evaluate(visible) == 200
    for _ in range(2):  # most FLOPs first
        page.click("#regions-table thead th:nth-child(4) button")
    assert page.inner_text("#regions-table tbody tr th") == "layer.299\nlinear"
    page.click("#filter-all")
    assert page.evaluate(visible) == 300
    assert not page.is_visible("#filter-all")
    page.emulate_media(media="print")
    assert page.evaluate(visible) == 300
    page.close()


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report of wide names, a long note and a calibrated device."""
    torch.manual_seed(0)
    model = nn.Sequential()
    for name in ("W" * 28, "\u5c64" * 24, "x" * 200):
        model.add_module(name, nn.Linear(2, 2))
    model.add_module("tanh", nn.Tanh())
    model.add_module("tail", nn.Linear(2, 2))
    kernels = {"reuploading_head": {"qubits": 2, "offsets": 1, "uploads": 1, "blocks": 1}}
    plan = qcascade.plan(model, torch.zeros(2, 2), target="ibm_torino", kernels=kernels)
    plan = dataclasses.replace(plan, capture=dataclasses.replace(plan.capture, notes=("LongName" * 30,)))
    file = tmp_path_factory.mktemp("hard") / "hard.html"
    file.write_text(plan.to_html(), encoding="utf-8")
    return file.as_uri()


SMALL = PHONE | {"viewport": {"width": 360, "height": 740}, "reduced_motion": "reduce"}
OUTSIDE = """(of) => [...document.querySelectorAll(of)].flatMap((whole) => {
  const room = (whole.querySelector(":scope > rect") ?? whole).getBoundingClientRect();
  return [...whole.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < room.left - 1 || box.right > room.right + 1);
  }).map((text) => text.textContent);
})"""


@pytest.fixture
def small(browser: Browser, hard: str) -> Iterator[Page]:
    """That report on a small phone."""
    context = browser.new_context(**SMALL)
    page = context.new_page()
    page.goto(hard)
    page.wait_for_selector("html[data-ready]")
    page.evaluate("document.querySelectorAll('section').forEach((s) => { s.style.contentVisibility = 'visible'; })")
    yield page
    context.close()


def test_words_stay_inside(small: Page) -> None:
    assert small.evaluate("document.documentElement.scrollWidth") <= 360
    assert small.evaluate(OUTSIDE, "#model-graph .unit") == []
    assert small.evaluate(OUTSIDE, ".figures svg[role=img]") == []
    right = "[...document.querySelectorAll('.legend li > *')].map((e) => e.getBoundingClientRect().right)"
    assert max(small.evaluate(right)) <= 360
    sizes = small.evaluate("""[...document.querySelectorAll(".figures svg[role=img] text")].map((e) =>
      Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b) * parseFloat(getComputedStyle(e).fontSize))""")
    assert min(sizes) > 9.9


def test_words_of_plots_stay_inside(browser: Browser, tmp_path: Path) -> None:
    axis = Axis("n", 1, 100, lambda v: f"{v:g} µs")
    marks = [Mark(x, 10, "median of quantinuum_h1_1: 0.00097") for x in (1, 1, 10, 10, 99, 99)]
    page = Document("Plots")
    plots = [
        line_plot([], marks, axis, axis, title="lines"),
        point_plot([("a", 3.1)], axis.text, title="p", unknown=""),
    ]
    page.section("Plots").add(*plots)
    (tmp_path / "plots.html").write_text(page.to_html(), encoding="utf-8")
    opened = browser.new_page(**DESKTOP)
    opened.goto((tmp_path / "plots.html").as_uri())
    assert opened.evaluate(OUTSIDE, "svg[role=img]") == []
    near = [Mark(10, 10, "needs 0.01"), Mark(8, 12, "median of ibm_torino: 0.0041")]
    opened.set_content(line_plot([], near, axis, axis, title="near"))
    first, second = (opened.locator("text.halo").nth(n).bounding_box() for n in (0, 1))
    assert first and second
    assert first["y"] + first["height"] <= second["y"] + 2 or second["y"] + second["height"] <= first["y"] + 2
    opened.close()


def test_device_can_be_read(small: Page) -> None:
    struck = """[...document.querySelectorAll(".device .used")].filter((line) =>
      [...line.parentNode.querySelectorAll(".ring")].some((ring) => [1, 2].some((end) => Math.hypot(
        line.getAttribute("x" + end) - ring.getAttribute("cx"), line.getAttribute("y" + end) - ring.getAttribute("cy")) < 12)))"""
    assert small.locator(".device .used").count() and small.evaluate(f"{struck}.length") == 0
    coloured = small.locator("#device-base .on-device-coupling[stroke]").count()
    assert coloured == small.locator("#device-base .on-device-casing").count() > 100
    assert small.locator("[aria-label*='&']").count() == 0
    placeholder = "getComputedStyle(document.getElementById('filter-text'), '::placeholder').color"
    assert small.evaluate(placeholder) == small.evaluate("getComputedStyle(document.querySelector('.note')).color")


def test_sorted_and_selected_on_a_phone(small: Page) -> None:
    button = small.locator("#regions-table thead button").nth(3)
    button.focus()
    box = button.bounding_box()
    assert box and box["width"] > 40 and box["height"] >= 24
    assert small.evaluate("getComputedStyle(document.querySelector('#regions-table thead')).clipPath") == "none"
    button.tap()
    assert small.get_attribute("#regions-table thead th:nth-child(4)", "aria-sort") == "ascending"
    small.locator("#graph-holder").evaluate("(e) => e.scrollIntoView({ block: 'end' })")
    small.locator("#model-graph .unit").first.tap()
    panel = small.locator("#unit").bounding_box()
    assert panel and panel["y"] + min(panel["height"], 300) <= 741


def test_captions_stay_in_sight(small: Page) -> None:
    wide = small.locator(".scroll:has(table)").filter(has_text="Qubits taken at the start").first
    assert wide.evaluate("(e) => e.scrollWidth > e.clientWidth + 60")
    caption = wide.locator("caption span")
    before = caption.bounding_box()
    wide.evaluate("(e) => { e.scrollLeft = 60; }")
    after = caption.bounding_box()
    assert before and after and abs(after["x"] - before["x"]) < 1 and after["x"] + after["width"] <= 360


def test_an_address_leads_to_a_row_that_is_not_shown(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page(**DESKTOP, reduced_motion="reduce")
    page.goto(_many(tmp_path).as_uri())
    page.wait_for_selector("html[data-ready]")
    row = page.locator("#region-290")
    assert not row.is_visible()
    page.evaluate("location.hash = '#region-290'")
    row.wait_for(state="visible")
    box = row.bounding_box()
    assert box and 0 <= box["y"] < 900
    page.close()
