"""One quantum run: a head trained on a seed's part of train, scored on dev after every epoch, on dev and test after the last.

A run whose loss is no longer finite has no scores; it is recorded as diverged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.studies.head.embeddings import Embedded, file_of, load
from qcascade.studies.head.inputs import prepare
from qcascade.studies.head.runs import QuantumRun
from qcascade.studies.head.variants import HeadVariant
from qcascade.studies.training import DivergedError, Protocol, Training, train

Pairs = tuple[Tensor, Tensor]
_EVALUATED = 512  # sentences at a time


def measure(run: QuantumRun, cache: Path) -> Mapping[str, Any]:
    """Train and score; what a record of the study holds. Figures of test are written down and choose nothing."""
    head, splits = build(run, load(file_of(cache, run.embeddings, run.digest)))
    shape = {
        "parameters": head.trained(),
        "texts": len(splits["train"][1]),
        "test_texts": len(splits["test"][1]),
        "encoder_circuits": int(head.encoder_angles.shape[0]),
    }
    try:
        training = fit(head, splits, run)
    except DivergedError as error:
        return {**shape, **diverged(error)}
    return {
        **shape,
        "dev": percent_right(head, *splits["dev"]),
        "test": percent_right(head, *splits["test"]),
        "dev_by_epoch": [round(epoch.scores["dev"], 3) for epoch in training.epochs],
        "loss_by_epoch": [round(epoch.loss, 4) for epoch in training.epochs],
        "seconds": round(training.seconds, 2),
        "step_seconds": median(step.seconds for step in training.steps),
    }


def diverged(error: DivergedError) -> dict[str, Any]:
    """What a record holds in place of scores."""
    return {"dev": None, "test": None, "diverged": str(error)}


def build(run: QuantumRun, data: Embedded) -> tuple[HeadVariant, dict[str, Pairs]]:
    """The head as it starts, and what it loads for train (the seed's part), dev and test.

    Raises:
        ExecutionError: A setting is not accepted.
    """
    rows, labels = data.part(run.seed, run.share, run.texts)
    form = prepare(run.inputs, rows)
    splits = {
        "train": (form(rows), labels),
        "dev": (form(data.dev[0]), data.dev[1]),
        "test": (form(data.test[0]), data.test[1]),
    }
    torch.manual_seed(run.seed)
    head = HeadVariant(
        splits["train"][0].shape[1],
        data.classes,
        qubits=run.qubits,
        uploads=run.uploads,
        blocks=run.blocks,
        offsets=run.offsets,
        encoders=run.encoders,
        without=run.without,
        entangler=run.entangler,
    )
    with torch.no_grad():
        for angles in (head.encoder_angles, head.angles):
            angles.uniform_(-run.start, run.start)
    if run.warm:
        warm_start(head, *splits["train"], data.classes)
    return head, splits


def fit(head: HeadVariant, splits: Mapping[str, Pairs], run: QuantumRun) -> Training:
    """Train a head in place.

    Raises:
        DivergedError: The loss is no longer finite.
    """
    protocol = Protocol(run.epochs, run.batch, run.rate, decay=0.0, seed=run.seed)  # angles have no origin to decay to
    return train_on(head, splits["train"], splits["dev"], protocol)


def train_on(model: nn.Module, pairs: Pairs, dev: Pairs, protocol: Protocol) -> Training:
    """The studies' loop on rows and labels; dev's accuracy is written down after every epoch."""
    count = len(pairs[1]) // protocol.batch if len(pairs[1]) >= protocol.batch else 1

    def batches(generator: torch.Generator) -> Iterator[Pairs]:
        order = torch.randperm(len(pairs[1]), generator=generator)
        for places in order[: count * protocol.batch].split(protocol.batch):
            yield pairs[0][places], pairs[1][places]

    def loss(model: nn.Module, batch: Pairs) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    return train(model, batches, count, loss, protocol, evaluate=lambda model: {"dev": percent_right(model, *dev)})


@torch.no_grad()
def warm_start(head: HeadVariant, rows: Tensor, labels: Tensor, classes: int, most: int = 2048) -> None:
    """Set the linear layer to the least-squares fit of ±1 for the labels on the circuits as they are."""
    features = head.circuit_features(rows[:most])
    design = F.pad(features, (0, 1), value=1.0).double()
    wanted = 2.0 * F.one_hot(labels[:most], classes).double() - 1
    solution = torch.linalg.lstsq(design, wanted).solution
    head.readout.weight.copy_(solution[:-1].T)
    head.readout.bias.copy_(solution[-1])


@torch.no_grad()
def percent_right(model: nn.Module, rows: Tensor, labels: Tensor) -> float:
    """Per cent of rows whose largest logit is the label's."""
    training = model.training
    model.eval()
    right = sum(
        int((model(x).argmax(-1) == y).sum())
        for x, y in zip(rows.split(_EVALUATED), labels.split(_EVALUATED), strict=True)
    )
    model.train(training)
    return 100 * right / len(labels)


def seconds_of(start: float) -> float:
    """Since `start`, rounded."""
    return round(time.perf_counter() - start, 2)
