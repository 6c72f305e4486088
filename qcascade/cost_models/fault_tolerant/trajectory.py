"""What a model's Hessian says along a short training trajectory: train densely, prune once, go on sparsely, measure at chosen steps.

In: a model (changed in place), its loss on a batch, a function that gives the batch of a step, and the batches that curvature is
averaged over. Out: a `Moment` for every chosen step, counted from pruning. The quantum algorithm would run plain stochastic gradient
descent, the default between moments; AdamW may be chosen to reach later moments in fewer steps (the measured landscape is what it is
wherever training stands; the proxy is of gradient descent at `rate` from there). Resumable, see `checkpoint`. Refused: diverging
training, and a file of other settings or of another model.

Masses: an estimate of m Lanczos steps tells eigenvalues apart to about the spectral range over m, so what lies within `zero` of the
largest |λ| counts as neither positive nor negative.

Error proxy, as defined by us (we could not read the definition of Liu et al. 2024): the truncation of the lift leaves a
remainder at every step, which the later steps carry on by 1 − ηH; over t steps a remainder of 1 a step adds up to
|Σ_{j<t} (1 − ηλ)ʲ| along an eigenvector of λ. The proxy is the mean of that over the spectral density, divided by t: 1 for a flat
landscape, 1/(ηλt) where all is dissipative, and exponential in t where any weight lies at λ < 0 (or η > 2/λ).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from qcascade.cost_models.fault_tolerant.checkpoint import Checkpoint
from qcascade.cost_models.fault_tolerant.curvature import CarlemanNumber, Curvature, Loss, carleman_number
from qcascade.cost_models.fault_tolerant.lanczos import Numbers, Share, Spectrum, spectrum
from qcascade.cost_models.fault_tolerant.pruning import Sparsity, prune_by_magnitude, sparsity
from qcascade.errors import PlanError


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train and measure; a resumed run has to have the same."""

    moments: tuple[int, ...] = (0, 10, 20)  # steps after pruning at which curvature is measured, ascending
    rate: float = 0.1  # η of gradient descent
    prune: float = 0.9
    probes: int = 4
    iterations: int = 48
    third_rounds: int = 3
    hessian_rows: int = 4
    zero: float = 1e-2  # eigenvalues below this share of the largest |λ| count as zero
    seed: int = 0
    warmup: int = 0  # dense steps of AdamW before pruning
    optimizer: Literal["sgd", "adamw"] = "sgd"  # between moments
    adamw_rate: float = 1e-3

    def __post_init__(self) -> None:
        if not self.moments or list(self.moments) != sorted(set(self.moments)) or self.moments[0] < 0:
            raise PlanError(f"moments are {self.moments}; ascending steps from 0 are needed.")
        if not self.rate > 0:
            raise PlanError(f"rate is {self.rate}; a positive learning rate is needed.")
        if self.warmup < 0 or not self.adamw_rate > 0:
            raise PlanError(f"warmup is {self.warmup} and adamw_rate {self.adamw_rate}; at least 0, and above 0.")
        if self.optimizer not in ("sgd", "adamw"):
            raise PlanError(f"optimizer is {self.optimizer!r}; choose sgd or adamw.")


@dataclass(frozen=True, slots=True)
class Moment:
    """Measured at one step; masses are shares of the kept parameters' spectral density."""

    step: int
    loss: float
    smallest: float  # λ_min, as found
    largest: float
    positive: Share
    negative: Share
    dissipative: float | None  # positive / (positive + negative); None where all counts as zero
    proxy: Share  # over as many steps as the trajectory has
    proxy_steps: int
    row_largest: int  # non-zeros in rows of the Hessian on the kept weights
    row_mean: float
    carleman: CarlemanNumber
    reorthogonalised: bool
    density: tuple[tuple[tuple[float, float], ...], ...]  # Ritz value and weight, of every probe

    def spectrum(self) -> Spectrum:
        """The density as it was measured."""
        pairs = [np.array(probe).T for probe in self.density]
        return Spectrum(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), self.reorthogonalised)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """All moments, and what pruning left."""

    settings: Settings
    sparsity: Sparsity
    moments: tuple[Moment, ...]


def products(settings: Settings) -> int:
    """Hessian-vector products of a whole trajectory, for a progress bar (a bound where Lanczos ends early)."""
    return len(settings.moments) * settings.probes * settings.iterations


def error_proxy(density: Spectrum, rate: float, steps: int) -> Share:
    """The proxy of the module's docstring.

    Example:
        >>> flat = Spectrum((np.zeros(1),), (np.ones(1),), True)
        >>> error_proxy(flat, 0.1, 50).mean
        1.0
    """
    return density.mean(lambda values: _growth(values, rate, steps))


def worst_proxy(density: Spectrum, rate: float, steps: int) -> float:
    """The same along the worst direction found, whatever its weight: what a bound on the lift's error has to go by.

    Example:
        >>> round(worst_proxy(Spectrum((np.array([-1.0, 0.0]),), (np.array([1e-9, 1.0]),), True), 0.1, 2), 6)
        1.05
    """
    return float(max(_growth(values, rate, steps).max() for values in density.values))


