"""What a run of the study is: plain settings, equal to those of a finished run where it is done already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qcascade.errors import ExecutionError
from qcascade.studies.texts import Texts, check_digest, read_texts

METHODS = ("none", "full", "lora", "sora", "prefix", "amplitude")
TASKS = ("sentences", "language")
PARTS = 4  # dev is scored after each of so many equal parts of the steps


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A small causal language model and how it is trained from scratch.

    Attributes:
        width: Of its states; its circuits have log2 of it qubits.
        layers: Decoder layers.
        words: Of its vocabulary.
        length: Words a block.
        steps: Of pretraining; a multiple of `PARTS`.
        batch: Blocks a step.
        rate: Peak learning rate.
    """

    width: int = 64
    layers: int = 2
    words: int = 4000
    length: int = 64
    steps: int = 600
    batch: int = 16
    rate: float = 3e-3

    def __post_init__(self) -> None:
        _check_steps(self.steps)


@dataclass(frozen=True, slots=True)
class AdapterRun:
    """A model adapted by one method.

    Attributes:
        seed: Of new weights, batches and the part of train.
        task: "sentences" (MiniLM, accuracy) or "language" (a small language model, perplexity).
        method: One of `METHODS`; "none" trains the new head alone, or nothing where there is none.
        size: Rank of LoRA and SoRA, virtual tokens of a prefix, layers of the amplitude adapter's circuit; 0 where there is none.
        rate: Peak learning rate.
        steps: Of training, the same for all methods; a multiple of `PARTS`.
        batch: Sentences, or blocks of words, a step.
        evaluated: Most texts that are scored: test sentences, or blocks of words.
        data: Name of the folder.
        digest: Of its files, so that other data under the same name is another run.
        language: The language model that is adapted; None for sentences.
    """

    seed: int
    task: str
    method: str
    size: int
    rate: float
    steps: int
    batch: int
    evaluated: int
    data: str
    digest: str
    language: LanguageModel | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ExecutionError(f"task={self.task!r} is unknown; choose one of {', '.join(TASKS)}.")
        if (self.language is None) != (self.task == "sentences"):
            raise ExecutionError(
                f"task={self.task!r} with language={self.language}: only 'language' has a language model."
            )
        _check_steps(self.steps)


def texts_of(folder: Path, digest: str) -> Texts:
    """A run's data.

    Raises:
        ExecutionError: The folder holds other data now, or no data.
    """
    check_digest(folder, digest)
    return read_texts(folder)


def _check_steps(steps: int) -> None:
    if steps < PARTS or steps % PARTS:
        raise ExecutionError(f"steps={steps} must be a multiple of {PARTS}: dev is scored after each quarter of them.")
