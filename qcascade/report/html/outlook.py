"""The fault-tolerant report as one HTML page: moments, plots, resources with break-even, and training where it was compared."""

from __future__ import annotations

from qcascade.cost_models.fault_tolerant.comparison import Comparison
from qcascade.cost_models.fault_tolerant.plots import svg
from qcascade.cost_models.fault_tolerant.report import Report
from qcascade.report.html.page import Cell, Page, Section, Value, svg_figure, table

_FIGURES = {
    "spectra": (
        "Spectral density of the Hessian on the kept weights, at every moment.",
        "Stochastic Lanczos quadrature; bands are standard errors over probes. The flow is dissipative where no eigenvalue is negative.",
    ),
    "proxy": (
        "Error proxy against steps of gradient descent, at every moment.",
        "Our proxy of the lift's error: 1 where flat, exponential where any eigenvalue is negative. Dashed: in the worst direction found.",
    ),
    "resources": (
        "Seconds against the number of kept parameters, classical and quantum.",
        "Seconds a gate are held at the problem's own. Vertical lines: break-even; dashed grey: this model.",
    ),
}


def to_html(report: Report, compared: Comparison | None = None) -> str:
    """The page; it loads nothing from anywhere (needs matplotlib)."""
    left = report.trajectory.sparsity
    page = Page("Fault-tolerant outlook", f"{left.kept:,} of {left.parameters:,} parameters kept")
    drawn = report.figures()
    figures = {name: svg_figure(svg(drawn[name]), alt=alt, caption=text) for name, (alt, text) in _FIGURES.items()}
    page.section("Spectra through training").add(_moments(report), figures["spectra"])
    page.section("Error of the lift").add(figures["proxy"])
    _resources(page.section("Resources and break-even").add(figures["resources"]), report)
    if compared is not None:
        _training(page.section("Sparse training with download and re-upload"), compared)
    return page.to_html()


def _moments(report: Report) -> str:
    rows = [
        [
            str(m.step), m.loss, m.smallest, m.largest, m.positive.mean, m.positive.error, m.negative.mean, m.negative.error,
            m.row_largest, m.carleman.least,
        ]
        for m in report.trajectory.moments
    ]  # fmt: skip
    columns = (
        "step", "loss", "λ min", "λ max", "mass λ > 0", "± error", "mass λ < 0", "± error of it", "non-zeros in a row", "R at least",
    )  # fmt: skip
    return table(columns, rows, caption="What the Hessian on the kept weights is like; R is the Carleman number.")


def _resources(section: Section, report: Report) -> None:
    rows: list[list[Cell]] = []
    for told in report.outlooks:
        memory = "looked up by gates" if told.problem.access == "lookup" else "quantum memory that costs nothing"
        for h in told.hardware:
            bound = ", at least" if h.estimate.lower_bound else ""
            rows.append([
                f"{h.estimate.hardware}, {memory}{bound}", told.logical.qubits, _figure(told.logical.queries),
                _figure(told.logical.t_gates),
                _figure(h.estimate.qubits), _figure(h.upload_seconds), _hours(h.state_seconds), _hours(h.download_seconds),
                _figure(h.break_even_parameters, "none"), _figure(h.downloaded_break_even_parameters, "none"),
            ])  # fmt: skip
    columns = (
        "hardware and tables", "logical qubits", "queries", "T gates", "physical qubits", "an upload, s", "the state, h",
        "with download, h", "break-even n, state", "break-even n, download",
    )  # fmt: skip
    problem = report.outlooks[0].problem
    section.add(
        table(
            columns, rows, caption=f"What {problem.steps} steps of {problem.parameters:,} kept parameters would take."
        ),
        f"Classically, here: {report.outlooks[0].classical_seconds:.3g} s. Every constant and how it was checked is named in "
        "qcascade.cost_models.fault_tolerant.logical.",
    )


def _training(section: Section, compared: Comparison) -> None:
    rows = [
        [r.method, r.scores[-1][1], r.classical_flops / 1e9, r.classical_seconds, len(r.segments), r.quantum_steps]
        for r in compared.runs
    ]
    columns = ("training", "loss", "classical GFLOP", "classical s", "segments", "quantum steps")
    section.add(table(columns, rows, caption="The same batches and number of steps for each."))
    charged: list[list[Cell]] = [
        [
            f"segment at step {s.start}, {c.hardware}, {'by gates' if c.access == 'lookup' else 'free memory'}", s.steps, s.worst,
            _figure(c.queries), _figure(c.t_gates), _figure(c.upload_seconds), _hours(c.state_seconds), _hours(c.total_seconds),
        ]
        for r in compared.runs for s in r.segments for c in s.charges
    ]  # fmt: skip
    if charged:
        names = (
            "segment", "steps", "proxy, worst", "queries", "T gates", "an upload, s", "the state, h", "with download, h",
        )  # fmt: skip
        section.add(table(names, charged, caption="What each segment would take."))


def _figure(value: float | None, absent: str = "not estimated") -> Value | str:
    return absent if value is None else Value(value, f"{value:.3g}")


def _hours(seconds: float | None) -> Value | str:
    return _figure(None if seconds is None else seconds / 3600)
