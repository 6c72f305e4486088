"""Sparse training with download and re-upload against dense and plain sparse training: same batches, same number of steps, several seeds.

Tasks: ``digits``, an MLP on scikit-learn's digits in full, and ``sst2``, a tiny encoder (one layer of width 32) on sentences of a folder.
A record a run, in OUT/training.jsonl: accuracy on dev along the way and on test once at the end, and what the run is charged
(`sparse_training`). The schedules below were fixed after earlier ones had been looked at, which are in no results file: for ``sst2`` an
encoder of a million parameters with η = 0.1 (ηλ_max passed 2, and gradient descent after the warm-up was unstable), then with 0.03
(too slow for the machine); even with 0.03, ηλ_max passes 2 in some segments. For ``digits`` a rule by the mean of the proxy, which
seldom triggered, before the one by its worst direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.cost_models.fault_tolerant.curvature import Loss
from qcascade.cost_models.fault_tolerant.report import plain
from qcascade.cost_models.fault_tolerant.sparse_training import Method, Schedule, train_sparsely
from qcascade.errors import ExecutionError
from qcascade.studies.batches import accuracy
from qcascade.studies.fault_tolerant import models
from qcascade.studies.fault_tolerant.oracle import read_digits
from qcascade.studies.texts import check_digest

VARIANTS: Mapping[str, tuple[Method, Mapping[str, Any]]] = {
    "dense": ("dense", {}),
    "dense, AdamW": ("adamw", {}),
    "sparse": ("sparse", {}),
    "re-upload": ("reupload", {}),
    "re-upload, exact download": ("reupload", {"noisy": False}),
}
SCHEDULES = {
    "digits": Schedule(600, 100, adamw_rate=3e-3),
    "sst2": Schedule(300, 150, rate=0.03, probes=1, iterations=12, hessian_rows=1),
}


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One run: the key of its record.

    Attributes:
        digest: Of the folder of sentences, so that other data are another run; "" for a task that reads none.
    """

    task: str
    variant: str
    schedule: Schedule
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained, on what."""

    model: nn.Module
    loss: Loss
    batch_of: Callable[[int], Any]
    measured_on: Sequence[Any]
    dev: Callable[[nn.Module], float]
    test: Callable[[nn.Module], float]


def training_runs(task: str, seeds: int, digest: str = "") -> list[TrainingRun]:
    """All variants with every seed, on the data with this digest where the task reads any.

    Raises:
        ExecutionError: The task is unknown.
    """
    if task not in SCHEDULES:
        raise ExecutionError(f"task {task!r} is unknown; choose one of {', '.join(SCHEDULES)}.")
    made, own = [], "" if task == "digits" else digest
    for seed in range(seeds):
        for variant, (_, changes) in VARIANTS.items():
            made.append(TrainingRun(task, variant, replace(SCHEDULES[task], seed=seed, **changes), own))
    return made


def run_training(run: TrainingRun, data: Path | None) -> dict[str, Any]:
    """Train and measure; what goes into the record.

    Raises:
        ExecutionError: The data are missing, cannot be read, or differ from what `run` names.
    """
    task = _digits(run.schedule.seed) if run.task == "digits" else _sentences(data, run)
    done = train_sparsely(
        task.model, task.loss, task.batch_of, task.measured_on, run.schedule, VARIANTS[run.variant][0],
        evaluate=task.dev, every=25,
    )  # fmt: skip
    parameters = sum(p.numel() for p in task.model.parameters())
    result: dict[str, Any] = plain({"run": asdict(done), "test": task.test(task.model), "parameters": parameters})
    return result


def _digits(seed: int) -> Task:
    x, y = read_digits()
    train, dev, test = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).split([1257, 180, 360])
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def batch_of(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed((seed << 32) + step)
        places = train[torch.randint(0, len(train), (64,), generator=generator)]
        return x[places], y[places]

    def right(places: Tensor) -> Callable[[nn.Module], float]:
        return torch.no_grad()(lambda model: 100 * float((model(x[places]).argmax(1) == y[places]).float().mean()))

    return Task(model, loss, batch_of, [(x[train[:256]], y[train[:256]])], right(dev), right(test))


def _sentences(data: Path | None, run: TrainingRun) -> Task:
    if data is None:
        raise ExecutionError("the task sst2 needs a folder of sentences; give --data.")
    check_digest(data, run.digest)
    model, found = models.load("tiny", data, length=24, batch=32, seed=run.schedule.seed)
    dev, test = found.dev, found.test
    return Task(
        model, models.loss, found.batch_of, found.measured(1), lambda m: accuracy(m, dev), lambda m: accuracy(m, test)
    )
