"""Small models, each of which takes capture down the ladder, or nearly."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint


class Double(torch.autograd.Function):
    """x, but its gradient is sevenfold: whoever drops this backward is found out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """x."""
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """7 g."""
        return 7 * grad


sevenfold = Double.apply  # bound before any capture: a graph cannot tell that it is called


class Sevenfold(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return sevenfold(x)  # type: ignore[no-any-return]


class Split(torch.autograd.Function):
    """Two results, an argument that is no tensor, and a backward that is not the derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(x, scale x)."""
        ctx.scale = scale
        return x.clone(), x * scale

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor | None, ...]:
        """Three times the one, minus the other."""
        return 3 * first - ctx.scale * second, None, None


class Functions(nn.Module):
    """Custom autograd functions called as usual."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = Split.apply(self.layer(x), 0.5)
        return self.head(Double.apply(first) + second.relu())


class Custom(nn.Module):
    """An autograd function between layers that can be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, dropout=0.0)
        self.seven, self.head = Sevenfold(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.seven(self.layer(x)).mean(1))


class Checkpointed(nn.Module):
    """A reentrant checkpoint: a function of torch's own, whose backward is all the gradient there is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.head(y + checkpoint(self.inner, y, use_reentrant=True))  # type: ignore[no-any-return]


class Reversal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        if y.requires_grad:
            y.register_hook(torch.neg)
        return y


class Reversed(nn.Module):
    """A hook on a tensor turns the gradient round."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.turn, self.head = nn.Linear(4, 4), Reversal(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.turn(self.first(x)))


class Hidden(nn.Module):
    """State in a list, a dictionary or a plain object, which changes the result of every call."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.layer, self.kept = nn.Linear(4, 4), kept

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.kept, SimpleNamespace):
            self.kept.calls += 1
            return self.layer(x) * self.kept.calls
        self.kept[0] += 1
        return self.layer(x) * self.kept[0]


class Seeded(nn.Module):
    """Noise that is the same at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.randn(4, generator=torch.Generator().manual_seed(5))


class Loop(nn.Module):
    """Data-dependent control flow around one layer that is called several times."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(2000, 128)
        self.layer = nn.TransformerEncoderLayer(128, 2, 24, batch_first=True)
        self.head = nn.Linear(128, 3)

    def forward(self, ids: Tensor) -> dict[str, Any]:
        x, steps = self.embed(ids), 0
        while steps < 2 and float(x[:, 0].norm()) > 0.1:
            x, steps = self.layer(x), steps + 1
        return {"logits": self.head(x.mean(1)), "steps": steps}


class Counting(nn.Module):
    """An attribute that is no buffer changes at every call, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) * self.calls


class Tied(nn.Module):
    """A table that other code projects with, and control flow on data."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(2000, 128), nn.Linear(128, 128)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        if x.sum() > 1e9:
            return x
        return F.linear(self.mix(x), self.embed.weight)


class Refusing(nn.Module):
    """Export cannot follow; symbolic tracing can."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> dict[str, Any]:
        if isinstance(x, torch._subclasses.FakeTensor):
            raise RuntimeError("no stand-ins, please")
        batch, length, _ = x.shape
        q, k, v = (p(x).view(batch, length, 4, 8).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, 32)
        return {"y": self.drop(self.o(y)), "none": None}


class Fixed(nn.Module):
    """A target without gradients and a count in a buffer, where export cannot follow and symbolic tracing would drop them."""

    def __init__(self, *, counts: bool = False) -> None:
        super().__init__()
        self.layer, self.other, self.counts = nn.Linear(4, 4), nn.Linear(4, 4), counts
        self.register_buffer("count", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, torch._subclasses.FakeTensor):
            raise RuntimeError("no stand-ins, please")
        if self.counts:
            self.count += 1
            return self.layer(x) * self.count
        with torch.no_grad():
            target = self.other(self.layer(x))
        return self.layer(x) * target


class Teacher(nn.Module):
    """A teacher that follows its student, its parameters replaced at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for own, followed in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                own.data = own.data * 0.9 + followed.data * 0.1
        return self.student(x) * self.teacher(x)


class Clipped(nn.Module):
    """Weights kept within bounds in the forward; those that it starts with are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for parameter in self.parameters():
            parameter.data.clamp_(-1, 1)
        return self.layer(x)


class Shrinking(nn.Module):
    """Weights that every call in training makes smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.layer.weight.mul_(0.9)
        return self.layer(x)


Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Nested:
    left: Tensor
    right: Tensor


pytree.register_dataclass(Nested)


class Structures(nn.Module):
    """Keyword-only and nested arguments, nested results."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, *, x: dict[str, Tensor], pair: tuple[Tensor, Tensor]) -> Any:
        y = self.layer(x["a"]) + pair[0]
        return Pair(y, {"list": [y * 2, Nested(y + pair[1], y)]})


class Buffers(nn.Module):
    """Buffers changed in place and by assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.layer(self.norm(x)) + self.mean


class Writes(nn.Module):
    """Changes its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return self.layer(x)


class Recurrent(nn.Module):
    """Every kind of recurrent layer, and results that differ between the modes."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, 2, batch_first=True, dropout=0.4, bidirectional=True, proj_size=3)
        self.gru, self.rnn = nn.GRU(6, 5, bias=False), nn.RNN(5, 4, nonlinearity="relu")

    def forward(self, x: Tensor) -> Any:
        y, state = self.lstm(x)
        z, last = self.gru(y.transpose(0, 1), None)
        w, _ = self.rnn(z)
        return (w, state) if self.training else {"w": w, "state": state, "last": last}


class PackedSequences(nn.Module):
    """Lengths that are data."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(50, 6), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = (ids > 0).sum(1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(ids), lengths, True, enforce_sorted=False)
        padded, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(padded.mean(1))
