"""MiniLM on labelled sentences, adapted by one method: accuracy, with the curve of the loss and of dev.

The classifier is the masked mean of the last layer, dropout and a linear head, which every method trains.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qcascade.studies.adapters.memory import training_bytes
from qcascade.studies.adapters.methods import Adapted, adapt
from qcascade.studies.adapters.runs import PARTS, AdapterRun, texts_of
from qcascade.studies.batches import accuracy, classification_loss, shuffled
from qcascade.studies.minilm import Encoder, SentenceClassifier, mean_pooled, tokenize
from qcascade.studies.texts import PAD, Coded
from qcascade.studies.training import Protocol, Training, train

PROJECTIONS = ("query", "value")
_HEAD_RATE = 1e-3  # of the new linear head, whatever the method


class Pooled(nn.Module):
    """Sentence embeddings [B, d] of ids [B, n], by a model that gives last_hidden_state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings; id 0 pads."""
        mask = (ids != PAD).long()
        return mean_pooled(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)


def measure(run: AdapterRun, data: Path, device: str = "cpu") -> Mapping[str, Any]:
    """Adapt and score; what a record of the study holds. Figures of test are written down and choose nothing."""
    train_, dev, test, classes = _read(data, run.digest)
    torch.manual_seed(run.seed)
    model, adapted = classifier(run, train_.ids[:4], classes, Encoder().model)
    model.to(device)
    texts = _some(train_, run.steps * run.batch, run.seed)
    dev_part, test_part = _some(dev, run.evaluated, 0), _some(test, run.evaluated, 0)  # the same for all runs
    start = time.perf_counter()
    training = fit(run, model, adapted, texts, dev_part)
    wall = time.perf_counter() - start
    model.train()
    return {
        "parameters": adapted.trained,
        "head_parameters": sum(p.numel() for p in model.head.parameters()),
        "dev": training.epochs[-1].scores["dev"],
        "test": accuracy(model, test_part),
        "dev_curve": [epoch.scores["dev"] for epoch in training.epochs],
        **curves_of(training),
        "memory": training_bytes(model, lambda: classification_loss(model, next(shuffled(texts, run.batch, draw())))),
        "wall_seconds": round(wall, 1),
        "texts": len(texts),
        "scored": [len(dev_part), len(test_part)],
    }


def classifier(run: AdapterRun, ids: Tensor, classes: int, encoder: Any) -> tuple[SentenceClassifier, Adapted]:
    """A classifier on an encoder adapted by the run's method; ids [B, n] are an example."""
    if run.method == "amplitude":  # the pooling is captured with it, so that its input is ids alone
        adapted = adapt(Pooled(encoder), run.method, run.size, PROJECTIONS, {"ids": ids}, "")
        pooled = adapted.model
    else:
        example = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
        adapted = adapt(encoder, run.method, run.size, PROJECTIONS, example, "FEATURE_EXTRACTION")
        pooled = Pooled(adapted.model)
    return SentenceClassifier(pooled, classes, encoder.config.hidden_size), adapted


def fit(run: AdapterRun, model: SentenceClassifier, adapted: Adapted, texts: Coded, dev: Coded) -> Training:
    """The studies' loop, in parts so that dev gives a curve."""
    batches = _parted(texts, run.batch)
    steps = run.steps // PARTS
    protocol = Protocol(PARTS, run.batch, run.rate, seed=run.seed)
    head = {"params": list(model.head.parameters()), "scale": _HEAD_RATE / run.rate}
    groups = [*(group for group in adapted.groups if group["params"]), head]
    return train(
        model,
        lambda generator: batches(generator, steps),
        steps,
        classification_loss,
        protocol,
        evaluate=lambda model: {"dev": accuracy(model, dev)},
        groups=groups,
        measure=adapted.after_step,
    )


def curves_of(training: Training) -> dict[str, Any]:
    """Loss of every step, seconds of a step, as records hold them."""
    seconds = sorted(step.seconds for step in training.steps)
    found: dict[str, Any] = {
        "loss": [round(step.loss, 4) for step in training.steps],
        "seconds": round(training.seconds, 2),
        "step_seconds": seconds[len(seconds) // 2],
    }
    if training.steps[-1].extra:
        found["gates_left"] = training.steps[-1].extra[0]
    return found


def _parted(texts: Coded, batch: int) -> Any:
    """Batches of one pass over the texts, handed out in parts; a new pass starts where one ends."""
    held: list[Iterator[Coded]] = []

    def part(generator: torch.Generator, steps: int) -> Iterator[Coded]:
        for _ in range(steps):
            if not held:
                held.append(shuffled(texts, batch, generator))
            found = next(held[0], None)
            if found is None:
                held[0] = shuffled(texts, batch, generator)
                found = next(held[0])
            yield found

    return part


def draw() -> torch.Generator:
    """The same draw for all runs."""
    return torch.Generator().manual_seed(0)


def _some(data: Coded, count: int, seed: int) -> Coded:
    """At most so many texts, a seeded draw."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[: count or None]
    return Coded(data.ids[order], data.labels[order])


@cache
def _read(data: Path, digest: str) -> tuple[Coded, Coded, Coded, int]:
    texts = texts_of(data, digest)
    train_, dev, test = (tokenize(texts, split) for split in (texts.train, texts.dev, texts.test))
    return train_, dev, test, len(texts.classes)
