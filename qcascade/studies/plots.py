"""Plots of studies: matplotlib without a display, colours that the colour-blind tell apart, small PNG files.

matplotlib is imported when the first plot is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from qcascade.errors import QCascadeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # lines differ in more than their colour
_STYLE: Any = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_INCHES, _DPI = 3.6, 110
_LETTERS = 42  # of a title on the width of one axes


@contextmanager
def plot(file: Path, columns: int = 1, rows: int = 1, title: str = "") -> Iterator[list[Axes]]:
    """A PNG with so many axes beside one another; written when the block ends without an error.

    Raises:
        QCascadeError: matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "line.png"
        >>> with plot(file) as (axes,):
        ...     curves(axes, {"a": ([1, 2], [3, 4])}, "step", "loss")
        >>> file.stat().st_size < 200_000
        True
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise QCascadeError("plots need matplotlib: pip install 'qcascade[studies]'.") from error
    with mpl.rc_context(_STYLE):  # no pyplot: nothing global, no display
        figure = Figure(figsize=(_INCHES * columns, 0.78 * _INCHES * rows), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        found = figure.subplots(rows, columns, squeeze=False)
        yield list(found.flat)
        if title:
            figure.suptitle("\n".join(wrap(title, round(_LETTERS * columns))))
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Software": None})


def curves(
    axes: Axes,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    *,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    title: str = "",
    log: str = "",
) -> None:
    """Lines with markers, by name.

    Args:
        axes: Where.
        lines: x and y of each.
        x: What the axis shows, with its unit.
        y: The same.
        bands: Lower and upper values about a line of the same name.
        title: Above.
        log: Axes with a logarithmic scale: "", "x", "y" or "xy".
    """
    for number, (name, (along, values)) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            along,
            values,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markersize=3.5,
            linewidth=1.4,
            label=name,
        )
        if bands is not None and name in bands:
            axes.fill_between(along, *bands[name], color=colour, alpha=0.18, linewidth=0)
    if "x" in log:
        axes.set_xscale("log", base=2)
    if "y" in log:
        axes.set_yscale("log")
    axes.set(xlabel=x, ylabel=y, title=title)
    if len(lines) > 1:
        axes.legend(frameon=False)
