"""Tables and plots of what the records hold: spectra, resources and training; markdown and PNG beside the records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qcascade.cost_models.fault_tolerant import plots
from qcascade.cost_models.fault_tolerant.logical import download_copies
from qcascade.cost_models.fault_tolerant.outlook import ClassicalStep, Outlook
from qcascade.cost_models.fault_tolerant.pruning import Sparsity
from qcascade.cost_models.fault_tolerant.report import outlooks
from qcascade.cost_models.fault_tolerant.trajectory import Moment, error_proxy, moment_from, worst_proxy
from qcascade.errors import ExecutionError, first_line
from qcascade.studies.fault_tolerant.oracle import oracle_table
from qcascade.studies.fault_tolerant.solver import solver_table
from qcascade.studies.fault_tolerant.spectra import RUNS
from qcascade.studies.plots import COLOURS, curves, plot
from qcascade.studies.records import Record, Records
from qcascade.studies.results import write_results
from qcascade.studies.statistics import compare, summarise
from qcascade.studies.tables import StudyTable

_STEPS = 1000  # looked ahead
_YEAR = 365.25 * 86400


def write_tables(out: Path, *, page: bool = False) -> list[StudyTable]:
    """Write table.md, the plots and, if asked for, report.html of all records in a folder; what is missing is left out.

    Raises:
        ExecutionError: There are no records, or one is not of this study.
    """
    made, used = list[StudyTable](), list[Record]()
    with _records(out / "moments.jsonl") as records:
        if moments := _by_model(records):
            made.append(_spectra_table(moments))
            _spectra_plot(out, moments)
            used += [record for pairs in moments.values() for _, record in pairs]
    with _records(out / "outlooks.jsonl") as records:
        if told := {r.settings["model"]: r for r in records}:  # the last one of each
            estimated = {name: _outlooks(record) for name, record in told.items()}
            made.append(_resources_table(told, estimated))
            _resources_plot(out, told, estimated)
            used += told.values()
    for name, table in (("oracle", oracle_table), ("solver", solver_table)):
        with _records(out / f"{name}.jsonl") as records:
            if records:
                made.append(table(records))
                used += records
    with _records(out / "training.jsonl") as records:
        for task in sorted({r.settings["task"] for r in records}):
            own = _of_last_data([r for r in records if r.settings["task"] == task])
            made += [_accuracy_table(task, own), _charges_table(task, own)]
            _training_plot(out, task, own)
            used += own
    if not made:
        raise ExecutionError(f"there are no records in {out}; give the --out of a study, or another --part first.")
    commands = [record.command for record in used]
    write_results(out, "Training on a fault-tolerant quantum computer", made, commands, page=page)
    return made


@contextmanager
def _records(file: Path) -> Iterator[list[Record]]:
    """Those of a file; what is missing in one is one clear error."""
    try:
        yield Records(file).all()
    except (KeyError, IndexError, TypeError) as error:
        raise ExecutionError(
            f"{file} holds a record that is not of this study ({first_line(error, named=True)}); mend or move the file."
        ) from error


def _of_last_data(records: Sequence[Record]) -> list[Record]:
    """Those on the data of the last one: seeds are compared on the same sentences."""
    return [r for r in records if r.settings.get("digest") == records[-1].settings.get("digest")]


def _by_model(records: Iterable[Record]) -> dict[str, list[tuple[Moment, Record]]]:
    """Of the present settings where there are such records, else of the last ones before."""
    found: dict[str, dict[str, list[tuple[Moment, Record]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        run = record.settings["run"]
        found[run["model"]][json.dumps(run, sort_keys=True)].append((moment_from(record.measured["moment"]), record))
    return {
        name: sorted(_present_or_last(list(runs.values())), key=lambda p: p[0].step) for name, runs in found.items()
    }


def _present_or_last(runs: Sequence[list[tuple[Moment, Record]]]) -> list[tuple[Moment, Record]]:
    return ([pairs for pairs in runs if _is_present(pairs[0][1])] or runs)[-1]


def _is_present(record: Record) -> bool:
    """Whether the command would measure the same now, on the same data."""
    run = {**record.settings["run"], "digest": ""}
    model = run["model"]
    return model in RUNS and json.dumps(run, sort_keys=True) == json.dumps(asdict(RUNS[model]), sort_keys=True)


def _earlier(moments: Mapping[str, Sequence[tuple[Moment, Record]]]) -> str:
    names = [name for name, pairs in moments.items() if not _is_present(pairs[0][1])]
    if not names:
        return ""
    return f" {', '.join(names)}: of earlier settings, on fewer sentences or steps; the command now measures on more."


def _spectra_table(moments: Mapping[str, Sequence[tuple[Moment, Record]]]) -> StudyTable:
    rows = []
    for name, pairs in moments.items():
        for m, record in pairs:
            rows.append((
                name, str(m.step), f"{m.loss:.3f}", _learned(record), f"{m.smallest:.3g}", f"{m.largest:.3g}",
                _share(m.positive.mean, m.positive.error), _share(m.negative.mean, m.negative.error),
                "–" if m.dissipative is None else f"{m.dissipative:.2f}",
                _until(lambda t, m=m: error_proxy(m.spectrum(), 1 / m.largest, t).mean),  # type: ignore[misc]
                _until(lambda t, m=m: worst_proxy(m.spectrum(), 1 / m.largest, t)),  # type: ignore[misc]
                f"{m.row_largest:.3g}", f"{m.carleman.least:.3g}", _sentences(record), f"{record.measured['peak_bytes'] / 2**30:.1f}",
            ))  # fmt: skip
    columns = (
        "model", "step", "loss", "dev, %", "λ_min", "λ_max", "λ>0", "λ<0", "dissipative", "steps to proxy 2", "worst direction", "row s",
        "R ≥", "measured on", "peak GiB",
    )  # fmt: skip
    notes = (
        "Steps count from pruning (90 %). Masses are shares of the density beyond 1 % of the largest |λ|, ± standard error over probes. "
        "The proxy of the lift's error (our definition, see `trajectory`) is at η = 1/λ_max: 1 at first, above 2 from that step on, as a "
        "mean over the density and in the worst direction found. R is a lower bound; with λ_min < 0 it is not defined. Row s: most "
        "non-zeros found in a row of the Hessian. Measured on: sentences · probes · Lanczos steps of each. Peak: of the process so far."
        + _earlier(moments),
    )
    return StudyTable("Hessian spectra on kept weights", columns, tuple(rows), notes)


def _learned(record: Record) -> str:
    """Accuracy, which the oldest records do not hold."""
    return f"{record.measured['dev']:.1f}" if "dev" in record.measured else "–"


def _sentences(record: Record) -> str:
    run = record.settings["run"]
    return f"{run['batch'] * run['measured']} · {run['probes']} · {run['iterations']}"


def _until(proxy: Callable[[int], float]) -> str:
    """The first of `_STEPS` steps at which it passes 2."""
    return next((str(t) for t in range(1, _STEPS + 1) if proxy(t) > 2), f"> {_STEPS}")


def _share(mean: float, error: float | None) -> str:
    return f"{mean:.2g}" + ("" if error is None else f" ± {error:.1g}")


def _spectra_plot(out: Path, moments: Mapping[str, Sequence[tuple[Moment, Record]]]) -> None:
    for name, draw in (("spectra", plots.draw_spectra), ("proxy", plots.draw_proxy)):
        with plot(out / f"{name}.png", columns=min(3, len(moments)), rows=-(-len(moments) // 3)) as axes:
            for one in axes[len(moments) :]:
                one.set_visible(False)
            for one, (model, pairs) in zip(axes, moments.items(), strict=False):
                draw(one, [m for m, _ in pairs])
                one.set_title(model)


def _outlooks(record: Record) -> tuple[tuple[Outlook, ...], ClassicalStep, Sparsity]:
    """As they were told, made again: they follow from the sparsity, the row and the classical step in the record."""
    step, left = ClassicalStep(**record.measured["step"]), Sparsity(**record.measured["sparsity"])
    problem = record.measured["outlooks"][0]["problem"]
    return outlooks(left, problem["row_sparsity"], step, steps=problem["steps"]), step, left


def _resources_table(
    told: Mapping[str, Record], estimated: Mapping[str, tuple[tuple[Outlook, ...], ClassicalStep, Sparsity]]
) -> StudyTable:
    rows = []
    for name in told:
        found, _, left = estimated[name]
        for one in found:
            for h in one.hardware:
                bound = "≥ " if h.estimate.lower_bound else ""
                rows.append((
                    name, f"{left.parameters:.3g}", f"{left.kept:.3g}", "by gates" if one.problem.access == "lookup" else "free memory",
                    h.estimate.hardware, str(one.logical.qubits), f"{one.logical.queries:.2g}", f"{one.logical.t_gates:.2g}",
                    "–" if h.estimate.qubits is None else f"{h.estimate.qubits:.2g}", bound + _years(h.state_seconds),
                    bound + _years(h.download_seconds), f"{one.classical_seconds / 3600:.2g} h", _even(h.break_even_parameters),
                    _even(h.downloaded_break_even_parameters),
                ))  # fmt: skip
    columns = (
        "model", "parameters", "kept", "tables", "hardware", "logical qubits", "queries", "T gates", "physical qubits",
        "one state, years", "with download, years", "classical, here", "break-even n, state", "break-even n, download",
    )  # fmt: skip
    notes = (
        f"{estimated[next(iter(told))][0][0].problem.steps} steps, s as measured, ε = 0.01, K = 3, κ at its bound for a contractive lift "
        "(which these are not: λ_min < 0). "
        "≥: longer than the estimator counts, scaled. Free memory: a quantum memory whose hardware and time are left out. "
        "Classical: a step of this study's small batch on one thread of a busy machine, times the steps.",
    )
    return StudyTable("What quantum training would take", columns, tuple(rows), notes)


def _years(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / _YEAR:.2g}"


def _even(parameters: int | None) -> str:
    return "none" if parameters is None else f"{parameters:.2g}"


def _resources_plot(
    out: Path,
    told: Mapping[str, Record],
    estimated: Mapping[str, tuple[tuple[Outlook, ...], ClassicalStep, Sparsity]],
) -> None:
    with plot(out / "resources.png", columns=min(3, len(told)), rows=-(-len(told) // 3)) as axes:
        for one in axes[len(told) :]:
            one.set_visible(False)
        for one, (model, (found, step, left)) in zip(axes, estimated.items(), strict=False):
            plots.draw_resources(one, found, step, left.kept / left.parameters)
            one.set_title(model)


Runs = dict[str, dict[int, Mapping[str, Any]]]


def _by_variant(records: Sequence[Record]) -> Runs:
    found: Runs = defaultdict(dict)
    for record in records:
        found[record.settings["variant"]][record.settings["schedule"]["seed"]] = record.measured
    return found


def _accuracy_table(task: str, records: Sequence[Record]) -> StudyTable:
    found = _by_variant(records)
    plain = found.get("sparse", {})
    rows = []
    for variant, runs in found.items():
        shared = sorted(set(runs) & set(plain))
        against = compare([plain[s]["test"] for s in shared], [runs[s]["test"] for s in shared]) if shared else None
        own = [runs[s]["run"] for s in sorted(runs)]
        rows.append((
            variant, str(len(runs)), str(summarise([m["test"] for m in runs.values()])),
            "–" if against is None or variant == "sparse" else _difference(against.difference, against.low, against.high),
            f"{_mean([r['classical_flops'] / 1e9 for r in own]):.3g}", f"{_mean([r['classical_seconds'] for r in own]):.2g}",
            f"{_mean([len(r['segments']) for r in own]):.1f}", f"{_mean([sum(s['steps'] for s in r['segments']) for r in own]):.0f}",
        ))  # fmt: skip
    columns = (
        "training", "seeds", "test accuracy, %", "less sparse (95 %)", "classical GFLOP", "classical s", "segments",
        "quantum steps",
    )  # fmt: skip
    schedule = records[0].settings["schedule"]
    notes = (
        f"{schedule['steps']} steps in all, {schedule['warmup']} of them dense at first; {100 * schedule['prune']:.0f} % pruned; a segment "
        f"ends before the proxy in the worst direction passes {schedule['tolerance']}; {schedule['dense']} dense steps between segments; "
        f"download to δ = {schedule['download_precision']}. Classical figures hold the Hessian products before uploads, and not what a "
        "quantum computer would run.",
    )
    return StudyTable(f"Sparse training with download and re-upload: {task}", columns, tuple(rows), notes)


def _charges_table(task: str, records: Sequence[Record]) -> StudyTable:
    rows = []
    for variant, runs in _by_variant(records).items():
        own = [_charged(runs[s]["run"], records[0].settings["schedule"]["download_precision"]) for s in sorted(runs)]
        keys = dict.fromkeys((c["access"], c["hardware"]) for charges in own for c in charges)
        for access, hardware in keys:
            mine = [[c for c in charges if (c["access"], c["hardware"]) == (access, hardware)] for charges in own]
            every = [c for charges in mine for c in charges]
            if any(c["total_seconds"] is None for c in every):
                continue
            bound = "≥ " if any(c["lower_bound"] for c in every) else ""
            rows.append((
                variant, "by gates" if access == "lookup" else "free memory", hardware,
                f"{_mean([len(charges) for charges in mine]):.1f}", f"{_mean([c['queries'] for c in every]):.2g}",
                f"{_mean([c['t_gates'] for c in every]):.2g}", f"{max(c['logical_qubits'] for c in every)}",
                f"{max(c['physical_qubits'] for c in every):.2g}", f"{_mean([c['upload_seconds'] for c in every]):.2g} s",
                bound + f"{_mean([c['state_seconds'] for c in every]) / 3600:.2g} h", f"{_mean([c['download_copies'] for c in every]):.2g}",
                bound + f"{_mean([sum(c['total_seconds'] for c in charges) for charges in mine]) / _YEAR:.2g} years",
            ))  # fmt: skip
    columns = (
        "training", "tables", "hardware", "segments", "queries", "T gates", "logical qubits", "physical qubits", "an upload",
        "one state", "copies a download", "all segments",
    )  # fmt: skip
    notes = (
        "Queries, T gates and times of a segment are means. All segments: every copy of every download with its run and upload. "
        "κ at its bound for a contractive lift, though λ_min < 0: optimistic. Free memory: its hardware and time are left out.",
    )
    return StudyTable(f"What the segments would take: {task}", columns, tuple(rows), notes)


def _charged(run: Mapping[str, Any], precision: float) -> list[dict[str, Any]]:
    """The charges of a run, downloads counted again: they follow from what was kept."""
    found = []
    for segment in run["segments"]:
        copies = download_copies(segment["kept"], precision)
        for charge in segment["charges"]:
            state = charge["state_seconds"]
            total = None if state is None else state * copies
            found.append({**charge, "download_copies": copies, "total_seconds": total})
    return found


def _difference(difference: float, low: float | None, high: float | None) -> str:
    return f"{difference:+.2f}" + ("" if low is None or high is None else f" [{low:+.2f}, {high:+.2f}]")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _training_plot(out: Path, task: str, records: Sequence[Record]) -> None:
    lines: dict[str, list[list[tuple[int, float]]]] = defaultdict(list)
    for record in records:
        lines[record.settings["variant"]].append([(int(s), float(v)) for s, v in record.measured["run"]["scores"]])
    with plot(out / f"training-{task}.png") as (axes,):
        drawn = {}
        for name, runs in lines.items():
            steps = sorted(set.intersection(*({s for s, _ in run} for run in runs)))
            drawn[name] = (steps, [_mean([dict(run)[s] for run in runs]) for s in steps])
        curves(axes, drawn, "training steps", "dev accuracy, %", title=task)
        for colour, runs in zip(COLOURS, lines.values(), strict=False):
            for run in runs:
                axes.plot(*zip(*run, strict=True), color=colour, alpha=0.15, linewidth=0.6)
