"""Labelled texts: a folder's train.tsv, dev.tsv and test.tsv of ``text<TAB>label``, a vocabulary of words, padded numbers.

Where there is no dev.tsv, a seeded share of train is held back for it, the same whatever else is chosen. A vocabulary is made of train
alone; words are split at blanks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qcascade.errors import ExecutionError

PAD, UNKNOWN = 0, 1
DEV_SHARE = 0.125


@dataclass(frozen=True, slots=True)
class Split:
    """Texts with their labels."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, places: Iterable[int]) -> Split:
        """Some of them, in that order."""
        chosen = list(places)
        return Split(tuple(self.texts[i] for i in chosen), tuple(self.labels[i] for i in chosen))


@dataclass(frozen=True, slots=True)
class Texts:
    """A task: what is trained on, what settings are chosen by, and what is reported."""

    name: str
    train: Split
    dev: Split
    test: Split
    classes: tuple[str, ...]  # labels in order; a label's place is its number

    def numbers(self, split: Split) -> Tensor:
        """Labels [N] as numbers."""
        return torch.tensor([self.classes.index(label) for label in split.labels])


@dataclass(frozen=True, slots=True)
class Coded:
    """Word numbers [N, n], padded with 0 behind, and labels [N]."""

    ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Numbers of words: 0 pads, 1 is unknown, frequent words come first."""

    numbers: Mapping[str, int]

    @classmethod
    def of(cls, texts: Iterable[str], most: int | None = None) -> Vocabulary:
        """The words of texts, at most so many of the most frequent ones.

        Example:
            >>> Vocabulary.of(["a b", "b"]).numbers
            {'b': 2, 'a': 3}
        """
        counts = Counter(word for text in texts for word in text.split())
        return cls({word: number + 2 for number, (word, _) in enumerate(counts.most_common(most))})

    def __len__(self) -> int:
        """Rows that an embedding needs."""
        return len(self.numbers) + 2

    def encode(self, texts: Iterable[str], length: int | None = None) -> Tensor:
        """Numbers [N, n] of texts, each cut to `length` words and padded to the longest.

        Example:
            >>> Vocabulary.of(["a b", "b"]).encode(["b a", "c"])
            tensor([[2, 3],
                    [1, 0]])
        """
        rows = [torch.tensor([self.numbers.get(word, UNKNOWN) for word in text.split()[:length]]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def read_texts(folder: Path, *, dev_share: float = DEV_SHARE, seed: int = 0, needs_dev: bool = False) -> Texts:
    """Read a folder.

    Args:
        folder: Holds train.tsv, test.tsv and, unless a part of train is to be held back, dev.tsv.
        dev_share: Part of train that is held back where there is no dev.tsv; 0 leaves dev empty.
        seed: Which part.
        needs_dev: Refuse a folder too small to hold any of train back.

    Raises:
        ExecutionError: A file is missing or empty, a line is not ``text<TAB>label``, train has one label alone, dev or test has one
            that train has not, or dev is empty where it is needed.
    """
    train, test = read_split(folder / "train.tsv"), read_split(folder / "test.tsv")
    classes = tuple(sorted({*train.labels}))
    if (folder / "dev.tsv").is_file():
        dev = read_split(folder / "dev.tsv")
    else:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
        held = round(dev_share * len(train))
        train, dev = train.at(sorted(order[held:])), train.at(sorted(order[:held]))
    if needs_dev and not len(dev):
        raise ExecutionError(
            f"{folder} has nothing for dev, by which settings are chosen and training is followed; add dev.tsv, or give train.tsv at "
            "least 5 texts."
        )
    if len(classes) == 1:
        raise ExecutionError(
            f"{folder / 'train.tsv'} has one label alone ({classes[0]!r}); there is nothing to tell apart."
        )
    for name, split in (("dev", dev), ("test", test)):
        _check_labels(folder / f"{name}.tsv", split, classes)
    return Texts(folder.name, train, dev, test, classes)


def _check_labels(file: Path, split: Split, classes: tuple[str, ...]) -> None:
    for number, label in enumerate(split.labels, 1):
        if label not in classes:
            raise ExecutionError(
                f"{file}, line {number}: the label {label!r} is none of train's ({', '.join(classes[:10])}); write labels alike."
            )


def digest_of(folder: Path) -> str:
    """A folder's content: of the .tsv files that `read_texts` reads; a missing one counts as empty.

    It belongs to a run's settings, so that other data are another run.
    """
    content = hashlib.sha256()
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        file = folder / name
        content.update(hashlib.sha256(file.read_bytes() if file.is_file() else b"").digest())
    return content.hexdigest()[:12]


def check_digest(folder: Path, digest: str) -> None:
    """Refuse a folder whose content has changed since a run was made of it.

    Raises:
        ExecutionError: It has another digest.
    """
    if digest_of(folder) != digest:
        raise ExecutionError(f"{folder} no longer holds the data of this run; start the command again.")


def read_split(file: Path) -> Split:
    """Read one file of ``text<TAB>label``.

    Raises:
        ExecutionError: See `read_texts`.
    """
    try:
        lines = (
            file.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
        )  # texts may hold other ends of lines
    except OSError as error:
        raise ExecutionError(
            f"{file} cannot be read ({error.strerror}); the folder must hold train.tsv and test.tsv."
        ) from error
    except UnicodeDecodeError as error:
        raise ExecutionError(f"{file} is not UTF-8 ({error.reason}); convert it.") from error
    texts, labels = [], []
    for number, line in enumerate(lines if lines != [""] else (), 1):
        text, tab, label = line.removesuffix("\r").rpartition("\t")
        if not tab or not text.strip() or not label:
            raise ExecutionError(f"{file}, line {number} is not text<TAB>label.")
        texts.append(text)
        labels.append(label)
    if not texts:
        raise ExecutionError(f"{file} is empty; give one text<TAB>label a line.")
    if len(texts) > 2 and labels[0] not in labels[1:] and len(texts[0].split()) == 1:
        raise ExecutionError(
            f"{file}, line 1 ({texts[0]!r} with the label {labels[0]!r}, which no other line has) looks like a head of columns; "
            "delete the line."
        )
    return Split(tuple(texts), tuple(labels))


def encode(texts: Texts, length: int, most: int | None = None) -> tuple[Vocabulary, Coded, Coded, Coded]:
    """The vocabulary of train, and train, dev and test in its numbers."""
    words = Vocabulary.of(texts.train.texts, most)
    coded = [
        Coded(words.encode(split.texts, length), texts.numbers(split))
        if len(split)
        else Coded(*torch.empty(2, 0).long())
        for split in (texts.train, texts.dev, texts.test)
    ]
    return words, coded[0], coded[1], coded[2]
