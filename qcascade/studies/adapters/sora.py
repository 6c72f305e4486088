"""SoRA, sparse low-rank adaptation (Ding et al. 2023): y = W₀h + b + W_up(g ⊙ W_down h), the gate g sparse.

W_up and W_down learn like LoRA's; the gate learns by proximal gradient on the loss plus λ‖g‖₁: after every step
g ← T_{ηλ}(g − η ∂L/∂g), where T_c(z) = sign(z)·max(|z| − c, 0). What the gate sets to 0 can be removed; `rank` counts what is left.
The gate starts normal, W_up at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from qcascade.errors import ExecutionError


class SoraLinear(nn.Module):
    """A frozen linear layer and its gated low-rank correction.

    Args:
        base: The layer; its parameters are frozen.
        rank: Most rank of the correction.

    Raises:
        ExecutionError: The rank is below 1.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ExecutionError(f"rank={rank} must be at least 1.")
        self.base = base.requires_grad_(False)
        self.down, self.up = (
            nn.Linear(base.in_features, rank, bias=False),
            nn.Linear(rank, base.out_features, bias=False),
        )
        self.gate = nn.Parameter(torch.randn(rank))
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output [..., out], corrected."""
        corrected: Tensor = self.base(x) + self.up(self.gate * self.down(x))
        return corrected

    @property
    def rank(self) -> int:
        """Gates that are not 0."""
        return int(self.gate.count_nonzero())


@torch.no_grad()
def proximal_step(gate: Tensor, gradient: Tensor, step: float, sparsity: float) -> None:
    """In place, g ← T_{ηλ}(g − η ∂L/∂g).

    Example:
        >>> gate = torch.tensor([1.0, 0.05, -1.0])
        >>> proximal_step(gate, torch.tensor([1.0, 0.0, 0.0]), step=0.1, sparsity=1.0)
        >>> gate
        tensor([ 0.8000,  0.0000, -0.9000])
    """
    moved = gate - step * gradient
    gate.copy_(moved.sign() * (moved.abs() - step * sparsity).clamp_min(0))


def attach(model: nn.Module, names: Iterable[str], rank: int) -> list[SoraLinear]:
    """Put a gated correction on every nn.Linear whose last name is one of `names`, in place.

    Raises:
        ExecutionError: There is none.
    """
    wanted = set(names)
    paths = [p for p, m in model.named_modules() if isinstance(m, nn.Linear) and p.rpartition(".")[2] in wanted]
    if not paths:
        raise ExecutionError(f"the model has no nn.Linear named {', '.join(sorted(wanted))}; name its projections.")
    found = []
    for path in paths:
        parent, _, name = path.rpartition(".")
        holder = model.get_submodule(parent)
        layer = SoraLinear(getattr(holder, name), rank)
        setattr(holder, name, layer)
        found.append(layer)
    return found


def gates_after_step(layers: Iterable[SoraLinear], step: float, sparsity: float) -> Callable[[], tuple[float, ...]]:
    """What a training loop calls after every step: the proximal step of all gates; gives the gates that are left."""
    layers = list(layers)

    def after() -> tuple[float, ...]:
        for layer in layers:
            if layer.gate.grad is not None:
                proximal_step(layer.gate, layer.gate.grad, step, sparsity)
                layer.gate.grad = None
        return (float(sum(layer.rank for layer in layers)),)

    return after
