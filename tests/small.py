"""The smallest hybrid of an embedding and a head, shared by tests of what runs circuits."""

from __future__ import annotations

from torch import Tensor, nn

EMBEDDING_AND_HEAD = {
    "random_circuit_embedding": {"qubits": 2, "layers": 1},
    "reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1},
}


class Words(nn.Module):
    """Embedding, mean, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(300, 8), nn.Linear(8, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1))
