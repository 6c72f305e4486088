"""What is known of a found region, in plain numbers.

All a kernel needs to say what it would take to stand in for it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionFacts:
    """Self-attention: query, key, value and output projections around softmax(QKᵀ)V."""

    features: int  # width of the input and the output
    heads: int
    head_dim: int
    batch: int  # of the example
    sequence_length: int  # of the example
    max_length: int | None  # longest sequence the model accepts, where its graph says so
    causal: bool = False
    masked: bool = False  # takes a key mask
    rotary: bool = False
    dropout: float = 0.0

    pattern = "attention"


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """A table looked up by integer ids."""

    vocabulary: int
    features: int
    batch: int
    sequence_length: int
    padding_index: int | None = None
    tied_to: str | None = None  # name of another parameter path that shares the table

    pattern = "embedding"


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """The last linear layer, one row of logits an example."""

    in_features: int
    out_features: int
    rows: int  # of the example
    bias: bool = True

    pattern = "head"


@dataclass(frozen=True, slots=True)
class LinearFacts:
    """A linear projection."""

    in_features: int
    out_features: int
    rows: int  # of the example, batch and sequence together
    bias: bool = True

    pattern = "linear"


RegionFacts = AttentionFacts | EmbeddingFacts | HeadFacts | LinearFacts
