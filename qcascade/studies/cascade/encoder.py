"""The study's encoder: word and position embeddings, pre-norm layers, masked mean, linear head. Ids [B, n] in, logits [B, c] out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qcascade.errors import ExecutionError
from qcascade.studies.texts import PAD


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of an encoder.

    Attributes:
        hidden: Width of a layer's feed-forward network.
        length: Longest sequence, in words.

    Example:
        >>> Size(features=1024, heads=16, hidden=5120, layers=6, length=512)  # the source's: 121M parameters with 30,522 words
        Size(features=1024, heads=16, hidden=5120, layers=6, length=512)
    """

    features: int = 128
    heads: int = 4
    hidden: int = 512
    layers: int = 6
    length: int = 64

    def __post_init__(self) -> None:
        if min(self.features, self.heads, self.hidden, self.layers, self.length) < 1 or self.features % self.heads:
            raise ExecutionError(f"{self}: all sizes must be at least 1, and features a multiple of heads.")


SIZES = {"small": Size(), "reference": Size(1024, 16, 5120)}  # for a CPU; the source's


class Encoder(nn.Module):
    """A classifier of word numbers; 0 pads.

    Args:
        vocabulary: Rows of the embedding.
        classes: Logits.
        size: See there.
        dropout: After the embedding and on what every block of a layer adds and its hidden units; attention weights are not dropped.

    Example:
        >>> Encoder(50, 2, Size(features=16, hidden=32, layers=1, length=8))(torch.tensor([[3, 4, 0]])).shape
        torch.Size([1, 2])
    """

    def __init__(self, vocabulary: int, classes: int, size: Size, dropout: float = 0.1) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, size.features, padding_idx=PAD)
        self.position = nn.Parameter(0.02 * torch.randn(size.length, size.features))
        self.norm, self.dropout = nn.LayerNorm(size.features), nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                size.features, size.heads, size.hidden, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(size.layers)
        )
        for layer in self.layers:  # torch's fused attention takes no dropout on a CPU, and is several times faster
            assert isinstance(layer, nn.TransformerEncoderLayer)
            layer.self_attn.dropout = 0.0
        self.last, self.head = nn.LayerNorm(size.features), nn.Linear(size.features, classes)
        with torch.no_grad():
            self.token.weight.mul_(0.02)  # BERT's spread, and the padding's row stays 0

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, c] of ids [B, n]."""
        padding = ids == PAD
        x = self.dropout(self.norm(self.token(ids) + self.position[: ids.shape[1]]))
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        weight = (~padding).unsqueeze(-1).to(x.dtype)
        logits: Tensor = self.head((self.last(x) * weight).sum(1) / weight.sum(1).clamp_min(1))
        return logits
