"""Sparse training with download and re-upload of the parameters (the scheme of Liu et al. 2024, arXiv 2303.03428), and what it is charged.

Dense warm-up; prune by magnitude; upload; a *segment* of plain gradient descent on the kept weights, which a quantum computer would run
and which is executed classically here; download; the masks are lifted, some dense classical steps are made, the weights are pruned
again and uploaded; and so on. Masks are those of torch.nn.utils.prune throughout.

How long a segment may be: nothing can be read from the state between upload and download, so it is decided before: the Hessian's
spectrum is measured classically (`lanczos`) and the segment ends before `trajectory.worst_proxy`, our proxy of the lift's error in
the worst direction found, would rise above `tolerance` (1 where flat). What a downloaded vector has wrong by tomography is added to
it: a random vector of `download_precision` times its norm.

Charged: for classical phases (warm-up, dense steps, Hessian products) FLOPs by torch's counter and the seconds that they took here; for a
segment of t steps the logical and physical resources of `logical` and `physical` with T = t, s as measured, κ at its bound for a
contractive lift (an optimistic one wherever an eigenvalue is negative), for tables looked up by gates and for a quantum memory that
costs nothing. A download repeats the whole run, upload included, once for every copy that tomography takes.

In: a model (changed in place), its loss, the batch of a step. Refused: diverging training, and schedules without a step of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from qcascade.cost_models.classical import count
from qcascade.cost_models.fault_tolerant.curvature import Curvature, Loss
from qcascade.cost_models.fault_tolerant.lanczos import Spectrum, spectrum
from qcascade.cost_models.fault_tolerant.logical import Access, Problem, logical_resources
from qcascade.cost_models.fault_tolerant.physical import HARDWARE, physical
from qcascade.cost_models.fault_tolerant.pruning import prune_by_magnitude, sparsity, unprune
from qcascade.cost_models.fault_tolerant.trajectory import descend, error_proxy, worst_proxy
from qcascade.cost_models.machine import Machine
from qcascade.errors import PlanError

Method = Literal["dense", "sparse", "reupload", "adamw"]
_ANY = Machine("any", 1, (1,), (1e9,), 1e9, 0.0, 1e9)  # FLOPs do not depend on it
METHODS: tuple[Method, ...] = ("dense", "sparse", "reupload", "adamw")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to train.

    Attributes:
        steps: of the whole training, the same for every method.
        warmup: dense steps of AdamW at the start.
        prune: share of the weights pruned.
        rate: η of gradient descent, in segments and in what they are compared with.
        adamw_rate: learning rate of AdamW, in classical phases.
        dense: dense classical steps between a download and the next upload.
        tolerance: of the error proxy in the worst direction, at a segment's end.
        longest: steps of a segment at most.
        download_precision: δ, 2-norm error of what is downloaded, relative to its norm.
        noisy: add that error.
        probes: of the spectrum before an upload.
        iterations: Lanczos steps of each.
        hessian_rows: rows drawn for s.
        precision: ε of the linear-system solver.
        order: K of the Carleman lift.
        seed: of probes and of the download's error.
    """

    steps: int
    warmup: int
    prune: float = 0.9
    rate: float = 0.1
    adamw_rate: float = 1e-3
    dense: int = 20
    tolerance: float = 1.5
    longest: int = 1000
    download_precision: float = 0.1
    noisy: bool = True
    probes: int = 2
    iterations: int = 24
    hessian_rows: int = 2
    precision: float = 1e-2
    order: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < self.steps or self.dense < 1 or self.longest < 1:
            raise PlanError(
                f"steps={self.steps}, warmup={self.warmup}, dense={self.dense}, longest={self.longest}: warm-up has to end before "
                "training does, and the others are at least 1."
            )
        if not self.tolerance > 1:
            raise PlanError(
                f"tolerance is {self.tolerance}; the proxy of a single step is 1, so more than 1 is needed."
            )
        if not (self.rate > 0 and self.adamw_rate > 0):
            raise PlanError(f"rate is {self.rate} and adamw_rate {self.adamw_rate}; positive ones are needed.")


