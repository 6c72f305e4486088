"""Predicted against measured seconds: regions as they are, and the kernels that could stand in for them.

    python tests/benchmarks/cost_models.py [--threads N]

Prints one line a subject: forward passes and training steps, predicted by the cost models and measured here (the median
of several runs), and their ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from qcascade.capture import capture
from qcascade.cost_models.base import Subject
from qcascade.cost_models.machine import this_machine
from qcascade.cost_models.simulator import simulation
from qcascade.kernels import KERNELS
from qcascade.passes.base import PipelineState, Request, run_passes
from qcascade.passes.extract_region import extract_region
from qcascade.passes.graph_walk import Evaluator
from qcascade.passes.measure_regions import MeasureRegions
from qcascade.passes.pipeline import FIND
from qcascade.targets import IDEAL


class Encoder(nn.Module):
    """Token embedding, encoder layers, mean, head."""

    def __init__(self, features: int, heads: int, layers: int, vocabulary: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, features)
        layer = nn.TransformerEncoderLayer(features, heads, 4 * features, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(features, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.token(ids)).mean(1))


def timed(work: Callable[[], object], runs: int = 7) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds[2:])


def line(name: str, kind: str, predicted: float, measured: float) -> None:
    print(
        f"{name:<58} {kind:<13} {1e3 * predicted:10.3f} {1e3 * measured:10.3f} {predicted / measured:8.2f}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    machine = this_machine()
    print(f"{machine.name}, {machine.threads} threads")
    print(f"{'subject':<58} {'':<13} {'predicted':>10} {'measured':>10} {'ratio':>8}   (ms)")
    for features, heads, batch, length in ((128, 4, 16, 64), (384, 12, 8, 256), (1024, 16, 2, 512)):
        model = Encoder(features, heads, 1, 30000)
        captured = capture(model, torch.randint(0, 30000, (batch, length)))
        state = run_passes((*FIND, MeasureRegions()), PipelineState(captured, Request()))
        evaluate = Evaluator(captured.eval_graph, captured)
        for match in state.matches:
            label = f"{match.name} d={features} B={batch} n={length}"
            region = extract_region(captured.eval_graph, match)
            inputs = [evaluate(n).detach() for n in match.inputs if n is not None]
            with torch.no_grad():
                measured = timed(lambda region=region, inputs=inputs: region(*inputs))
            line(label, "forward", state.costs[match.name].seconds, measured)
            for name in KERNELS.names():
                kernel = KERNELS.get(name)
                if kernel.pattern != match.pattern:
                    continue
                workload = kernel.workload(match.facts, {}, seed=0)
                costs = simulation(Subject(kernel, {}, match.facts, workload, 1.0, IDEAL, machine, 0))
                made = kernel.blank(match.facts, {}, seed=0)
                optimizer = torch.optim.AdamW(made.parameters())

                def step(made=made, optimizer=optimizer, facts=match.facts) -> None:
                    optimizer.zero_grad()
                    made.rehearse(facts).sum().backward()
                    optimizer.step()

                line(f"  {name}", "forward", costs.forward.seconds, timed(lambda m=made, f=match.facts: m.rehearse(f)))
                line(f"  {name}", "training step", costs.training.seconds, timed(step))


if __name__ == "__main__":
    main()
