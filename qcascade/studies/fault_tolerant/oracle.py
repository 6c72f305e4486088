"""The Lanczos spectrum held against the exact one: an MLP on scikit-learn's digits in full, whose Hessian is small enough to be built.

The Hessian of the loss on all 1,797 images is made by `torch.func` (forward over reverse, in double precision), apart from the products
that `curvature` makes, and diagonalised; the quadrature runs in single precision, as in `spectra`. A record a case, in OUT/oracle.jsonl:
Wasserstein distance of the two densities relative to the spectral range, extreme eigenvalues, and masses beyond 1 % of the largest |λ|.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from qcascade.cost_models.fault_tolerant.curvature import Curvature
from qcascade.cost_models.fault_tolerant.lanczos import Numbers, spectrum
from qcascade.cost_models.fault_tolerant.pruning import masks, prune_by_magnitude
from qcascade.cost_models.fault_tolerant.report import plain
from qcascade.cost_models.fault_tolerant.trajectory import Settings
from qcascade.errors import ExecutionError
from qcascade.studies.records import Record
from qcascade.studies.tables import StudyTable

_CHUNK = 128  # columns of the Hessian at a time
_THIRDS = 3  # 1,797 = 3 · 599: batches that weigh the same


@dataclass(frozen=True, slots=True)
class OracleCase:
    """A moment of training: `warmup` dense steps, pruning, `step` steps on the kept weights, each on all images."""

    step: int
    prune: float = 0.9
    width: int = 64
    warmup: int = 30
    adamw_rate: float = 1e-2
    probes: int = 8
    iterations: int = 48
    seed: int = 0


CASES = (OracleCase(0), OracleCase(30), OracleCase(120), OracleCase(120, prune=0.0))


def read_digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 64] between 0 and 1, and their labels.

    Raises:
        ExecutionError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ExecutionError("digits come with scikit-learn: pip install 'qcascade[studies]'.") from error
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def run_oracle(case: OracleCase) -> dict[str, Any]:
    """Train, measure both ways; what goes into the record."""
    images, labels = read_digits()
    torch.manual_seed(case.seed)
    model = nn.Sequential(nn.Linear(64, case.width), nn.Tanh(), nn.Linear(case.width, 10))
    _train(model, images, labels, case.warmup, case.adamw_rate)
    if case.prune:
        prune_by_magnitude(model, case.prune)
    _train(model, images, labels, case.step, case.adamw_rate)
    right = float((model(images).argmax(1) == labels).double().mean())

    batches = list(zip(images.chunk(_THIRDS), labels.chunk(_THIRDS), strict=True))
    curvature = Curvature(model, lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]), batches)
    began = time.process_time()
    with curvature.held() as product:
        found = spectrum(product, curvature.size, probes=case.probes, iterations=case.iterations, seed=case.seed)
    quadrature = time.process_time() - began
    began = time.process_time()
    exact = np.asarray(torch.linalg.eigvalsh(dense_hessian(model, images, labels)))
    values, weights = found.pooled()
    span, edge = float(exact[-1] - exact[0]), Settings().zero * float(np.abs(exact).max())

    def positive(v: Numbers) -> Numbers:
        return (v > edge).astype(np.float64)

    def negative(v: Numbers) -> Numbers:
        return (v < -edge).astype(np.float64)

    return plain({  # type: ignore[no-any-return]
        "images": len(images),
        "parameters": curvature.size,
        "accuracy": 100 * right,
        "wasserstein": float(wasserstein_distance(values, exact, weights)) / span,
        "smallest": [float(exact[0]), found.smallest],
        "largest": [float(exact[-1]), found.largest],
        "positive": [float(positive(exact).mean()), asdict(found.mean(positive))],
        "negative": [float(negative(exact).mean()), asdict(found.mean(negative))],
        "quadrature_seconds": quadrature,
        "exact_seconds": time.process_time() - began,
    })  # fmt: skip


def dense_hessian(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """∇²L of the mean cross-entropy on the kept weights, [n, n] in double precision, symmetric up to rounding.

    Example:
        >>> line = nn.Linear(2, 2)
        >>> h = dense_hessian(line, torch.eye(2), torch.tensor([0, 1]))
        >>> h.shape, bool(torch.linalg.eigvalsh(h)[0] > -1e-12)  # a linear model's loss is convex
        (torch.Size([6, 6]), True)
    """
    found, named = masks(model), dict(model.named_parameters())
    whole = torch.cat([p.detach().double().reshape(-1) for p in named.values()])
    kept = torch.cat([found[n].reshape(-1) if n in found else torch.ones(p.numel()) for n, p in named.items()])
    places = kept.nonzero()[:, 0]

    def loss(flat: Tensor) -> Tensor:
        parts = whole.scatter(0, places, flat).split([p.numel() for p in named.values()])
        given = {n: part.view_as(p) for part, (n, p) in zip(parts, named.items(), strict=True)}
        return F.cross_entropy(functional_call(model, given, (images.double(),)), labels)

    def column(tangent: Tensor) -> Tensor:
        return jvp(grad(loss), (whole[places],), (tangent,))[1]  # type: ignore[no-any-return]

    return vmap(column, chunk_size=_CHUNK)(torch.eye(len(places), dtype=torch.float64))


def oracle_table(records: Iterable[Record]) -> StudyTable:
    """A row a case."""
    rows = []
    for record in records:
        case, found = record.settings, record.measured
        rows.append((
            f"{100 * case['prune']:.0f} %", str(case["step"]), f"{found['accuracy']:.1f}", str(found["parameters"]),
            f"{100 * found['wasserstein']:.2g} %", *(_pair(found[name]) for name in ("smallest", "largest")),
            *(f"{exact:.3g}; {share['mean']:.3g} ± {share['error']:.1g}" for exact, share in (found["positive"], found["negative"])),
            f"{found['quadrature_seconds']:.0f}; {found['exact_seconds']:.0f}",
        ))  # fmt: skip
    columns = (
        "pruned", "step", "accuracy, %", "kept weights", "Wasserstein / range", "λ_min exact; found", "λ_max exact; found",
        "λ>0 exact; found", "λ<0 exact; found", "processor s, Lanczos; exact",
    )  # fmt: skip
    notes = (
        "An MLP of 64 hidden units on all 1,797 digits, the loss averaged over all of them. Exact: the dense Hessian by torch.func in "
        "double precision, diagonalised. Found: 8 probes of 48 Lanczos steps in single precision, masses ± standard error over probes, "
        "which does not hold what lies closer to the edge of 1 % than Lanczos tells apart.",
    )
    return StudyTable("Lanczos spectra against exact ones", columns, tuple(rows), notes)


def _pair(values: tuple[float, float]) -> str:
    return f"{values[0]:.4g}; {values[1]:.4g}"


def _train(model: nn.Module, images: Tensor, labels: Tensor, steps: int, rate: float) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
