"""Sentence embeddings of a folder of texts, computed once and kept: of MiniLM as it is, and fine-tuned on train.

Out: `Embedded`, float32 [N, 384] and labels [N] of train, dev and test, in a file that the data's digest names. Fine-tuned: all of
MiniLM with a linear head for one epoch of train; the embeddings are those under that head. One encoder serves all seeds of the heads,
and its train embeddings have seen their own labels. Refused: data without dev.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qcascade.errors import ExecutionError
from qcascade.studies.batches import classification_loss
from qcascade.studies.minilm import Encoder, SentenceClassifier, embed, epoch_of, tokenize
from qcascade.studies.texts import check_digest, read_texts
from qcascade.studies.training import Protocol, train

KINDS = ("frozen", "tuned")
TUNING = Protocol(epochs=1, batch=32, rate=5e-5, seed=0)
_HEAD_SCALE = 10.0  # the new head's rate over the encoder's


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings and labels of a task."""

    train: tuple[Tensor, Tensor]
    dev: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int

    def part(self, seed: int, share: float, most: int = 0) -> tuple[Tensor, Tensor]:
        """A seed's own part of train: a random share of it, at most so many texts (0: no bound)."""
        chosen = part_of(len(self.train[1]), seed, share)[: most or None]
        return self.train[0][chosen], self.train[1][chosen]


def part_of(count: int, seed: int, share: float) -> Tensor:
    """Places of a seed's own part of so many texts: a random share of them."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: max(1, round(share * count))]


def file_of(cache: Path, kind: str, digest: str) -> Path:
    """Where embeddings of the data with this digest are kept.

    Example:
        >>> file_of(Path("checkpoints"), "frozen", "33d180b89cf8").name
        'frozen-33d180b89cf8.pt'
    """
    return cache / f"{kind}-{digest}.pt"


def compute(data: Path, cache: Path, kind: str, digest: str, device: str = "cpu") -> None:
    """Write a folder's embeddings to their file, unless they are there.

    Raises:
        ExecutionError: `kind` is unknown, the data cannot be used, or they differ from the digest.
        QCascadeError: MiniLM is not installed.
    """
    if kind not in KINDS:
        raise ExecutionError(f"embeddings={kind!r} are unknown; choose {' or '.join(KINDS)}.")
    texts, file = read_texts(data, needs_dev=True), file_of(cache, kind, digest)
    check_digest(data, digest)
    if file.is_file():
        return
    splits = {name: tokenize(texts, getattr(texts, name)) for name in ("train", "dev", "test")}
    torch.manual_seed(TUNING.seed)
    encoder = Encoder().to(device)
    if kind == "tuned":
        model = SentenceClassifier(encoder, len(texts.classes)).to(device)
        groups: list[dict[str, Any]] = [
            {"params": list(encoder.parameters())},
            {"params": list(model.head.parameters()), "scale": _HEAD_SCALE},
        ]
        train(model, *epoch_of(splits["train"], TUNING.batch), classification_loss, TUNING, groups=groups)
    held: dict[str, Tensor | int] = {"classes": len(texts.classes)}
    for name, coded in splits.items():
        held[name], held[f"{name}_labels"] = embed(encoder, coded), coded.labels
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(held, partial)
    partial.replace(file)


@cache
def load(file: Path) -> Embedded:
    """Read what `compute` wrote.

    Raises:
        ExecutionError: The file is missing or not one of ours.
    """
    try:
        held = torch.load(file, weights_only=True)
        train_, dev, test = ((held[name], held[f"{name}_labels"]) for name in ("train", "dev", "test"))
        return Embedded(train_, dev, test, held["classes"])
    except (OSError, RuntimeError, KeyError, EOFError) as error:
        raise ExecutionError(
            f"{file} holds no embeddings ({error}); delete it, and they are computed again."
        ) from error
