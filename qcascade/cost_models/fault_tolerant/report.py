"""The fault-tolerant report: trajectory, resources and break-even of one model, as text and JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from qcascade.cost_models.classical import count
from qcascade.cost_models.fault_tolerant.curvature import Loss
from qcascade.cost_models.fault_tolerant.logical import Access, Problem
from qcascade.cost_models.fault_tolerant.outlook import ClassicalStep, Outlook, outlook
from qcascade.cost_models.fault_tolerant.pruning import Sparsity
from qcascade.cost_models.fault_tolerant.trajectory import Moment, Settings, Trajectory, follow
from qcascade.cost_models.machine import this_machine

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found."""

    trajectory: Trajectory
    classical: ClassicalStep
    predicted_step_seconds: float  # by the roofline, beside the measured one
    outlooks: tuple[Outlook, ...]  # tables looked up by gates, and by a free quantum memory

    def to_json(self) -> str:
        """All of it; what is unknown is null, and what is infinite is a string."""
        return json.dumps(plain(asdict(self)), indent=2, ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def figures(self) -> dict[str, Figure]:
        """Plots by name: spectra, proxy, resources (needs matplotlib; `plots.svg` turns one into text for a page)."""
        from qcascade.cost_models.fault_tolerant import plots

        moments, left = self.trajectory.moments, self.trajectory.sparsity
        steps = self.outlooks[0].problem.steps
        return {
            "spectra": plots.spectra_figure(moments),
            "proxy": plots.proxy_figure(moments, steps),
            "resources": plots.resources_figure(self.outlooks, self.classical, left.kept / left.parameters),
        }


def make_report(
    model: nn.Module,
    loss: Loss,
    batch_of: Callable[[int], Any],
    measured_on: Sequence[Any],
    settings: Settings,
    *,
    steps: int,
    precision: float,
    order: int,
    file: Path | None = None,
    memory_bytes: int = 2 << 30,
    advance: Callable[[], object] | None = None,
    on_moment: Callable[[Moment], object] | None = None,
) -> Report:
    """Follow the trajectory, then estimate T = `steps` further steps; s is the largest Hessian row found, κ the bound."""
    found = follow(
        model,
        loss,
        batch_of,
        measured_on,
        settings,
        file=file,
        memory_bytes=memory_bytes,
        advance=advance,
        on_moment=on_moment,
    )
    step, predicted = classical_step(model, loss, batch_of(0))
    sparse = max(m.row_largest for m in found.moments)
    made = outlooks(found.sparsity, sparse, step, steps=steps, precision=precision, order=order)
    return Report(found, step, predicted, made)


def outlooks(
    left: Sparsity, row_sparsity: int, step: ClassicalStep, *, steps: int, precision: float = 1e-2, order: int = 3
) -> tuple[Outlook, ...]:
    """With tables looked up by gates, and with a quantum memory that costs nothing.

    Args:
        left: what pruning kept.
        row_sparsity: s, of the Hessian's rows.
        step: of the classical training.
        steps: T.
        precision: ε.
        order: K.
    """
    accesses: tuple[Access, ...] = ("lookup", "qram")
    problems = [Problem(left.kept, steps, row_sparsity, precision=precision, order=order, access=a) for a in accesses]
    return tuple(outlook(problem, step, left.kept / left.parameters) for problem in problems)


def classical_step(model: nn.Module, loss: Loss, batch: Any) -> tuple[ClassicalStep, float]:
    """A step of training here: the best of three measured, and what the roofline of this machine predicts."""

    def step() -> None:
        model.zero_grad()
        loss(model, batch).backward()

    machine, seconds = this_machine(), []
    predicted = count(step, machine).seconds
    for _ in range(3):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    model.zero_grad()
    parameters = sum(p.numel() for p in model.parameters())
    return ClassicalStep(machine.name, min(seconds), parameters, measured=True), predicted


def _lines(report: Report) -> Iterator[str]:
    left, settings = report.trajectory.sparsity, report.trajectory.settings
    yield f"{left.kept} of {left.parameters} parameters kept; a pruned weight's row has {left.mean_row:.1f} non-zeros"
    yield (
        f"{'step':>5} {'loss':>8} {'λ_min':>10} {'λ_max':>10} {'λ>0':>15} {'λ<0':>15} {'dissip.':>8} {'proxy':>10} {'row s':>8}"
        f" {'R ≥':>9}"
    )
    for m in report.trajectory.moments:
        share = "–" if m.dissipative is None else f"{m.dissipative:.3f}"
        yield (
            f"{m.step:>5} {m.loss:>8.4f} {m.smallest:>10.3g} {m.largest:>10.3g} {_share(m.positive)} {_share(m.negative)} {share:>8}"
            f" {m.proxy.mean:>10.3g} {m.row_largest:>8} {m.carleman.least:>9.3g}"
        )
    yield (
        f"|λ| below {settings.zero:g} of the largest counts as zero; proxy: error carried over"
        f" {report.trajectory.moments[-1].proxy_steps} steps at η = {settings.rate:g}, 1 where flat; R: a lower bound"
    )
    if any(m.smallest < -1e-6 * abs(m.largest) for m in report.trajectory.moments):  # beyond rounding
        yield "the Hessian has negative eigenvalues: the flow is not dissipative and the algorithm's guarantee does not hold"
    elif any(m.carleman.least >= 1 for m in report.trajectory.moments):
        yield "R is at least 1: the algorithm's guarantee does not hold"
    for told in report.outlooks:
        yield from _outlook_lines(told)


def _outlook_lines(told: Outlook) -> Iterator[str]:
    p, counted = told.problem, told.logical
    memory = (
        "tables looked up by gates" if p.access == "lookup" else "a quantum memory that costs nothing (a lower bound)"
    )
    yield f"\n{p.steps} steps of {p.parameters} parameters, s = {p.row_sparsity}, κ = {counted.condition:.3g}, ε = {p.precision}, {memory}"
    yield (
        f"  logical: {counted.qubits} qubits, {counted.queries:.3g} queries, {counted.t_gates:.3g} T gates, depth {counted.depth:.3g};"
        f" {counted.runs_per_copy:.1f} runs a copy, {counted.download_copies:.3g} copies to download"
    )
    yield f"  classical, here: {told.classical_seconds:.3g} s"
    for h in told.hardware:
        if h.state_seconds is None or h.download_seconds is None:
            yield f"  {h.estimate.hardware}: no estimate: {h.estimate.reason}"
            continue
        bound = "at least " if h.estimate.lower_bound else ""
        yield (
            f"  {h.estimate.hardware}: {h.estimate.qubits:.3g} physical qubits, {bound}{h.state_seconds / 3600:.3g} h to the state,"
            f" {bound}{h.download_seconds / 3600:.3g} h with its parameters downloaded"
        )
        yield f"    break-even of the state alone: {_break_even(h.break_even_parameters, h.break_even_steps)}"
        yield f"    break-even with download: {_break_even(h.downloaded_break_even_parameters, h.downloaded_break_even_steps)}"


def _break_even(parameters: int | None, steps: int | None) -> str:
    n = "no number of parameters" if parameters is None else f"{parameters:.3g} kept parameters"
    t = "no number of steps" if steps is None else f"{steps:.3g} steps"
    return f"{n}; {t}"


def _share(share: Any) -> str:
    error = "" if share.error is None else f"±{share.error:.4f}"
    return f"{share.mean:.4f}{error}".rjust(15)


def plain(value: Any) -> Any:
    """Values that JSON knows: what is infinite becomes a string."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and value in (float("inf"), float("-inf")) else value