@dataclass(frozen=True, slots=True)
class Charge:
    """What a segment takes on one kind of hardware; None, with a reason, where the estimator gives nothing."""

    access: Access
    hardware: str
    logical_qubits: int
    queries: int  # of one run
    t_gates: int  # of one run
    physical_qubits: int | None
    upload_seconds: float | None  # one preparation of |θ(0)⟩
    state_seconds: float | None  # one copy of |θ(T)⟩, failed runs included
    download_copies: int
    total_seconds: float | None  # all copies: what the segment takes
    lower_bound: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps between an upload and a download."""

    start: int
    steps: int
    proxy: float  # at its end, as predicted from the spectrum at its start: mean over the density
    worst: float  # the same in the worst direction, which `tolerance` is held against
    smallest: float  # eigenvalue found
    largest: float
    kept: int
    row_sparsity: int
    charges: tuple[Charge, ...]


@dataclass(frozen=True, slots=True)
class SparseRun:
    """A training run and what it is charged."""

    method: Method
    scores: tuple[tuple[int, float], ...]  # step and what `evaluate` gave
    classical_steps: int
    classical_flops: int
    classical_seconds: float  # here
    segments: tuple[Segment, ...]

    @property
    def quantum_steps(self) -> int:
        """Steps in segments."""
        return sum(s.steps for s in self.segments)

    def total_seconds(self, access: Access, hardware: str) -> float | None:
        """Of all segments; None where one of them has no estimate."""
        found = [
            c.total_seconds for s in self.segments for c in s.charges if (c.access, c.hardware) == (access, hardware)
        ]
        return None if any(x is None for x in found) else sum(x for x in found if x is not None)


def train_sparsely(
    model: nn.Module,
    loss: Loss,
    batch_of: Callable[[int], Any],
    measured_on: Sequence[Any],
    schedule: Schedule,
    method: Method = "reupload",
    *,
    evaluate: Callable[[nn.Module], float] | None = None,
    every: int = 50,
    hardware: tuple[str, ...] = tuple(HARDWARE),
    advance: Callable[[], object] | None = None,
) -> SparseRun:
    """Train in place.

    Args:
        model: not pruned.
        loss: scalar of a model and a batch.
        batch_of: the batch of a step, the same for the same step and so for every method.
        measured_on: batches that curvature is averaged over.
        schedule: how.
        method: ``reupload`` as above; ``sparse``: pruned once, then gradient descent; ``dense``: never pruned, gradient descent after
            the warm-up; ``adamw``: dense, AdamW to the end.
        evaluate: gives a score of the model, every so many steps and at the end (within a segment: a privilege of the simulation).
        every: how many.
        hardware: names of `HARDWARE`; none: nothing is estimated.
        advance: called after every step.

    Raises:
        PlanError: The method is unknown, or training diverges.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> x, y = torch.randn(64, 8), torch.arange(64) % 2
        >>> run = train_sparsely(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2)),
        ...                      lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), lambda i: (x, y), [(x, y)],
        ...                      Schedule(30, 5, dense=5, longest=10), hardware=())
        >>> run.quantum_steps + run.classical_steps
        30
    """
    if method not in METHODS:
        raise PlanError(f"method is {method!r}; choose one of {', '.join(METHODS)}.")
    session = _Session(model, loss, batch_of, schedule, evaluate, every, advance)
    warm = schedule.steps if method == "adamw" else schedule.warmup
    session.classically(warm, session.adamw())
    rest = schedule.steps - warm
    if method in ("dense", "sparse") and rest:
        if method == "sparse":
            prune_by_magnitude(model, schedule.prune)
        session.classically(rest, session.descent())
    segments: list[Segment] = []
    while method == "reupload" and session.step < schedule.steps:
        if not segments:
            prune_by_magnitude(model, schedule.prune)
        elif schedule.steps - session.step > schedule.dense:  # else the rest is one more segment under the same masks
            unprune(model)
            session.classically(schedule.dense, session.adamw())
            prune_by_magnitude(model, schedule.prune)
        segments.append(_segment(session, measured_on, hardware))
    if not session.scores or session.scores[-1][0] != session.step:
        session.score()
    return SparseRun(
        method, tuple(session.scores), session.classical_steps, session.flops, session.seconds, tuple(segments)
    )


def _segment(session: _Session, measured_on: Sequence[Any], hardware: tuple[str, ...]) -> Segment:
    schedule, model = session.schedule, session.model
    began, start = time.perf_counter(), session.step
    curvature = Curvature(model, session.loss, measured_on)
    point = curvature.point()
    with curvature.held() as product:
        found = spectrum(
            product, curvature.size, probes=schedule.probes, iterations=schedule.iterations,
            seed=schedule.seed + start, dtype=point.dtype,
        )  # fmt: skip
    rows = curvature.row_sparsity(schedule.hessian_rows, schedule.seed + start)[0]
    products = schedule.probes * min(schedule.iterations, curvature.size) + schedule.hessian_rows
    session.charge(products * session.flops_of(lambda: curvature.product(point)), time.perf_counter() - began)
    most = min(schedule.longest, schedule.steps - start)
    steps = horizon(found, schedule.rate, schedule.tolerance, most)
    optimizer = session.descent()
    for _ in range(steps):
        session.descend(optimizer, score=session.step + 1 < start + steps)
    if schedule.noisy:
        _perturb(model, schedule.download_precision, schedule.seed + start)
    session.score_if_due()
    kept = sparsity(model).kept
    charges = tuple(
        _charge(kept, steps, rows, schedule, access, name)
        for access in ("lookup", "qram")
        for name in hardware
    )  # fmt: skip
    proxy, worst = error_proxy(found, schedule.rate, steps).mean, worst_proxy(found, schedule.rate, steps)
    return Segment(start, steps, proxy, worst, found.smallest, found.largest, kept, rows, charges)


def horizon(density: Spectrum, rate: float, tolerance: float, most: int) -> int:
    """The last step, up to `most`, before the error proxy rises above `tolerance`; at least 1.

    Example:
        >>> import numpy as np
        >>> saddle = Spectrum((np.array([-1.0, 1.0]),), (np.array([0.5, 0.5]),), True)
        >>> horizon(saddle, 0.1, 2.0, 1000), horizon(saddle, 0.1, 2.0, 10)
        (14, 10)
    """
    for steps in range(1, most + 1):
        if worst_proxy(density, rate, steps) > tolerance:
            return max(1, steps - 1)
    return most


def _charge(kept: int, steps: int, rows: int, schedule: Schedule, access: Access, hardware: str) -> Charge:
    problem = Problem(
        kept, steps, min(rows, kept), schedule.precision, schedule.download_precision, schedule.order, access=access
    )
    counted = logical_resources(problem)
    estimate = physical(counted, hardware)
    seconds = estimate.seconds
    state = None if seconds is None else seconds * counted.runs_per_copy
    return Charge(
        access,
        hardware,
        counted.qubits,
        counted.queries,
        counted.t_gates,
        estimate.qubits,
        None if seconds is None else seconds * counted.upload_toffolis / counted.toffolis,
        state,
        counted.download_copies,
        None if state is None else state * counted.download_copies,
        estimate.lower_bound,
        estimate.reason,
    )


def _perturb(model: nn.Module, precision: float, seed: int) -> None:
    """What tomography gets wrong: an error in a random direction of the kept parameters."""
    masks = dict(model.named_buffers())
    generator = torch.Generator().manual_seed(seed)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    noise, square, length = [], 0.0, 0.0
    for name, p in named:
        mask = masks.get(f"{name.removesuffix('_orig')}_mask") if name.endswith("_orig") else None
        drawn = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        drawn, value = (drawn, p.detach()) if mask is None else (drawn * mask, p.detach() * mask)
        noise.append(drawn)
        square += float(value.double().square().sum())
        length += float(drawn.double().square().sum())
    with torch.no_grad():
        for (_, p), drawn in zip(named, noise, strict=True):
            p.add_(drawn, alpha=precision * (square / length) ** 0.5)


class _Session:
    """Counts steps, scores and charges of one run."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batch_of: Callable[[int], Any],
        schedule: Schedule,
        evaluate: Callable[[nn.Module], float] | None,
        every: int,
        advance: Callable[[], object] | None,
    ) -> None:
        self.model, self.loss, self.batch_of, self.schedule = model, loss, batch_of, schedule
        self.evaluate, self.every, self.advance = evaluate, every, advance
        self.step = self.classical_steps = self.flops = 0
        self.seconds = 0.0
        self.scores: list[tuple[int, float]] = []
        self.step_flops = self.flops_of(lambda: loss(model, batch_of(0)).backward())
        model.zero_grad()

    def descent(self) -> torch.optim.Optimizer:
        """Plain gradient descent."""
        return torch.optim.SGD(self.model.parameters(), self.schedule.rate)

    def adamw(self) -> torch.optim.Optimizer:
        """For classical phases."""
        return torch.optim.AdamW(self.model.parameters(), self.schedule.adamw_rate)

    def classically(self, steps: int, optimizer: torch.optim.Optimizer) -> None:
        """Steps that are charged to the classical machine."""
        for _ in range(steps):
            began = time.perf_counter()
            self.descend(optimizer, score=False)
            self.charge(self.step_flops, time.perf_counter() - began)
            self.classical_steps += 1
            self.score_if_due()

    def descend(self, optimizer: torch.optim.Optimizer, score: bool = True) -> None:
        """One step."""
        descend(self.model, self.loss, self.batch_of(self.step), optimizer, self.schedule.rate)
        self.step += 1
        if self.advance is not None:
            self.advance()
        if score:
            self.score_if_due()

    def charge(self, flops: int, seconds: float) -> None:
        """To the classical machine."""
        self.flops += flops
        self.seconds += seconds

    def flops_of(self, work: Callable[[], object]) -> int:
        """By torch's counter."""
        return count(work, _ANY).flops

    def score(self) -> None:
        """Now."""
        if self.evaluate is not None:
            self.scores.append((self.step, self.evaluate(self.model)))

    def score_if_due(self) -> None:
        """Every so many steps."""
        if self.step % self.every == 0 or self.step == self.schedule.steps:
            self.score()
