"""Plain torch models, each with something that a compiler may stumble on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .entries import VOCABULARY, Entry, Inputs


def _floats(*shape: int, name: str = "x") -> Inputs:
    return lambda batch, length: {name: torch.randn(batch, *shape)}


def _sequence(width: int) -> Inputs:
    return lambda batch, length: {"x": torch.randn(batch, length, width)}


def _tokens(batch: int, length: int) -> dict[str, Tensor]:
    return {"ids": torch.randint(0, VOCABULARY, (batch, length))}


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](self.first(x)).relu()
        return (x + self.norms[1](self.second(y))).relu()


class ResNet(nn.Module):
    """Convolutions, batch-norm, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 3), nn.Sequential(_Residual(8), _Residual(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class UNet(nn.Module):
    """Down, up, and a bridge."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.low = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(9, 1, 1)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        """An image."""
        y = self.low(F.gelu(self.norm(self.down(x))))
        return self.last(torch.cat((self.up(y), x), 1))


class LSTMTagger(nn.Module):
    """Recurrence, results nested."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(VOCABULARY, 16), nn.LSTM(16, 12, 2, batch_first=True, dropout=0.2)
        self.tag = nn.Linear(12, 5)

    def forward(self, ids: Tensor) -> dict[str, object]:
        """Tags, and the state."""
        y, (h, c) = self.lstm(self.embed(ids))
        return {"tags": self.tag(y), "state": (h, c)}


class GRUClassifier(nn.Module):
    """Recurrence both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(6, 8, bidirectional=True, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.gru(x)[0][:, -1])


class GraphNet(nn.Module):
    """Messages along edges, summed by index_add."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(16, 8), nn.GRUCell(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Logits of nodes [N, 8] with edges [2, E]."""
        for _ in range(2):
            sent = self.message(torch.cat((x[edges[0]], x[edges[1]]), -1)).relu()
            x = self.update(torch.zeros_like(x).index_add(0, edges[1], sent), x)
        return self.head(x)


def _graph(batch: int, length: int) -> dict[str, Tensor]:
    nodes = 4 * batch
    return {"x": torch.randn(nodes, 8), "edges": torch.randint(0, nodes, (2, 3 * length))}


class Translator(nn.Module):
    """nn.Transformer with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.transformer = nn.Transformer(16, 2, 1, 1, 24, batch_first=True)
        self.out = nn.Linear(16, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of the next tokens."""
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.out(self.transformer(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True))


def _translation(batch: int, length: int) -> dict[str, Tensor]:
    return {
        "source": torch.randint(0, VOCABULARY, (batch, length)),
        "target": torch.randint(0, VOCABULARY, (batch, length - 2)),
    }


class Ponder(nn.Module):
    """A layer repeated until the data says stop: a Python `while`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(2000, 128)
        self.layer = nn.TransformerEncoderLayer(128, 2, 24, batch_first=True)
        self.head = nn.Linear(128, 3)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        x, steps = self.embed(ids), 0
        while steps < 3 and float(x[:, 0].norm()) > 0.1 * steps:
            x, steps = self.layer(x), steps + 1
        return self.head(x.mean(1))


class LinearAttention(nn.Module):
    """Attention by feature maps: no softmax, nothing to find."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        q, k, v = (F.elu(t) + 1 for t in self.qkv(x).chunk(3, -1))
        return self.out((q @ (k.transpose(1, 2) @ v)) / (q @ k.sum(1)[..., None]))


class WrittenAttention(nn.Module):
    """Attention written out with einsum, its projections without bias, in a small classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(2000, 128)
        self.q, self.k, self.v = (nn.Linear(128, 128, bias=False) for _ in range(3))
        self.o, self.head = nn.Linear(128, 128), nn.Linear(128, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(ids)
        q, k, v = (p(x).unflatten(-1, (4, 32)) for p in (self.q, self.k, self.v))
        weights = (torch.einsum("bihd,bjhd->bhij", q, k) / 32**0.5).softmax(-1)
        x = x + self.o(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
        return self.head(x.mean(1))


class PackedEncoder(nn.Module):
    """nn.TransformerEncoder, positions learnt, sequence first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(VOCABULARY, 16), nn.Parameter(torch.randn(32, 1, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 24)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors."""
        x = self.embed(ids).transpose(0, 1)
        return self.encoder(x + self.places[: x.shape[0]]).transpose(0, 1)


class Mixer(nn.Module):
    """MLP-Mixer: products over positions, no softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.channels = nn.Linear(8, 8), nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(x).relu()


class Autoencoder(nn.Module):
    """A variational one: randomness in the forward, several results."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(12, 8), nn.Linear(4, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mean and log-variance."""
        mean, log = self.encode(x).chunk(2, -1)
        z = mean + torch.randn_like(mean) * (log / 2).exp() if self.training else mean
        return self.decode(z), mean, log


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 4))


def _bag() -> nn.Module:
    return nn.Sequential(nn.Embedding(2000, 128), nn.Flatten(1), nn.Linear(1024, 3))


ENTRIES: list[Entry] = [
    Entry("MLP", "plain", _mlp, _floats(12, name="input")),
    Entry("ResNet", "plain", ResNet, _floats(3, 8, 8)),
    Entry("UNet", "plain", UNet, _floats(1, 8, 8)),
    Entry("LSTM tagger", "plain", LSTMTagger, _tokens, representative=True),
    Entry("GRU classifier", "plain", GRUClassifier, _sequence(6)),
    Entry("Graph network by index_add", "plain", GraphNet, _graph),
    Entry("nn.Transformer", "plain", Translator, _translation, 2, 1),
    Entry("Python while on data", "plain", Ponder, _tokens, 1, rung="modules"),
    Entry("Linear attention", "plain", LinearAttention, _sequence(16)),
    Entry("Attention by einsum", "plain", WrittenAttention, _tokens, 1),
    Entry("nn.TransformerEncoder, sequence first", "plain", PackedEncoder, _tokens, 2),
    Entry("MLP-Mixer", "plain", Mixer, _sequence(16), lengths=(8, 8)),
    Entry("Variational autoencoder", "plain", Autoencoder, _floats(12)),
    Entry(
        "Bag of positions",
        "plain",
        _bag,
        lambda b, n: {"input": torch.randint(0, 2000, (b, 8))},
    ),
]
