"""Plots of the fault-tolerant outlook: spectra through time, error proxy over training time, seconds against n with break-even.

In: moments, outlooks. Out: matplotlib figures, for PNG (`Figure.savefig`) or as text for a page (`svg`). Each plot is also a function
that draws on given axes. matplotlib is imported when the first figure is made.

Spectra: every Ritz value widened to a Gaussian of `WIDTH` of the range, weighed; the band is the standard error over probes. Proxy:
`trajectory.error_proxy` (a definition of ours) at η = 1/λ_max of its moment, solid, with its standard error over probes, and in the
worst direction found, dashed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qcascade.cost_models.fault_tolerant.lanczos import Numbers
from qcascade.cost_models.fault_tolerant.outlook import ClassicalStep, Outlook, scaling
from qcascade.cost_models.fault_tolerant.trajectory import Moment, error_proxy, worst_proxy
from qcascade.errors import QCascadeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 0.01  # of the spectral range: about what the quadrature tells apart
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008


def spectra_figure(moments: Sequence[Moment]) -> Figure:
    """Spectral densities, a line a moment."""
    made, axes = _figure()
    draw_spectra(axes, moments)
    return made


def proxy_figure(moments: Sequence[Moment], steps: int = 1000) -> Figure:
    """Error proxy over 1 … `steps` steps of gradient descent, a line a moment."""
    made, axes = _figure()
    draw_proxy(axes, moments, steps)
    return made


def resources_figure(
    outlooks: Sequence[Outlook], step: ClassicalStep, kept: float, hardware: str = "majorana"
) -> Figure:
    """Seconds of T steps against the kept parameters: classical, quantum until the state, quantum with download."""
    made, axes = _figure()
    draw_resources(axes, outlooks, step, kept, hardware)
    return made


def svg(figure: Figure) -> str:
    """A figure as an SVG element, for a page.

    Example:
        >>> from qcascade.cost_models.fault_tolerant.curvature import CarlemanNumber
        >>> from qcascade.cost_models.fault_tolerant.lanczos import Share
        >>> share, number = Share(0.5, None), CarlemanNumber(None, 2.0, 1.0, 1.0, 1.0)
        >>> moment = Moment(0, 0.7, -1.0, 2.0, share, share, 0.5, share, 10, 2, 2.0, number, True, (((-1.0, 0.5), (2.0, 0.5)),))
        >>> svg(spectra_figure([moment])).startswith("<svg")
        True
    """
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "qcascade"}):  # the same figure gives the same text
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def draw_spectra(axes: Axes, moments: Sequence[Moment]) -> None:
    """Of a trajectory."""
    low, high = min(m.smallest for m in moments), max(m.largest for m in moments)
    spread = max(high - low, 1e-12)
    grid = np.linspace(low - 0.05 * spread, high + 0.05 * spread, 600)
    for colour, moment in zip(_cycle(len(moments)), moments, strict=True):
        lines = np.stack([_smooth(grid, v, w, WIDTH * spread) for v, w in _pairs(moment)])
        mean = lines.mean(0)
        axes.plot(grid, mean, color=colour, linewidth=1.3, label=f"step {moment.step}, loss {moment.loss:.3f}")
        if len(lines) > 1:
            error = lines.std(0, ddof=1) / math.sqrt(len(lines))
            axes.fill_between(grid, np.maximum(mean - error, 1e-12), mean + error, color=colour, alpha=0.2, linewidth=0)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yscale("log")
    axes.set_ylim(1e-7 / spread, 10 / (WIDTH * spread))
    axes.set(xlabel="eigenvalue λ of the Hessian on kept weights", ylabel="density")
    axes.legend(frameon=False, fontsize=7)


def draw_proxy(axes: Axes, moments: Sequence[Moment], steps: int = 1000) -> None:
    """Of a trajectory."""
    times = np.unique(np.geomspace(1, steps, 60).astype(int))
    for colour, moment in zip(_cycle(len(moments)), moments, strict=True):
        density, rate = moment.spectrum(), 1 / max(moment.largest, 1e-12)
        shares = [error_proxy(density, rate, int(t)) for t in times]
        mean = np.array([s.mean for s in shares])
        error = np.array([s.error if s.error and math.isfinite(s.error) else 0.0 for s in shares])
        worst = np.array([worst_proxy(density, rate, int(t)) for t in times])
        axes.plot(times, _drawable(mean), color=colour, linewidth=1.3, label=f"step {moment.step}, η = {rate:.2g}")
        axes.fill_between(times, _drawable(mean - error), _drawable(mean + error), color=colour, alpha=0.2, linewidth=0)
        axes.plot(times, _drawable(worst), color=colour, linewidth=0.9, linestyle="--")
    axes.axhline(1, color="black", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="steps of gradient descent", ylabel="error proxy (dashed: worst direction)")
    axes.legend(frameon=False, fontsize=7)


def draw_resources(
    axes: Axes, outlooks: Sequence[Outlook], step: ClassicalStep, kept: float, hardware: str = "majorana"
) -> None:
    """Of a model; vertical lines are break-evens."""
    sizes = [round(x) for x in np.geomspace(1e4, 1e24, 61)]
    classical = False
    for colour, told in zip(_cycle(len(outlooks)), outlooks, strict=True):
        found = scaling(told, hardware, step, kept, sizes)
        if found is None:
            continue
        if not classical:
            axes.plot(found.parameters, found.classical, color="black", linewidth=1.5, label="classical, here")
            classical = True
        name = "tables by gates" if told.problem.access == "lookup" else "free quantum memory"
        axes.plot(found.parameters, found.state, color=colour, linewidth=1.3, label=f"state, {name}")
        axes.plot(
            found.parameters, found.downloaded, color=colour, linewidth=1.3, linestyle=":", label=f"download, {name}"
        )
        at = next(h for h in told.hardware if h.estimate.hardware == hardware)
        for even in (at.break_even_parameters, at.downloaded_break_even_parameters):
            if even is not None:
                axes.axvline(even, color=colour, linewidth=0.8)
    if outlooks:
        axes.axvline(outlooks[0].problem.parameters, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    steps = outlooks[0].problem.steps if outlooks else 0
    axes.set(xlabel="kept parameters n (dashed: this model)", ylabel=f"seconds of {steps} steps ({hardware})")
    axes.legend(frameon=False, fontsize=7)


def _figure() -> tuple[Figure, Axes]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise QCascadeError("plots need matplotlib: pip install 'qcascade[studies]'.") from error
    made = Figure(figsize=(5.2, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots()


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _pairs(moment: Moment) -> list[tuple[Numbers, Numbers]]:
    found = moment.spectrum()
    return list(zip(found.values, found.weights, strict=True))


def _smooth(grid: Numbers, values: Numbers, weights: Numbers, width: float) -> Numbers:
    bumps = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    return np.asarray(bumps @ weights)


def _drawable(values: Numbers) -> Numbers:
    """What an axis can show: beyond that a line ends."""
    return np.where(np.isfinite(values) & (values > 1e-12) & (values < 1e12), values, np.nan)
