"""How long the HTML report of a large model takes to make, and to open in a real browser.

Run: python tests/benchmarks/html_report.py [--regions 2000] [--plan FILE.pkl] [--rounds 5] [--out FILE.jsonl] [--page FILE.html]

The model is a residual MLP of regions/2 blocks with two projections each, beside an embedding and a head. `--plan` keeps the plan, since
capture takes minutes at this size. The page is opened from the disk in the system's Chromium, headless, each round in
a fresh context; "interactive" is the time from navigation to two frames after the page's script has finished, so layout and paint
are in it. Then the graph is zoomed, a word is looked for and the table sorted by a column, each to the second frame after.
Medians; the machine's load goes with each row.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from plan_speed import Perceptrons

import qcascade
from qcascade.plan import PartitionPlan

PAINTED = """(act) => new Promise((done) => {
  const start = performance.now();
  const after = () => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - (act ? start : 0))));
  if (act === "zoom") document.getElementById("zoom-in").click();
  if (act === "sort") document.querySelector("#regions-table thead th:nth-child(4) button").click();
  if (act === "find") {
    const field = document.getElementById("filter-text");
    field.value = "linear 7"; field.dispatchEvent(new Event("input")); setTimeout(after, 80); return;
  }
  const ready = () => document.documentElement.dataset.ready ? after() : setTimeout(ready, 2);
  ready();
})"""


def large_plan(regions: int, file: Path | None) -> PartitionPlan:
    if file is not None and file.exists():
        plan: PartitionPlan = pickle.loads(file.read_bytes())
        return plan
    torch.manual_seed(0)
    plan = qcascade.plan(Perceptrons(regions // 2), torch.arange(32).reshape(2, 16))
    if file is not None:
        file.write_bytes(pickle.dumps(plan))
    return plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=2000)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = large_plan(options.regions, options.plan)
    plan.to_html()  # imports
    start = time.perf_counter()
    page = plan.to_html()
    made = time.perf_counter() - start
    place = options.page or Path(tempfile.mkdtemp()) / "report.html"
    place.write_text(page, encoding="utf-8")
    row: dict[str, Any] = {
        "regions": plan.summary.regions,
        "units": len(plan.record.units) if plan.record else None,
        "bytes": len(page.encode()),
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
    times: dict[str, list[float]] = {"interactive": [], "zoom": [], "find": [], "sort": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(rounds):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab = context.new_page()
            tab.goto(place.absolute().as_uri(), wait_until="commit")
            times["interactive"].append(tab.evaluate(PAINTED, None))
            for act in ("zoom", "find", "sort"):
                times[act].append(tab.evaluate(PAINTED, act))
            context.close()
        browser.close()
    return {f"seconds_{name}": statistics.median(found) / 1e3 for name, found in times.items()}


if __name__ == "__main__":
    main()
