"""How long the HTML report of a large model takes to make, and to open in a real browser.

Run: python tests/benchmarks/html_report.py [--regions 2000] [--captured] [--rounds 5] [--out FILE.jsonl] [--page FILE.html]

The plan is that of a BERT of twelve layers for ibm_torino, its regions and graph repeated under other names, stage after stage,
until there are so many regions: capturing a model of that size takes minutes, and is not what is timed. With --captured it is
captured all the same: a BERT of as many layers as give so many regions. The page is opened from the
disk in the system's Chromium, headless, each round in a fresh context; "interactive" is the time from navigation to two frames after the
page's script has finished, so layout and paint are in it. Then the graph is zoomed, a word is looked for and the table sorted by
a column, each to the second frame after. Medians. On a busy machine the time says little: "interactive_cpu" is what the renderer's
main thread computed until then, by its own clock, and the machine's load goes with each row.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

import qcascade
from qcascade.plan import GraphUnit, PartitionPlan

PAINTED = """(act) => new Promise((done) => {
  const start = performance.now();
  const after = () => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - (act ? start : 0))));
  if (act === "zoom") document.getElementById("zoom-in").click();
  if (act === "sort") document.querySelector("#regions-table thead th:nth-child(4) button").click();
  if (act === "find") {
    const field = document.getElementById("filter-text");
    field.value = "layer.7 query"; field.dispatchEvent(new Event("input")); setTimeout(after, 80); return;
  }
  const ready = () => document.documentElement.dataset.ready ? after() : setTimeout(ready, 2);
  ready();
})"""


def large_plan(regions: int, captured: bool) -> PartitionPlan:
    """A plan of at least so many regions."""
    plan = bert_plan(12)
    if not captured:
        return repeated(plan, math.ceil(regions / len(plan.regions)))
    layer = len(plan.regions) - len(bert_plan(11).regions)
    return bert_plan(12 + math.ceil((regions - len(plan.regions)) / layer))


def bert_plan(layers: int) -> PartitionPlan:
    """A BERT's."""
    torch.manual_seed(0)
    config = BertConfig(hidden_size=128, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=512)
    return qcascade.plan(BertForSequenceClassification(config), target="ibm_torino")


def repeated(plan: PartitionPlan, times: int) -> PartitionPlan:
    """The plan of a model that is so many of the given in a row."""
    record = plan.record
    assert record is not None
    regions, units, facts = [], list[GraphUnit](), {}
    for stage in range(times):
        before, places = len(units) - 1, dict[int, int]()
        for region in plan.regions:
            name = f"stage.{stage}.{region.name}"
            regions.append(replace(region, name=name, module=f"stage.{stage}.{region.module}"))
            facts[name] = record.facts[region.name]
        for number, unit in enumerate(record.units):
            if (unit.kind == "input" and stage) or (unit.kind == "output" and stage < times - 1):
                places[number] = before
                continue
            inputs = tuple(sorted({places[i] for i in unit.inputs}))
            region_name = f"stage.{stage}.{unit.region}" if unit.region else None
            module = f"stage.{stage}.{unit.module}" if unit.kind in ("region", "classical") else ""
            places[number] = len(units)
            units.append(
                replace(unit, label=region_name or unit.label, module=module, region=region_name, inputs=inputs)
            )
    summary = replace(
        plan.summary,
        regions=len(regions),
        offloaded=times * plan.summary.offloaded,
        flops_total=times * (plan.summary.flops_total or 0),
        flops_offloaded=times * (plan.summary.flops_offloaded or 0),
    )
    return replace(
        plan, summary=summary, regions=tuple(regions), record=replace(record, facts=facts, units=tuple(units))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=2000)
    parser.add_argument("--captured", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    plan = large_plan(options.regions, options.captured)
    planned = time.perf_counter() - start
    plan.to_html()  # imports
    start = time.perf_counter()
    page = plan.to_html()
    made = time.perf_counter() - start
    place = options.page or Path(tempfile.mkdtemp()) / "report.html"
    place.write_text(page, encoding="utf-8")
    row: dict[str, Any] = {
        "captured": options.captured,
        "regions": plan.summary.regions,
        "units": len(plan.record.units) if plan.record else None,
        "candidates_offloaded": plan.summary.offloaded,
        "bytes": len(page.encode()),
        "seconds_planned": planned,
        "seconds_made": made,
        **opened(place, options.rounds),
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(row))
    if options.out:
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def opened(place: Path, rounds: int) -> dict[str, float]:
    """Median seconds to interactive, and of three things done then."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("no chromium, chromium-browser or google-chrome is on the path; install one.")
    times: dict[str, list[float]] = {"interactive": [], "interactive_cpu": [], "zoom": [], "find": [], "sort": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(rounds):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab = context.new_page()
            tools = context.new_cdp_session(tab)
            tools.send("Performance.enable", {"timeDomain": "threadTicks"})
            tab.goto(place.absolute().as_uri(), wait_until="commit")
            times["interactive"].append(tab.evaluate(PAINTED, None))
            metrics = {m["name"]: m["value"] for m in tools.send("Performance.getMetrics")["metrics"]}
            times["interactive_cpu"].append(1e3 * metrics["TaskDuration"])
            for act in ("zoom", "find", "sort"):
                times[act].append(tab.evaluate(PAINTED, act))
            context.close()
        browser.close()
    return {f"seconds_{name}": statistics.median(found) / 1e3 for name, found in times.items()}


if __name__ == "__main__":
    main()
