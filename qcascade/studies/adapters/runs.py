"""What a run of the study is: plain settings, equal to those of a finished run where it is done already."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("none", "full", "lora", "sora", "prefix", "amplitude")
TASKS = ("sentences", "language")


@dataclass(frozen=True, slots=True)
class AdapterRun:
    """A model adapted by one method.

    Attributes:
        seed: Of new weights, batches and the part of train.
        task: "sentences" (MiniLM, accuracy) or "language" (a small language model, perplexity).
        method: One of `METHODS`; "none" trains the new head alone, or nothing where there is none.
        size: Rank of LoRA and SoRA, virtual tokens of a prefix, layers of the amplitude adapter's circuit; 0 where there is none.
        rate: Peak learning rate.
        steps: Of training, the same for all methods.
        batch: Sentences, or blocks of words, a step.
        evaluated: Most texts that are scored: test sentences, or blocks of words.
        model: Of the language model: its width; its circuits have log2 of it qubits.
    """

    seed: int
    task: str
    method: str
    size: int
    rate: float
    steps: int
    batch: int
    evaluated: int
    model: int = 0


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A small causal language model and how it is trained from scratch.

    Attributes:
        width: Of its states.
        layers: Decoder layers.
        words: Of its vocabulary.
        length: Words a block.
        steps: Of pretraining.
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
