"""One model trained densely, sparsely, and sparsely with download and re-upload: losses and charges side by side.

In: a model that is left as it is, its loss, the batch of a step, the batches that losses are told on, a schedule. Out: a run for every
method, as text and as plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from qcascade.cost_models.fault_tolerant.curvature import Loss
from qcascade.cost_models.fault_tolerant.physical import HARDWARE
from qcascade.cost_models.fault_tolerant.sparse_training import Method, Schedule, SparseRun, train_sparsely

_COMPARED: tuple[Method, ...] = ("dense", "sparse", "reupload")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores are losses on the measured batches."""

    schedule: Schedule
    runs: tuple[SparseRun, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def compare_training(
    model: nn.Module,
    loss: Loss,
    batch_of: Callable[[int], Any],
    measured_on: Sequence[Any],
    schedule: Schedule,
    *,
    advance: Callable[[], object] | None = None,
) -> Comparison:
    """Train three copies by the same batches; `advance` is called after every step of each."""

    @torch.no_grad()
    def score(trained: nn.Module) -> float:
        training = trained.training
        trained.eval()
        mean = sum(float(loss(trained, batch)) for batch in measured_on) / len(measured_on)
        trained.train(training)
        return mean

    runs = []
    for method in _COMPARED:
        copy = deepcopy(model)
        every = max(1, schedule.steps)
        run = train_sparsely(
            copy, loss, batch_of, measured_on, schedule, method, evaluate=score, every=every, advance=advance
        )
        runs.append(run)
    return Comparison(schedule, tuple(runs))


def _lines(compared: Comparison) -> Iterator[str]:
    plan = compared.schedule
    yield (
        f"\n{plan.steps} steps of training, {plan.warmup} of them dense at first; segments end before the error proxy in the worst"
        f" direction passes {plan.tolerance}"
    )
    yield f"{'training':<12} {'loss':>8} {'classical GFLOP':>16} {'seconds':>8} {'segments':>9} {'quantum steps':>14}"
    for run in compared.runs:
        yield (
            f"{run.method:<12} {run.scores[-1][1]:>8.4f} {run.classical_flops / 1e9:>16.4g} {run.classical_seconds:>8.3g}"
            f" {len(run.segments):>9} {run.quantum_steps:>14}"
        )
    for run in compared.runs:
        for access in ("lookup", "qram") if run.segments else ():
            charges = [c for s in run.segments for c in s.charges if c.access == access]
            memory = "tables looked up by gates" if access == "lookup" else "a quantum memory that costs nothing"
            queries = sum(c.queries for c in charges if c.hardware == next(iter(HARDWARE)))
            yield f"  segments, {memory}: {queries:.3g} queries for a copy of each"
            for name in HARDWARE:
                own = [c for c in charges if c.hardware == name]
                total = run.total_seconds(access, name)
                if total is None:
                    yield f"    {name}: no estimate: {next(c.reason for c in own if c.total_seconds is None)}"
                    continue
                bound = "at least " if any(c.lower_bound for c in own) else ""
                uploads = sum(c.upload_seconds or 0 for c in own)
                states = sum(c.state_seconds or 0 for c in own)
                yield (
                    f"    {name}: uploads once {uploads:.3g} s, states {bound}{states / 3600:.3g} h, with downloads"
                    f" {bound}{total / 3600:.3g} h"
                )
