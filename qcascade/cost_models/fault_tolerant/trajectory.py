"""What a model's Hessian says along a short training trajectory: prune once, descend, measure at chosen steps.

In: a model (changed in place), its loss on a batch, a function that gives the batch of a step, and the batches that curvature is
averaged over. Out: a `Moment` for every chosen step. Training is plain stochastic gradient descent, which is what the quantum algorithm
would run. Resumable: after every moment the weights and the moments so far are written to a file; a run with the same settings goes
on from it. Refused: diverging training, and a file of other settings or of another model.

Masses: an estimate of m Lanczos steps tells eigenvalues apart to about the spectral range over m, so what lies within `zero` of the
largest |λ| counts as neither positive nor negative.

Error proxy, as defined here (the paper's own definition was not at hand when this was written): the truncation of the lift leaves a
remainder at every step, which the later steps carry on by 1 − ηH; over t steps a remainder of 1 a step adds up to
|Σ_{j<t} (1 − ηλ)ʲ| along an eigenvector of λ. The proxy is the mean of that over the spectral density, divided by t: 1 for a flat
landscape, 1/(ηλt) where all is dissipative, and exponential in t where any weight lies at λ < 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qcascade.cost_models.fault_tolerant.curvature import CarlemanNumber, Curvature, Loss, carleman_number
from qcascade.cost_models.fault_tolerant.lanczos import Numbers, Share, Spectrum, spectrum
from qcascade.cost_models.fault_tolerant.pruning import Sparsity, prune_by_magnitude, sparsity
from qcascade.errors import PlanError


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train and measure; a resumed run has to have the same."""

    moments: tuple[int, ...] = (0, 10, 20)  # steps at which curvature is measured, ascending
    rate: float = 0.1
    prune: float = 0.9
    probes: int = 4
    iterations: int = 48
    third_rounds: int = 3
    hessian_rows: int = 4
    zero: float = 1e-2  # eigenvalues below this share of the largest |λ| count as zero
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.moments or list(self.moments) != sorted(set(self.moments)) or self.moments[0] < 0:
            raise PlanError(f"moments are {self.moments}; ascending steps from 0 are needed.")
        if not self.rate > 0:
            raise PlanError(f"rate is {self.rate}; a positive learning rate is needed.")


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
    density: tuple[tuple[float, float], ...]  # Ritz value and weight, over all probes


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

    def growth(values: Numbers) -> Numbers:
        x = rate * values
        small = np.abs(x) * steps < 1e-8
        with np.errstate(over="ignore"):
            total = np.abs(1 - (1 - x) ** steps)
        return np.where(small, 1.0, total / np.where(small, 1.0, np.abs(x) * steps))

    return density.mean(growth)


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
) -> Trajectory:
    """Prune, train and measure.

    Args:
        model: trained in place, its masks left in.
        loss: scalar of a model and a batch.
        batch_of: the batch of a step, the same for the same step.
        measured_on: what curvature is averaged over.
        settings: how.
        file: resume from it where it exists, and write it after every moment.
        memory_bytes: for Lanczos vectors; see `lanczos`.
        advance: called after every Hessian-vector product of the quadrature.

    Raises:
        PlanError: The file is of other settings, or training diverges.
    """
    if not any(name.endswith("_mask") for name, _ in model.named_buffers()):
        prune_by_magnitude(model, settings.prune)
    kept, step, done = sparsity(model), 0, list[Moment]()
    if file is not None and file.exists():
        step, done = _resume(model, file, settings)
    for moment in settings.moments[len(done) :]:
        while step < moment:
            _descend(model, loss, batch_of(step), settings.rate)
            step += 1
        done.append(_measure(model, loss, measured_on, step, settings, memory_bytes, advance))
        if file is not None:
            _write(model, file, settings, step, done)
    return Trajectory(settings, kept, tuple(done))


def _descend(model: nn.Module, loss: Loss, batch: Any, rate: float) -> None:
    model.train()
    model.zero_grad()
    value = loss(model, batch)
    if not torch.isfinite(value):
        raise PlanError(f"training diverges at learning rate {rate}; choose a smaller one.")
    value.backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(p.grad, alpha=rate)
    model.zero_grad()


def _measure(
    model: nn.Module,
    loss: Loss,
    batches: Sequence[Any],
    step: int,
    settings: Settings,
    memory_bytes: int,
    advance: Callable[[], object] | None,
) -> Moment:
    curvature = Curvature(model, loss, batches)
    point = curvature.point()
    found = spectrum(
        curvature.product,
        curvature.size,
        probes=settings.probes,
        iterations=settings.iterations,
        seed=settings.seed + step,
        dtype=point.dtype,
        memory_bytes=memory_bytes,
        advance=advance,
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
    values, weights = found.pooled()
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
        tuple(zip(values.tolist(), weights.tolist(), strict=True)),
    )


def _write(model: nn.Module, file: Path, settings: Settings, step: int, done: list[Moment]) -> None:
    partial = file.with_suffix(file.suffix + ".partial")
    kept = {
        "settings": json.dumps(asdict(settings)),
        "step": step,
        "moments": json.dumps([asdict(m) for m in done]),
        "weights": model.state_dict(),
    }
    torch.save(kept, partial)
    partial.replace(file)


def _resume(model: nn.Module, file: Path, settings: Settings) -> tuple[int, list[Moment]]:
    stored = torch.load(file, weights_only=True)
    if stored["settings"] != json.dumps(asdict(settings)):
        raise PlanError(f"{file} was written with other settings: {stored['settings']}; remove it, or give these.")
    try:
        model.load_state_dict(stored["weights"])
    except RuntimeError as error:
        raise PlanError(f"{file} is of another model: {error}") from error
    return int(stored["step"]), [moment_from(m) for m in json.loads(stored["moments"])]


def moment_from(stored: dict[str, Any]) -> Moment:
    """A moment from what `asdict` gave, by way of JSON."""
    shares = {name: Share(**stored[name]) for name in ("positive", "negative", "proxy")}
    density = tuple((float(v), float(w)) for v, w in stored["density"])
    return Moment(**{**stored, **shares, "carleman": CarlemanNumber(**stored["carleman"]), "density": density})
