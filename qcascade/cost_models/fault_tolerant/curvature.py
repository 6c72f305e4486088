"""Derivatives of a training loss on the kept weights: gradient, Hessian-vector products, directional third derivatives.

In: a model (pruned by `pruning`, or dense), its loss on one batch, and the batches the loss is averaged over. Vectors are flat and
hold the kept entries of the trained parameters only, in the order of `named_parameters`. The model is put into evaluation mode (no
dropout) for the time of a product, and attention runs by plain matrix products, as fused attention has no second derivative.
Single precision or better: bfloat16 has no digits left for second derivatives. Memory: the graphs of all batches and a few vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from qcascade.cost_models.fault_tolerant.lanczos import Spectrum
from qcascade.cost_models.fault_tolerant.pruning import masks
from qcascade.errors import PlanError

Loss = Callable[[nn.Module, Any], Tensor]


class Curvature:
    """The loss's derivatives at the model's present parameters."""

    def __init__(self, model: nn.Module, loss: Loss, batches: Sequence[Any]) -> None:
        """`loss(model, batch)` is a scalar; batches weigh the same."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named or not batches:
            raise PlanError("the model has no trained parameter, or no batch was given; both are needed.")
        found = masks(model)
        self.model, self.loss, self.batches = model, loss, batches
        self.parameters = [p for _, p in named]
        self.places = [found[name].reshape(-1).nonzero()[:, 0] if name in found else None for name, _ in named]
        self.sizes = [p.numel() if k is None else len(k) for p, k in zip(self.parameters, self.places, strict=True)]

    @property
    def size(self) -> int:
        """Kept parameters."""
        return sum(self.sizes)

    def point(self) -> Tensor:
        """θ."""
        return self._gathered([p.detach() for p in self.parameters])

    def gradient(self) -> Tensor:
        """∇L."""
        total = torch.zeros_like(self.point())
        with self._exact():
            for batch in self.batches:
                grads = torch.autograd.grad(self.loss(self.model, batch), self.parameters, materialize_grads=True)
                total += self._gathered(grads)
        return total / len(self.batches)

    def product(self, vector: Tensor) -> Tensor:
        """∇²L v."""
        with self.held() as product:
            return product(vector)

    @contextmanager
    def held(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """The product v ↦ ∇²L v for many v at the present parameters, which must not change meanwhile.

        The gradients' graphs, one a batch, are built once and kept: a product is then one backward pass through them, about half of
        what it takes on its own, and memory grows with the batches.
        """
        graphs: list[list[tuple[int, Tensor]]] = []
        try:
            with self._exact():
                for batch in self.batches:
                    loss = self.loss(self.model, batch)
                    grads = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
                    graphs.append([(i, g) for i, g in enumerate(grads) if g.requires_grad])
                yield lambda vector: self._through(graphs, vector)
        finally:
            graphs.clear()  # whoever keeps the product keeps no graph

    def _through(self, graphs: Sequence[Sequence[tuple[int, Tensor]]], vector: Tensor) -> Tensor:
        parts, total = self._scattered(vector), torch.zeros_like(vector)
        for graph in graphs:
            if not graph:  # a linear loss
                continue
            found = torch.autograd.grad(
                [g for _, g in graph],
                self.parameters,
                grad_outputs=[parts[i] for i, _ in graph],
                retain_graph=True,
                materialize_grads=True,
            )
            total += self._gathered(found)
        return total / len(self.batches)

    def third(self, vector: Tensor, step: float = 1e-2) -> Tensor:
        """∇³L[v, v] for a unit v, by the central difference of Hessian-vector products over 2 · step."""
        with torch.no_grad():
            self._move(vector, step)
        ahead = self.product(vector)
        with torch.no_grad():
            self._move(vector, -2 * step)
        behind = self.product(vector)
        with torch.no_grad():
            self._move(vector, step)
        return (ahead - behind) / (2 * step)

    def row_sparsity(self, rows: int, seed: int, tolerance: float = 1e-6) -> tuple[int, float]:
        """Largest and mean number of entries above `tolerance` times the row's largest, over random rows of the Hessian.

        Rows are drawn among parameters with a gradient: those of unseen words, say, have rows of zeros. At least 1.
        """
        generator, counts = torch.Generator().manual_seed(seed), [1]
        alive = self.gradient().nonzero()[:, 0]
        with self.held() as product:
            for choice in torch.randint(0, max(1, len(alive)), (rows,), generator=generator):
                place = alive[choice] if len(alive) else choice
                unit = torch.zeros_like(self.point())
                unit[place] = 1
                row = product(unit).abs()
                counts.append(int((row > tolerance * row.max()).sum()))
        return max(counts), sum(counts[1:]) / max(1, rows)

    def _move(self, vector: Tensor, step: float) -> None:
        for p, v in zip(self.parameters, self._scattered(vector), strict=True):
            p.add_(v, alpha=step)

    def _gathered(self, tensors: Sequence[Tensor]) -> Tensor:
        pieces = zip(tensors, self.places, strict=True)
        return torch.cat([t.reshape(-1) if k is None else t.reshape(-1).index_select(0, k) for t, k in pieces])

    def _scattered(self, vector: Tensor) -> list[Tensor]:
        parts = []
        for p, k, piece in zip(self.parameters, self.places, vector.split(self.sizes), strict=True):
            whole = piece if k is None else torch.zeros_like(p).reshape(-1).index_copy_(0, k, piece)
            parts.append(whole.view_as(p))
        return parts

    @contextmanager
    def _exact(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
                yield
        finally:
            self.model.train(training)


@dataclass(frozen=True, slots=True)
class CarlemanNumber:
    """R = (‖u‖ ‖F₂‖ + ‖F₀‖/‖u‖) / |λ₁| (Liu et al. 2021, arXiv 2011.03185) about the present parameters, bounded below.

    So transcribed in public notes on that paper. It says what it should: with all directions aligned, d‖u‖/dt = |λ₁| ‖u‖ (R − 1), so that
    R < 1 is the flow's shrinking at ‖u‖ whatever the directions of F₀ and F₂ (tested).

    F₀ = −∇L, F₂ = −½∇³L, u the distance to be covered. ‖F₂‖ is bounded below by ½‖∇³L[v, v]‖ of the best direction found, so both
    figures are lower bounds: `least` puts λ_max in the place of λ₁ and so bounds R from below whatever the dissipation; `ratio`
    takes λ_min and is None where that is not positive: the flow is then not dissipative, and R is not defined.
    """

    ratio: float | None
    least: float
    second_norm: float  # the bound on ‖F₂‖
    gradient_norm: float
    distance: float


def carleman_number(
    curvature: Curvature, spectrum: Spectrum, distance: float, rounds: int, seed: int
) -> CarlemanNumber:
    """Bound R; the direction is sought by `rounds` steps of power iteration v ← ∇³L[v, v]/‖·‖ from a random one."""
    if not distance > 0:
        raise PlanError(f"distance is {distance}; the parameters have to move.")
    point = curvature.point()
    v = torch.randn(point.shape, generator=torch.Generator().manual_seed(seed), dtype=point.dtype)
    best = 0.0
    for _ in range(rounds):
        v = v / v.norm()
        w = curvature.third(v)
        length = float(w.double().norm())
        best = max(best, length / 2)
        if length == 0:
            break
        v = w
    gradient = float(curvature.gradient().double().norm())
    above = distance * best + gradient / distance
    low, high = spectrum.smallest, max(abs(spectrum.smallest), abs(spectrum.largest))
    return CarlemanNumber(
        above / low if low > 0 else None, above / high if high > 0 else float("inf"), best, gradient, distance
    )
