"""What a zoo entry is: how to build the model, what to call it with, and how many regions its configuration implies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Callable[[int, int], dict[str, Tensor]]  # batch, length -> keyword arguments

VOCABULARY = 99


@dataclass(frozen=True, slots=True)
class Entry:
    """One architecture.

    `attentions` are the self-attention blocks that run in a forward pass and `crossed` the attentions over something else,
    both counted by hand from the configuration beside them. Token embeddings are counted by running the model (`truth`).
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Inputs
    attentions: int = 0
    crossed: int = 0
    lengths: tuple[int, int] = (8, 11)  # of the example, and of another call
    batches: tuple[int, int] = (2, 3)
    rung: str | None = None  # the rung that is expected, where it is not "export"
    representative: bool = False  # in `make test`
    input_gradients: bool = True  # False: the model's own forward refuses inputs that take gradients
    unrolled: bool = False  # its code loops over the length, so that the graph has the example's only


def text(batch: int, length: int) -> dict[str, Tensor]:
    """Ids and a mask that masks something."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, -2:] = 0
    return {"input_ids": torch.randint(3, VOCABULARY, (batch, length)), "attention_mask": mask}


def ids(batch: int, length: int) -> dict[str, Tensor]:
    """Ids alone."""
    return {"input_ids": torch.randint(3, VOCABULARY, (batch, length))}


def pairs(batch: int, length: int) -> dict[str, Tensor]:
    """Ids for an encoder and for a decoder."""
    return {**text(batch, length), "decoder_input_ids": torch.randint(3, VOCABULARY, (batch, length - 2))}


def image(size: int, channels: int = 3) -> Inputs:
    """Images of one size."""
    return lambda batch, length: {"pixel_values": torch.randn(batch, channels, size, size)}


def wave(samples: int) -> Inputs:
    """Sound; the length grows with the entry's."""
    return lambda batch, length: {"input_values": torch.randn(batch, samples + 40 * length)}


def text_and_image(size: int) -> Inputs:
    """A sentence and an image an example."""
    return lambda batch, length: {**text(batch, length), "pixel_values": torch.randn(batch, 3, size, size)}


def hugging_face(kind: str, config: str, options: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """A model of transformers with random weights, by the names of its class and its configuration."""

    def build() -> nn.Module:
        import transformers

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: nn.Module = getattr(transformers, kind)(getattr(transformers, config)(**options))
        return made

    return build
