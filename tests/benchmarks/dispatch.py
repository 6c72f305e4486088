"""Micro-batches at 200 ms latency, and what the dispatcher costs with the exact simulator.

    python tests/benchmarks/dispatch.py [--batch 16] [--latency 0.2] [--limit 300] [--rounds 5] [--pairs 300] [--only free] [--out FILE]

The device is exact simulation with sampling (`ShotsExecutor`); every submission is answered `latency` seconds after it was
fetched, plus the time that simulating takes here, one submission at a time; several may wait at a time. One step: forward and backward
pass by shift rules of an embedding and a head of circuits, on SST-2. The circuits are called three times one after the other
(embedding, the head's encoder, its re-uploading circuit), each on the values of the last.

What a step waits for. Without a dispatcher, a submission for each of the three calls, forward and again backward: 6 round
trips, 1.2 s. With it, backward circuits leave with the forward ones: 3 round trips, 0.6 s, and no fewer are possible: each call's
angles are the last one's values. With 6L + y for the one and 3L + x for the other the ratio is at most 0.5 where x, what is not hidden
behind waiting, is at most half of y, the computing of a plain step. What hides it: circuits of the backward pass leave apart, right
behind those of the forward pass, so that simulating them (most of y) runs while the next call waits; and the parts of a batch take turns.
`beyond` is x or y: seconds less the round trips. Where a submission holds at most `limit` circuits, as on IBM's devices
(`max_experiments` of their configurations: 75 to 900), what has no dispatcher sends one after the other, and the dispatcher all at once.

Ways, interleaved, medians of ratios within a round: "none" (the executor alone: 1); the dispatcher with backward circuits later;
1 part, its backward circuits together with or apart from the forward ones; 2 and 4 micro-batches; "4 parts in turn", the same four
parts of the batch through the dispatcher without overlap (gradients accumulated), against which 4 micro-batches show what overlapping
alone saves; the same with a limit (`--only free|limited|exact` runs one group).

For the exact simulator: pairs of single steps in random order, in seconds of the processor, the optimiser's included, which say more than
the clock's on a busy machine; the ratio of medians and its 95 % interval (bootstrap over pairs):
use("statevector", microbatches=4), which has no dispatcher in it; the same hybrid against itself, which shows the noise; and
use(Dynamic(…)) where the exact simulator is the better place. "exact, by itself" is what the hybrid then does for a dispatcher
in a step (it looks whether there is one), timed alone, over a step.
`load` is the machine's mean load over the last minute, of `cores`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

import qcascade
from qcascade.dispatch import DispatchedExecutor
from qcascade.executors import Executor, ShotsExecutor

ROOT = Path(__file__).parents[2]


class Remote(ShotsExecutor):
    """Answers later."""

    latency = 0.2

    def fetch(self, handle: str, shapes: object, *, seconds: float | None = None) -> object:
        time.sleep(self.latency)
        return super().fetch(handle, shapes, seconds=seconds)

    def _run(self, jobs: object, log: object) -> object:
        return Executor._run(self, jobs, log)  # by submissions of at most `most_circuits`, as executors of devices


class Words(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding, self.mix, self.head = nn.Embedding(vocabulary, 64), nn.Linear(64, 64), nn.Linear(64, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embedding(ids))).mean(1))


def _ratio(seconds: list[float], others: list[float]) -> float:
    return round(median(one / other for one, other in zip(seconds, others, strict=True)), 4)


def overhead(
    hybrid: qcascade.HybridModule, use: Callable[[], object], step: Callable[[], float], pairs: int
) -> dict[str, object]:
    """Steps of a way against steps after use("statevector"), in pairs of random order."""
    chance, taken = Random(0), np.empty((pairs, 2))
    hybrid.use("statevector")
    plain = [(kernel, kernel.executor) for kernel in hybrid.kernels.values()]
    state = hybrid._state.executor
    use()
    other = [(kernel, kernel.executor) for kernel in hybrid.kernels.values()]
    states = (state, hybrid._state.executor)
    for pair in range(-10, pairs):
        for place in chance.sample((0, 1), 2):
            hybrid._state.executor, hybrid._state.first_run = states[place], 0
            for kernel, executor in (plain, other)[place]:
                kernel.executor = executor
            start = time.process_time()
            step()
            if pair >= 0:
                taken[pair, place] = time.process_time() - start
    rows = np.random.default_rng(0).integers(0, pairs, (2000, pairs))
    ratios = np.median(taken[rows, 1], 1) / np.median(taken[rows, 0], 1)
    return {
        "pairs": pairs,
        "seconds": round(float(np.median(taken[:, 1])), 5),
        "ratio": round(float(np.median(taken[:, 1]) / np.median(taken[:, 0])), 4),
        "interval": [round(float(value), 4) for value in np.quantile(ratios, (0.025, 0.975))],
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("batch", 16), ("rounds", 5), ("length", 8), ("threads", 1), ("limit", 300), ("pairs", 300)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "sst2")
    parser.add_argument("--only", choices=("free", "limited", "exact"))
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

    def step(parts: int = 1) -> float:
        start = time.perf_counter()
        hybrid.zero_grad()
        for part in ids.chunk(parts):
            hybrid.train()(part).square().sum().backward()
        seconds = time.perf_counter() - start
        with torch.no_grad():  # other angles, so that nothing is known already
            for parameter in hybrid.parameters():
                parameter -= 0.01 * parameter.grad
        return seconds

    def remote(limit: int | None = None) -> Remote:
        made = Remote(100, seed=0)
        made.most_circuits = limit
        return made

    def dispatched(ahead: bool | str) -> object:
        return hybrid.use(DispatchedExecutor(remote(), gradients_ahead=ahead))

    ways: dict[str, Callable[[], object]] = {
        "none": lambda: hybrid.use(remote()),
        "dispatcher, gradients later": lambda: dispatched(False),
        "1 part, gradients together": lambda: dispatched(True),
        "1 part, gradients apart": lambda: dispatched("apart"),
        "2 micro-batches": lambda: hybrid.use(remote(), microbatches=2),
        "4 micro-batches": lambda: hybrid.use(remote(), microbatches=4),
        "4 parts in turn": lambda: hybrid.use(remote(), microbatches=1),
    }
    limited: dict[str, Callable[[], object]] = {
        "none, limited": lambda: hybrid.use(remote(options.limit)),
        "1 part, limited": lambda: hybrid.use(remote(options.limit), microbatches=1),
        "4 micro-batches, limited": lambda: hybrid.use(remote(options.limit), microbatches=4),
    }
    lines = []
    trips = {"none": 6, "dispatcher, gradients later": 6, "4 parts in turn": 12}
    groups = {"free": (ways, 2, "none"), "limited": (limited, 1, "none, limited")}
    for group, repeats, base in [made for name, made in groups.items() if options.only in (None, name)]:
        taken: dict[str, list[float]] = {name: [] for name in group}
        waits: dict[str, float] = {}
        for turn in range(options.rounds + 1):
            for name, use in group.items():
                parts = 4 if name == "4 parts in turn" else 1
                use()
                step(parts)  # circuits are prepared
                seconds = min(step(parts) for _ in range(repeats))
                waits[name] = sum(run.submissions for run in hybrid.last_run)  # of a step's last part
                if turn:  # the first round compiles
                    taken[name].append(seconds)
        for name, seconds in taken.items():
            line = {
                "way": name,
                "batch": options.batch,
                "latency": options.latency,
                "limit": options.limit if group is limited else None,
                "seconds": round(median(seconds), 4),
                "submissions": waits[name] * (4 if name == "4 parts in turn" else 1),
                **(
                    {"beyond": round(median(seconds) - trips.get(name, 3) * options.latency, 4)}
                    if group is ways
                    else {}
                ),
                "ratio": _ratio(seconds, taken[base]),
                **(
                    {"of_parts_in_turn": _ratio(seconds, taken["4 parts in turn"])}
                    if "4 parts in turn" in taken
                    else {}
                ),
                "load": round(os.getloadavg()[0], 1),
                "cores": os.cpu_count(),
            }
            lines.append(json.dumps(line))
            print(lines[-1], flush=True)
    if options.only in (None, "exact"):
        hybrid.use("statevector", microbatches=4)
        alone = min(timeit.repeat(hybrid._begin, number=10_000, repeat=5)) / 10_000
        whole = min(step() for _ in range(50))
        lines.append(json.dumps({"way": "exact, by itself", "seconds": alone, "of_a_step": round(alone / whole, 6)}))
        print(lines[-1], flush=True)
        choosing = qcascade.Dynamic({"local": "statevector", "remote": remote()}, explore=None)
        for name, use in (
            ("exact, against itself", lambda: hybrid.use("statevector")),
            ("exact, microbatches=4", lambda: hybrid.use("statevector", microbatches=4)),
            ("exact, by Dynamic", lambda: hybrid.use(choosing)),
        ):
            lines.append(
                json.dumps({"way": name, "batch": options.batch, **overhead(hybrid, use, step, options.pairs)})
            )
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
