"""Time and memory of a training step by sequence length, classical and hybrid taking turns in one process.

Settings in, seconds of every round, their ratio and bytes out. Tokens are random. Memory is of a process of its own for each model that
makes two steps: its resident set before and at the peak (on CUDA: the peak allocation).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch import nn

from qcascade.studies.batches import classification_loss
from qcascade.studies.cascade.encoder import Size
from qcascade.studies.cascade.run import build
from qcascade.studies.cascade.settings import Kernels, Run
from qcascade.studies.devices import checked_device
from qcascade.studies.runs import processes
from qcascade.studies.texts import Coded
from qcascade.studies.training import Protocol

KINDS = ("classical", "hybrid")


@dataclass(frozen=True, slots=True)
class LengthRun:
    """One length (`size.length`); every token of every text counts."""

    size: Size
    kernels: Kernels
    batch: int = 4
    vocabulary: int = 30522
    rounds: int = 5
    device: str = "cpu"
    threads: int = 1
    memory: bool = True  # measured too

    @staticmethod
    def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
        """A record's settings without what a step's time does not depend on."""
        return (
            {**settings, "kernels": Kernels.of_one_step(settings["kernels"])} if "kernels" in settings else {**settings}
        )


def measure_length(run: LengthRun, advance: Callable[[], object] | None = None) -> dict[str, Any]:
    """Measure.

    Returns:
        For both kinds: median seconds of a step, all rounds, resident and peak bytes, parameters; and the median ratio of rounds.

    Raises:
        ExecutionError: There is no such device.
    """
    torch.set_num_threads(run.threads)
    models = {kind: _model(run, kind) for kind in KINDS}
    optimizers = {kind: torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True) for kind, model in models.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(run.rounds + 1):
        for kind, model in models.items():
            seconds[kind].append(_step(model, optimizers[kind], run, number))
        if advance is not None:
            advance()
    times = {kind: taken[1:] for kind, taken in seconds.items()}  # the first round compiles
    parameters = {kind: sum(p.numel() for p in model.parameters()) for kind, model in models.items()}
    del models, optimizers
    memory = {}
    for kind in KINDS if run.memory else ():
        with processes(1, run.threads) as pool:
            memory[kind] = pool.submit(step_memory, run, kind).result()
    ratios = [h / c for c, h in zip(*times.values(), strict=True)]
    return {
        "seconds": {kind: median(taken) for kind, taken in times.items()},
        "rounds": times,
        "ratio": median(ratios),
        "resident_bytes": {kind: found[0] for kind, found in memory.items()},
        "peak_bytes": {kind: found[1] for kind, found in memory.items()},
        "parameters": parameters,
    }


def _model(run: LengthRun, kind: str) -> nn.Module:
    kernels = None if kind == "classical" else run.kernels
    made = Run("", "", kind, run.size, Protocol(), kernels, dropout=0.0)
    return build(made, run.vocabulary, 2).to(checked_device(run.device)).train()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, run: LengthRun, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, run.vocabulary, (run.batch, run.size.length), generator=generator)
    batch = Coded(ids, torch.randint(0, 2, (run.batch,), generator=generator))
    start = time.perf_counter()
    optimizer.zero_grad()
    classification_loss(model, batch).backward()
    optimizer.step()
    if run.device.startswith("cuda"):
        torch.cuda.synchronize(run.device)
    return time.perf_counter() - start


def step_memory(run: LengthRun, kind: str) -> tuple[int, int]:
    """Bytes of this process with the model, and at its peak over two steps (and before, so that it should be a new one)."""
    torch.set_num_threads(run.threads)
    model = _model(run, kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    if run.device.startswith("cuda"):
        held = torch.cuda.memory_allocated(run.device)
        torch.cuda.reset_peak_memory_stats(run.device)
    else:
        held = psutil.Process().memory_info().rss
    for number in range(2):
        _step(model, optimizer, run, number)
    return held, torch.cuda.max_memory_allocated(run.device) if run.device.startswith("cuda") else _peak()


def _peak() -> int:
    """Largest resident set of this process; getrusage would count the parent's too."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss)) if os.name == "nt" else int(info.rss)
