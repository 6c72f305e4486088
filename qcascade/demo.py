"""The demo: a small transformer classifier and its hybrid, trained side by side on the same batches.

Without data: scikit-learn's digits, 8×8 images as sequences of 64 grey levels. With a folder: train.tsv and test.tsv of
``text<TAB>label``. Printed are the partition report, the time of a training step and the accuracy of both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

import qcascade
from qcascade.errors import QCascadeError
from qcascade.report.units import seconds_text
from qcascade.studies import texts as studies

_BATCH, _PAD = 32, studies.PAD


@dataclass(frozen=True, slots=True)
class Task:
    """Integer sequences [N, n] (0 pads) with labels, to train on and to test on."""

    name: str
    vocabulary: int
    classes: int
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    epochs: int
    features: int  # width of the classifier


class SequenceClassifier(nn.Module):
    """Token and position embeddings, encoder layers, masked mean, a linear head."""

    def __init__(
        self, vocabulary: int, classes: int, length: int, features: int, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, features, padding_idx=_PAD)
        self.position = nn.Embedding(length, features)
        layer = nn.TransformerEncoderLayer(
            features, heads, 2 * features, dropout=0.1, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(features, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, classes] of ids [B, n]."""
        padding = ids == _PAD
        x = self.token(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        x = self.encoder(x, src_key_padding_mask=padding)
        weight = (~padding).unsqueeze(-1).to(x.dtype)
        logits: Tensor = self.head((x * weight).sum(1) / weight.sum(1).clamp_min(1))
        return logits


def run_demo(data: Path | None = None, *, epochs: int | None = None, seed: int = 0) -> None:
    """Train both and print the comparison.

    Raises:
        ExecutionError: `data` lacks a file or holds a line that is not ``text<TAB>label``.
        QCascadeError: scikit-learn is not installed and no data was given.
    """
    console = Console(soft_wrap=True)
    task = digits() if data is None else read_texts(data)
    torch.manual_seed(seed)
    classical = SequenceClassifier(task.vocabulary, task.classes, task.train[0].shape[1], task.features)
    # The re-uploading head learns far slower than the rest (see README); a demo of seconds leaves the head classical.
    hybrid = qcascade.compile(classical, task.train[0][:_BATCH], exclude="head", seed=seed)
    console.print(str(hybrid.plan), highlight=False, markup=False)
    console.print(
        f"\nTraining on {task.name}: {len(task.train[0])} sequences of {task.train[0].shape[1]}, batches of {_BATCH}",
        highlight=False,
    )
    passes = epochs or task.epochs
    rows = []
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for name, model in (("classical", classical), ("hybrid", hybrid)):
            bar = progress.add_task(name, total=passes * (len(task.train[0]) // _BATCH))
            step = _train(model, task, passes, seed, lambda bar=bar: progress.advance(bar))
            parameters = sum(p.numel() for p in model.parameters())
            rows.append((name, step, _accuracy(model, *task.test), parameters))
    for name, step, accuracy, parameters in rows:
        console.print(
            f"{name:<10} test accuracy {accuracy:5.1f} %   training step {seconds_text(step):>8} (median)   {parameters} parameters",
            highlight=False,
        )
    console.print(
        f"a hybrid step takes {rows[1][1] / rows[0][1]:.2f} times as long as a classical one; circuits are simulated exactly",
        highlight=False,
    )


def _train(model: nn.Module, task: Task, epochs: int, seed: int, advance: object) -> float:
    """Train with AdamW; returns the median seconds of a step."""
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = task.train
    count = len(inputs) // _BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * count)
    seconds = []
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(inputs), generator=generator)
        for index in order[: count * _BATCH].split(_BATCH):
            start = time.perf_counter()
            loss = F.cross_entropy(model(_trimmed(inputs[index])), labels[index])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            seconds.append(time.perf_counter() - start)
            if callable(advance):
                advance()
    return median(seconds)


@torch.no_grad()
def _accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    model.eval()
    right = sum(
        int((model(_trimmed(x)).argmax(-1) == y).sum())
        for x, y in zip(inputs.split(128), labels.split(128), strict=True)
    )
    return 100 * right / len(inputs)


def _trimmed(ids: Tensor) -> Tensor:
    """Without columns that only pad."""
    return ids[:, : max(1, int((ids != _PAD).sum(1).max()))]


def digits() -> Task:
    """scikit-learn's 1,797 digits as sequences of 64 grey levels 1 … 17, four fifths to train on."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise QCascadeError(
            "the demo's digits come with scikit-learn; install qcascade[demo], or give --data DIR."
        ) from error
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images).long() + 1, torch.tensor(labels)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    inputs, targets = inputs[order], targets[order]
    cut = len(inputs) * 4 // 5
    return Task("digits", 18, 10, (inputs[:cut], targets[:cut]), (inputs[cut:], targets[cut:]), epochs=10, features=64)


def read_texts(folder: Path, length: int = 32) -> Task:
    """Sentences of a folder's train.tsv and test.tsv, split at blanks, cut to `length` words.

    The vocabulary is train's.
    """
    texts = studies.read_texts(folder, dev_share=0.0)
    words, train, _, test = studies.encode(texts, length)
    return Task(
        texts.name,
        len(words),
        len(texts.classes),
        (train.ids, train.labels),
        (test.ids, test.labels),
        epochs=2,
        features=128,
    )
