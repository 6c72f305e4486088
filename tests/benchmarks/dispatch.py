"""Micro-batches at 200 ms latency, and what the dispatcher costs with the exact simulator.

    python tests/benchmarks/dispatch.py [--batch 16] [--latency 0.2] [--rounds 5] [--out FILE]

The device is exact simulation with sampling (`ShotsExecutor`) whose results are there `latency` seconds after it was asked,
as over a network; several submissions may wait at a time. One step: forward and backward pass by shift rules of an
embedding and a head of circuits, on SST-2. Ways are interleaved, medians are given: no dispatcher; a dispatcher; with the
backward pass's circuits sent ahead or not; with 4 micro-batches. For the exact simulator: a step after use("statevector")
and after use("statevector", microbatches=4), which has no dispatcher in it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

import qcascade
from qcascade.dispatch import DispatchedExecutor
from qcascade.executors import ShotsExecutor

ROOT = Path(__file__).parents[2]


class Remote(ShotsExecutor):
    """Answers later."""

    latency = 0.2

    def fetch(self, handle: str, shapes: object, *, seconds: float | None = None) -> object:
        time.sleep(self.latency)
        return super().fetch(handle, shapes, seconds=seconds)

    def _run(self, jobs: object, log: object) -> object:
        time.sleep(self.latency)
        return super()._run(jobs, log)


class Words(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding, self.mix, self.head = nn.Embedding(vocabulary, 64), nn.Linear(64, 64), nn.Linear(64, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embedding(ids))).mean(1))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("batch", 16), ("rounds", 5), ("length", 8), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "sst2")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    Remote.latency = options.latency
    texts = [line.split("\t")[0].split() for line in (options.data / "train.tsv").read_text().splitlines()]
    texts = [text for text in texts if len(text) >= options.length][: options.batch]
    numbers = {word: place for place, word in enumerate(sorted({w for text in texts for w in text}))}
    ids = torch.tensor([[numbers[word] for word in text[: options.length]] for text in texts])
    kernels = {
        "random_circuit_embedding": {"qubits": 3, "layers": 1},
        "reuploading_head": {"qubits": 3, "uploads": 1, "offsets": 1},
    }
    hybrid = qcascade.compile(Words(max(500, len(numbers))), (ids,), kernels=kernels)
    assert len(hybrid.kernels) == 2, str(hybrid.plan)

    def step() -> float:
        start = time.perf_counter()
        hybrid.zero_grad()
        hybrid.train()(ids).square().sum().backward()
        seconds = time.perf_counter() - start
        with torch.no_grad():  # other angles, so that nothing is known already
            for parameter in hybrid.parameters():
                parameter -= 0.01 * parameter.grad
        return seconds

    def remote() -> Remote:
        return Remote(100, seed=0)

    ways: dict[str, Callable[[], object]] = {
        "none": lambda: hybrid.use(remote()),
        "dispatcher, gradients later": lambda: hybrid.use(DispatchedExecutor(remote(), gradients_ahead=False)),
        "dispatcher": lambda: hybrid.use(remote(), microbatches=1),
        "2 micro-batches": lambda: hybrid.use(remote(), microbatches=2),
        "4 micro-batches": lambda: hybrid.use(remote(), microbatches=4),
    }
    exact = {
        "exact": lambda: hybrid.use("statevector"),
        "exact, microbatches=4": lambda: hybrid.use("statevector", microbatches=4),
    }
    lines = []
    for group, repeats, base in ((ways, 2, "none"), (exact, 20, "exact")):
        taken: dict[str, list[float]] = {name: [] for name in group}
        for turn in range(options.rounds + 1):
            for name, use in group.items():
                use()
                step()  # circuits are prepared
                seconds = min(step() for _ in range(repeats))
                if turn:  # the first round compiles
                    taken[name].append(seconds)
        for name, seconds in taken.items():
            ratios = [one / other for one, other in zip(seconds, taken[base], strict=True)]
            line = {
                "way": name,
                "latency": options.latency if group is ways else None,
                "seconds": round(median(seconds), 4),
            }
            lines.append(json.dumps({**line, "ratio": round(median(ratios), 4)}))
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
