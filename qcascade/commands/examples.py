"""Labelled examples of a folder, as batches for a model.

``train.npz`` holds arrays named like the arguments of the model's forward, and ``labels`` (integers: cross-entropy). ``train.tsv`` holds
``text<TAB>label``; words are numbered by frequency, as the demo does, and numbers beyond the model's first embedding count as unknown: this
suits an untrained reference encoder, not a pretrained one, whose own tokens belong in a train.npz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.errors import ExecutionError

Batch = tuple[Mapping[str, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs by name ("" for the first positional argument), labels, and how to cut them."""

    inputs: Mapping[str, Tensor]
    labels: Tensor
    batch: int
    seed: int

    def batch_of(self, step: int) -> Batch:
        """Random examples, the same for the same step."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        return self._chosen(torch.randint(0, len(self.labels), (self.batch,), generator=generator))

    def first(self, count: int) -> list[Batch]:
        """The first `count` batches in order."""
        places = torch.arange(min(len(self.labels), count * self.batch)).split(self.batch)
        return [self._chosen(p) for p in places]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of the model's output, or of its `logits`."""
        inputs, labels = batch
        out: Any = model(*[v for k, v in inputs.items() if not k], **{k: v for k, v in inputs.items() if k})
        return F.cross_entropy(out if isinstance(out, Tensor) else out.logits, labels)

    def _chosen(self, places: Tensor) -> Batch:
        return {name: value[places] for name, value in self.inputs.items()}, self.labels[places]


def read_examples(folder: Path, model: nn.Module, batch: int, seed: int) -> Examples:
    """Read train.npz, else train.tsv.

    Raises:
        ExecutionError: Neither is there, or what is there cannot be used.
    """
    arrays, texts = folder / "train.npz", folder / "train.tsv"
    if arrays.is_file():
        with np.load(arrays, allow_pickle=False) as found:
            tensors = {name: torch.from_numpy(found[name]) for name in found.files}
        labels = tensors.pop("labels", None)
        if labels is None or not tensors or any(len(t) != len(labels) for t in tensors.values()):
            raise ExecutionError(f"{arrays} needs an array labels and at least one input, all of one length.")
        return Examples(tensors, labels.long(), batch, seed)
    if not texts.is_file():
        raise ExecutionError(f"{folder} has neither train.npz nor train.tsv; one of them is needed.")
    from qcascade.demo import read_texts

    table = next((m for m in model.modules() if isinstance(m, nn.Embedding)), None)
    if table is None:
        raise ExecutionError(f"{texts} is text, and the model has no embedding for words; give a train.npz.")
    ids, labels = read_texts(folder).train
    ids = torch.where(ids < table.num_embeddings, ids, torch.ones_like(ids))
    return Examples({"": ids}, labels, batch, seed)
