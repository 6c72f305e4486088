"""Spectral density of a symmetric operator by stochastic Lanczos quadrature.

In: a product v ↦ H v on flat float tensors, its size, a number of random probes. Out: for every probe the Ritz values and their weights,
whose mean over probes estimates the density of eigenvalues (Ubaru, Chen and Saad 2017; Ghorbani, Krishnan and Xiao 2019, arXiv
1901.10159); the spread over probes gives standard errors.

Memory: three vectors, and all m Lanczos vectors where m · n of them fit into `memory_bytes`: then each new one is orthogonalised
against them twice (4m·n FLOPs a step, beside a product's many more). Where they do not fit nothing is orthogonalised again: extreme
eigenvalues then return as copies that share one weight, which leaves the quadrature as it is (Greenbaum 1989; Chen, Trogdon and Ubaru
2021, arXiv 2105.06595). Inner products are summed in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from qcascade.errors import PlanError

Product = Callable[[Tensor], Tensor]
Numbers = NDArray[np.float64]
Probe = tuple[Numbers, Numbers]  # Ritz values and their weights


@dataclass(frozen=True, slots=True)
class Share:
    """A mean over probes and its standard error (None for one probe)."""

    mean: float
    error: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Ritz values and weights of every probe; the weights of a probe sum to 1."""

    values: tuple[Numbers, ...]
    weights: tuple[Numbers, ...]
    reorthogonalised: bool

    @property
    def smallest(self) -> float:
        """The smallest Ritz value of any probe: an upper bound on λ_min."""
        return float(min(v[0] for v in self.values))

    @property
    def largest(self) -> float:
        """The largest Ritz value of any probe: a lower bound on λ_max."""
        return float(max(v[-1] for v in self.values))

    def mean(self, function: Callable[[Numbers], Numbers]) -> Share:
        """∫ f dρ."""
        found = [float(w @ function(v)) for v, w in zip(self.values, self.weights, strict=True)]
        if not np.isfinite(found).all():
            return Share(math.inf, math.inf if len(found) > 1 else None)
        with np.errstate(over="ignore"):
            error = float(np.std(found, ddof=1) / math.sqrt(len(found))) if len(found) > 1 else None
        return Share(float(np.mean(found)), error)

    def pooled(self) -> tuple[Numbers, Numbers]:
        """All values with weights that sum to 1 over all probes."""
        return np.concatenate(self.values), np.concatenate(self.weights) / len(self.weights)


def spectrum(
    product: Product,
    size: int,
    *,
    probes: int = 8,
    iterations: int = 64,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    memory_bytes: int = 2 << 30,
    advance: Callable[[], object] | None = None,
    known: Sequence[Probe] = (),
    found: Callable[[Probe], object] | None = None,
) -> Spectrum:
    """Estimate the spectral density; `advance` is called after every product.

    `found` is called with every finished probe's values and weights; a run that was broken off goes on where these are `known`.

    Raises:
        PlanError: No size, probes or iterations.

    Example:
        >>> found = spectrum(lambda v: v * torch.tensor([1.0, 2.0, 3.0, -1.0]), 4, probes=2, iterations=4)
        >>> round(found.smallest, 4), round(found.largest, 4)
        (-1.0, 3.0)
    """
    if min(size, probes, iterations) < 1:
        raise PlanError(f"size {size}, probes {probes} and iterations {iterations} have to be at least 1.")
    generator = torch.Generator().manual_seed(seed)
    steps = min(iterations, size)
    keep = steps * size * torch.empty(0, dtype=dtype).element_size() <= memory_bytes
    values: list[Numbers] = []
    weights: list[Numbers] = []
    for index in range(probes):
        start = torch.randint(0, 2, (size,), generator=generator).to(dtype).mul_(2).sub_(1).div_(math.sqrt(size))
        if index < len(known):  # its random vector is drawn all the same, so that the next is the same
            probe = known[index]
        else:
            diagonal, beside = _tridiagonal(product, start, steps, keep, advance or (lambda: None))
            ritz, vectors = eigh_tridiagonal(diagonal, beside)
            probe = np.asarray(ritz, dtype=np.float64), np.asarray(vectors[0] ** 2, dtype=np.float64)
            if found is not None:
                found(probe)
        values.append(probe[0])
        weights.append(probe[1])
    return Spectrum(tuple(values), tuple(weights), keep)


def _tridiagonal(
    product: Product, vector: Tensor, steps: int, keep: bool, advance: Callable[[], object]
) -> tuple[Numbers, Numbers]:
    diagonal: list[float] = []
    beside: list[float] = []
    basis, before = [vector], torch.zeros_like(vector)
    for step in range(steps):
        residual = product(vector)
        advance()
        diagonal.append(_dot(residual, vector))
        residual = residual - diagonal[-1] * vector - (beside[-1] * before if beside else 0.0)
        for _ in range(2 if keep else 0):
            for old in basis:
                residual -= _dot(residual, old) * old
        length = math.sqrt(_dot(residual, residual))
        scale = max(map(abs, diagonal))
        if step == steps - 1 or length <= 10 * torch.finfo(vector.dtype).eps * scale:  # an invariant subspace
            break
        beside.append(length)
        before, vector = vector, residual / length
        if keep:
            basis.append(vector)
    return np.array(diagonal), np.array(beside)


def _dot(a: Tensor, b: Tensor) -> float:
    """In double precision, a million numbers at a time."""
    pieces = zip(a.split(1 << 20), b.split(1 << 20), strict=True)
    return float(sum(float(x.double() @ y.double()) for x, y in pieces))