def _growth(values: Numbers, rate: float, steps: int) -> Numbers:
    x = rate * values
    small = np.abs(x) * steps < 1e-8
    with np.errstate(over="ignore"):
        total = np.abs(1 - (1 - x) ** steps)
    return np.where(small, 1.0, total / np.where(small, 1.0, np.abs(x) * steps))


def follow(
    model: nn.Module,
    loss: Loss,
    batch_of: Callable[[int], Any],
    measured_on: Sequence[Any],
    settings: Settings,
    *,
    file: Path | None = None,
    memory_bytes: int = 2 << 30,
    advance: Callable[[], object] | None = None,
    on_moment: Callable[[Moment], object] | None = None,
) -> Trajectory:
    """Prune, train and measure.

    Args:
        model: trained in place, its masks left in.
        loss: scalar of a model and a batch.
        batch_of: the batch of a step, the same for the same step; those of the dense warm-up are of steps −1, −2, ….
        measured_on: what curvature is averaged over.
        settings: how.
        file: go on from it where it exists, and keep weights and measurements in it and in FILE.json.
        memory_bytes: for Lanczos vectors; see `lanczos`.
        advance: called after every Hessian-vector product of the quadrature.
        on_moment: called with every moment measured now (not with those read back).

    Raises:
        PlanError: The file is of other settings, or training diverges.
    """
    checkpoint = Checkpoint.at(file, asdict(settings))
    pruned = any(name.endswith("_mask") for name, _ in model.named_buffers())
    stored = file is not None and file.exists()
    if not pruned and not stored:
        first = torch.optim.AdamW(model.parameters(), settings.adamw_rate)
        for i in range(settings.warmup):
            descend(model, loss, batch_of(-1 - i), first, settings.adamw_rate)
        del first
    if not pruned:
        prune_by_magnitude(model, settings.prune)
    optimizer = _optimizer(model, settings)
    reached = checkpoint.restore(model, optimizer)
    step = 0 if reached is None else reached
    for moment in settings.moments[len(checkpoint.moments) :]:
        new = reached is None or step < moment
        while step < moment:
            descend(model, loss, batch_of(step), optimizer, settings.rate)
            step += 1
        if new:
            checkpoint.keep_weights(model, optimizer, step)
        made = _measure(model, loss, measured_on, step, settings, memory_bytes, advance, checkpoint)
        checkpoint.keep_moment(asdict(made))
        if on_moment is not None:
            on_moment(made)
    moments = tuple(moment_from(m) for m in checkpoint.moments)
    return Trajectory(settings, sparsity(model), moments)


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), settings.rate)
    return torch.optim.AdamW(model.parameters(), settings.adamw_rate)


def descend(model: nn.Module, loss: Loss, batch: Any, optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One step of training on one batch.

    Raises:
        PlanError: The loss is not finite.
    """
    model.train()
    value = loss(model, batch)
    if not torch.isfinite(value):
        raise PlanError(f"training diverges at learning rate {rate}; choose a smaller one.")
    value.backward()
    optimizer.step()
    optimizer.zero_grad()


def _measure(
    model: nn.Module,
    loss: Loss,
    batches: Sequence[Any],
    step: int,
    settings: Settings,
    memory_bytes: int,
    advance: Callable[[], object] | None,
    checkpoint: Checkpoint,
) -> Moment:
    curvature = Curvature(model, loss, batches)
    point = curvature.point()
    with curvature.held() as product:
        found = spectrum(
            product,
            curvature.size,
            probes=settings.probes,
            iterations=settings.iterations,
            seed=settings.seed + step,
            dtype=point.dtype,
            memory_bytes=memory_bytes,
            advance=advance,
            known=checkpoint.probes,
            found=checkpoint.keep_probe,
        )
    edge = settings.zero * max(abs(found.smallest), abs(found.largest))
    positive = found.mean(lambda v: (v > edge).astype(np.float64))
    negative = found.mean(lambda v: (v < -edge).astype(np.float64))
    counted = positive.mean + negative.mean
    steps = max(1, settings.moments[-1])
    gradient = float(curvature.gradient().double().norm())
    distance = settings.rate * steps * gradient or float(point.double().norm())  # at the present speed
    rows = curvature.row_sparsity(settings.hessian_rows, settings.seed)
    model.eval()
    with torch.no_grad():
        value = float(sum(float(loss(model, b)) for b in batches) / len(batches))
    return Moment(
        step,
        value,
        found.smallest,
        found.largest,
        positive,
        negative,
        positive.mean / counted if counted > 0 else None,
        error_proxy(found, settings.rate, steps),
        steps,
        rows[0],
        rows[1],
        carleman_number(curvature, found, distance, settings.third_rounds, settings.seed),
        found.reorthogonalised,
        tuple(
            tuple(zip(v.tolist(), w.tolist(), strict=True)) for v, w in zip(found.values, found.weights, strict=True)
        ),
    )


def moment_from(stored: dict[str, Any]) -> Moment:
    """A moment from what `asdict` gave, by way of JSON."""
    shares = {name: Share(**stored[name]) for name in ("positive", "negative", "proxy")}
    density = tuple(tuple((float(v), float(w)) for v, w in probe) for probe in stored["density"])
    return Moment(**{**stored, **shares, "carleman": CarlemanNumber(**stored["carleman"]), "density": density})
