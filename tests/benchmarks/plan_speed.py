"""How long planning takes beyond capture, on graphs of 500 to 20,000 nodes, beside torch's own partitioner.

Run: python tests/benchmarks/plan_speed.py [--nodes 500 1000 2000 …] [--out FILE.jsonl] [--plot FILE.png]
The plot shows all rows of FILE.jsonl, the newest of each size.

The models are stacks of `nn.TransformerEncoderLayer` and of plain MLPs, as deep as gives about so many nodes. One process,
one thread: for every graph capture is timed apart (two modes, as `compile` needs); then, in turns, the passes from the
captured graph to the plan, and `CapabilityBasedPartitioner.propose_partitions` on the same graph, told to support
exactly the nodes of our regions ("regions") or every operator ("operators"). Medians of the rounds; the first plan of the
process, which fills the caches of costs, is a row of its own. The machine's profile is calibrated beforehand.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel
from qcascade.compiler import make_request, plan_captured
from qcascade.cost_models.machine import this_machine
from qcascade.passes.base import Match, find_regions
from qcascade.passes.pipeline import FIND

SIZES = (500, 1000, 2000, 5000, 10_000, 20_000)
PEER_AT_MOST = 5000  # nodes: beyond it the partitioner takes minutes


class Transformers(nn.Module):
    """A classifier with `depth` encoder layers, 47 nodes each."""

    nodes_per_layer = 47

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(2000, 32)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(32, 2, 64, batch_first=True) for _ in range(depth))
        self.head = nn.Linear(32, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Perceptrons(nn.Module):
    """A residual MLP with `depth` blocks, 10 nodes each; nothing but projections and a head."""

    nodes_per_layer = 10

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(2000, 32)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)) for _ in range(depth)
        )
        self.head = nn.Linear(32, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mean(1))


class Supported(OperatorSupportBase):
    """The nodes the partitioner may take."""

    def __init__(self, nodes: set[fx.Node] | None) -> None:
        self.nodes = nodes

    def is_node_supported(self, submodules: Mapping[str, nn.Module], node: fx.Node) -> bool:
        return node.op == "call_function" if self.nodes is None else node in self.nodes


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peer(captured: CapturedModel, nodes: set[fx.Node] | None) -> float:
    partitioner = CapabilityBasedPartitioner(captured.eval_graph, Supported(nodes), allows_single_node_partition=True)
    return timed(partitioner.propose_partitions)


def measure(kind: type[nn.Module], nodes: int, rounds: int) -> dict[str, Any]:
    """One row: seconds of capture, of the plan, and of the partitioner."""
    model = kind(max(1, nodes // kind.nodes_per_layer))  # type: ignore[operator]
    ids = torch.arange(32).reshape(2, 16)
    start = time.perf_counter()
    captured = capture(model, ids)
    seconds = time.perf_counter() - start
    count = len(captured.eval_graph.graph.nodes)
    matches: tuple[Match, ...] = find_regions(FIND, captured.eval_graph, captured)
    ours, theirs, whole = [], [], []
    first = timed(lambda: plan_captured(captured, make_request()))
    for _ in range(rounds):
        ours.append(timed(lambda: plan_captured(captured, make_request())))
        if count <= 1.1 * PEER_AT_MOST:
            theirs.append(peer(captured, {n for m in matches for n in m.nodes}))
            whole.append(peer(captured, None))
    return {
        "model": kind.__name__,
        "nodes": count,
        "regions": len(matches),
        "seconds_capture": seconds,
        "seconds_first": first,
        "seconds_plan": statistics.median(ours),
        "seconds_peer_regions": statistics.median(theirs) if theirs else None,
        "seconds_peer_operators": statistics.median(whole) if whole else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    this_machine()
    rows = []
    for kind in (Transformers, Perceptrons):
        for nodes in options.nodes:
            row = measure(kind, nodes, options.rounds)
            rows.append(row)
            print(json.dumps(row), flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    if options.out:  # with what earlier runs measured at other sizes
        rows = list(
            {(r["model"], r["nodes"]): r for r in map(json.loads, options.out.read_text().splitlines())}.values()
        )
    for kind in (Transformers, Perceptrons):
        print(f"{kind.__name__}: grows as nodes^{exponent([r for r in rows if r['model'] == kind.__name__]):.2f}")
    if options.plot:
        draw(rows, options.plot)


def exponent(rows: list[dict[str, Any]]) -> float:
    """Slope of log seconds over log nodes, by least squares."""
    if len(rows) < 2:
        return math.nan
    x, y = [math.log(r["nodes"]) for r in rows], [math.log(r["seconds_plan"]) for r in rows]
    return statistics.linear_regression(x, y).slope


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for kind, mark in (("Transformers", "o"), ("Perceptrons", "s")):
        mine = [r for r in rows if r["model"] == kind]
        for key, label in (
            ("seconds_plan", "QCascade's plan"),
            ("seconds_peer_regions", "CapabilityBasedPartitioner, our regions"),
            ("seconds_peer_operators", "CapabilityBasedPartitioner, every operator"),
        ):
            points = sorted((r["nodes"], r[key]) for r in mine if r[key] is not None)
            if points:
                style = "-" if key == "seconds_plan" else "--"
                axes.plot(*zip(*points, strict=True), marker=mark, linestyle=style, label=f"{label} ({kind})")
    first = min(rows, key=lambda r: r["nodes"])
    sizes = sorted({r["nodes"] for r in rows})
    scale = first["seconds_plan"] / (first["nodes"] * math.log(first["nodes"]))
    axes.plot(sizes, [scale * n * math.log(n) for n in sizes], color="grey", linestyle=":", label="n log n")
    axes.set(xscale="log", yscale="log", xlabel="nodes of the graph", ylabel="seconds beyond capture")
    axes.legend(fontsize=6)
    figure.savefig(file, dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    main()
