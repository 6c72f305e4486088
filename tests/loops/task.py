"""What the loops train: a tiny classifier whose embedding, attention and head run as kernels, and a separable task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import qcascade
from qcascade.hybrid import HybridModule

VOCABULARY, LENGTH, CLASSES = 64, 6, 2
KERNELS = {
    "random_circuit_embedding": {"qubits": 3, "layers": 1, "rotations": 1},
    "amplitude_attention_pooling": {"slots": 2, "layers": 1},
    "reuploading_head": {"qubits": 3, "uploads": 1},
}


class Classifier(nn.Module):
    """Embedding, one encoder layer with dropout, mean, head."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=dropout, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(ids)).mean(1))


def make(dropout: float = 0.1) -> HybridModule:
    """The hybrid; all three kernels must be in it, or the loops would prove nothing."""
    torch.manual_seed(0)
    hybrid = qcascade.compile(Classifier(dropout), torch.zeros(2, LENGTH, dtype=torch.long), kernels=KERNELS)
    assert set(hybrid.kernels) == {"embed", "layer.self_attn", "head"}, str(hybrid.plan)
    return hybrid.train()


def data(rows: int = 64) -> tuple[Tensor, Tensor]:
    """Sentences whose class says which half of the vocabulary most of their tokens are from."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(rows) % CLASSES
    ids = torch.randint(0, VOCABULARY // 2, (rows, LENGTH), generator=generator)
    return ids + labels[:, None] * (VOCABULARY // 2), labels
