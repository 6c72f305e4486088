"""Batches of coded texts of like lengths, each trimmed to its longest; accuracy of a classifier on them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.studies.texts import PAD, UNKNOWN, Coded

_JITTER = 3.0  # words: lengths are like, and yet neighbours change from epoch to epoch
_EVALUATED = 128  # texts at a time


def shuffled(data: Coded, size: int, generator: torch.Generator, word_dropout: float = 0.0) -> Iterator[Coded]:
    """An epoch of batches, every text once.

    Args:
        data: What to draw from, on the CPU.
        size: Texts a batch; the last one may have fewer.
        generator: Draws the order, and the words dropped.
        word_dropout: Share of words that are replaced by the unknown one.
    """
    lengths = (data.ids != PAD).sum(1)
    keys = lengths + _JITTER * torch.rand(len(data), generator=generator)
    groups = keys.argsort().split(size)
    for place in torch.randperm(len(groups), generator=generator).tolist():
        batch = _trimmed(data, groups[place])
        if word_dropout:
            dropped = torch.rand(batch.ids.shape, generator=generator) < word_dropout
            batch = Coded(batch.ids.masked_fill(dropped & (batch.ids != PAD), UNKNOWN), batch.labels)
        yield batch


def count_batches(data: Coded, size: int) -> int:
    """Batches of an epoch."""
    return -(-len(data) // size)


def classification_loss(model: nn.Module, batch: Coded) -> Tensor:
    """Cross-entropy of logits, on the model's device."""
    device = next(model.parameters()).device
    return F.cross_entropy(model(batch.ids.to(device)), batch.labels.to(device))


@torch.no_grad()
def accuracy(model: nn.Module, data: Coded) -> float:
    """Per cent right, in evaluation mode; the mode is then what it was."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    right = 0
    for places in (data.ids != PAD).sum(1).argsort().split(_EVALUATED):
        batch = _trimmed(data, places)
        right += int((model(batch.ids.to(device)).argmax(-1).cpu() == batch.labels).sum())
    model.train(training)
    return 100 * right / len(data)


def _trimmed(data: Coded, places: Tensor) -> Coded:
    """Some texts, without columns that only pad."""
    ids = data.ids[places]
    return Coded(ids[:, : max(1, int((ids != PAD).sum(1).max()))], data.labels[places])
