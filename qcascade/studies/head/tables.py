"""The study's tables and plots, from its records alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from qcascade.studies.head.screening import Results, architecture
from qcascade.studies.plots import curves, plot
from qcascade.studies.records import Record
from qcascade.studies.results import write_results
from qcascade.studies.statistics import Comparison, compare, summarise
from qcascade.studies.tables import StudyTable

SOURCE_GAIN, SOURCE_ACCURACY, SOURCE_QUBITS, SOURCE_PARAMETERS = 3.14, 92.7, 14, 886  # Kim et al. 2025
_NAMES = {
    "logistic": "logistic regression",
    "svm": "SVM (RBF)",
    "mlp": "MLP, as many parameters",
    "random-features": "random Fourier features, as many parameters",
}


def write(results: Results, out: Path, *, plots: bool = True, page: bool = False) -> str:
    """Write table.md, the plots and report.html, if asked for, to a folder; returns the tables as text."""
    kinds = [kind for kind in ("frozen", "tuned") if kind in results.quantum]
    tables = [heads(results, kind) for kind in kinds]
    if results.classical:
        tables.append(against_source(results))
    tables += [protocol(results), effects(results)]
    if len(results.quantum) > len(kinds):
        tables.append(ablations(results))
    if results.sampled:
        tables.append(samples(results))
    groups = [*results.quantum.values(), *results.classical.values(), *results.sampled.values()]
    groups += [runs for found in results.effects.values() for runs in found.values()]
    commands = [record.command for runs in groups for record in runs]
    if plots:
        _plots(results, out)
    write_results(out, "Re-uploading head on sentence embeddings", tables, commands, page=page)
    return "\n".join(table.text() for table in tables)


def heads(results: Results, embeddings: str) -> StudyTable:
    """The final head beside the classical columns, all on the same parts of train."""
    final = results.quantum[embeddings]
    rows = [_row(f"re-uploading head ({architecture(results.final)})", final, final)]
    rows += [_row(_NAMES[method], runs, final) for (method, of), runs in results.classical.items() if of == embeddings]
    what = "MiniLM as it is" if embeddings == "frozen" else "MiniLM fine-tuned for one epoch"
    return StudyTable(
        f"Heads on {what}: accuracy in per cent, mean ± deviation over seeds [95 % interval of the mean]",
        ("head", "trained parameters", "seeds", "dev", "test", "head less this, test [95 %]", "p (paired t)"),
        tuple(rows),
        (
            "Each seed trains on its own random part of train; settings are chosen by dev. The intervals are over seeds: the test "
            f"set's own sampling error, the same for all rows, is about ±{_sampling(results):.1f} points (95 %). An SVM's parameters "
            "are its support vectors' coefficients.",
        ),
    )


def against_source(results: Results) -> StudyTable:
    """What the source claims and what was found here."""
    rows = []
    for embeddings in (kind for kind in ("frozen", "tuned") if kind in results.quantum):
        final = results.quantum[embeddings]
        for method, name in (("mlp", "the MLP of as many parameters"), ("logistic", "logistic regression")):
            if (method, embeddings) not in results.classical:
                continue
            found = _compared(results.classical[method, embeddings], final)
            rows.append(
                (
                    f"gain over {name}, {embeddings}, points",
                    f"up to {SOURCE_GAIN} over a comparable classical head",
                    _difference(found),
                )
            )
        rows.append(
            (
                f"accuracy, {embeddings}",
                f"{SOURCE_ACCURACY} ({SOURCE_QUBITS} qubits, {SOURCE_PARAMETERS} parameters)",
                f"{_summary(final, 'test')} ({results.final.qubits} qubits, {final[0].measured['parameters']} parameters)",
            )
        )
    for runs in results.effects.get("the source's width and parameters", {}).values():
        settings, measured = runs[0].settings, runs[0].measured
        rows.append(
            (
                f"accuracy, frozen, {settings['qubits']} qubits, {measured['parameters']} parameters, {measured['texts']} sentences, "
                f"{settings['epochs']} epochs, one seed",
                f"{SOURCE_ACCURACY}",
                _summary(runs, "test"),
            )
        )
    widths = results.effects.get("qubits", {})
    if len(widths) > 1:
        said = ", ".join(f"{width}: {_mean(_scores(runs, 'dev'), '.1f')}" for width, runs in widths.items())
        rows.append(("dev accuracy by qubits (few sentences)", "grows with qubits", said))
    return StudyTable(
        "Against the source",
        ("figure", "Kim et al. 2025", "here"),
        tuple(rows),
        ("The source's sentence transformer is another one, fine-tuned contrastively; only gains are comparable.",),
    )


def protocol(results: Results) -> StudyTable:
    """What dev chose, in order."""
    rows = [
        (
            choice.factor,
            ", ".join(
                f"{value}: {'diverged' if score == -math.inf else f'{score:.2f}'}"
                for value, score in choice.scores.items()
            ),
            str(choice.chosen),
        )
        for choice in results.protocol
    ]
    return StudyTable(
        f"Protocol, chosen by mean dev accuracy on the base architecture ({architecture(results.base)})",
        ("choice", "dev accuracy of each", "chosen"),
        tuple(rows),
    )


def effects(results: Results) -> StudyTable:
    """One factor at a time about the base."""
    rows = []
    for factor, found in results.effects.items():
        for value, runs in found.items():
            parameters = str(runs[0].measured["parameters"])
            dev, test = _summary(runs, "dev"), _with_interval(runs)
            seconds = [1000 * float(run.measured["step_seconds"]) for run in runs if "step_seconds" in run.measured]
            sentences = f"{runs[0].measured['texts']} × {runs[0].settings['epochs']}"
            rows.append((factor, value, parameters, sentences, _seeds(runs), dev, test, _mean(seconds, ".1f")))
    return StudyTable(
        "Main effects of the architecture (frozen embeddings)",
        ("factor", "value", "parameters", "sentences × epochs", "seeds", "dev", "test [95 %]", "ms a step"),
        tuple(rows),
        ("Milliseconds are of one thread on a machine that was busy; each record holds the load.",),
    )


def ablations(results: Results) -> StudyTable:
    """The final head with a module taken out."""
    final = results.quantum["frozen"]
    rows = []
    for name, runs in results.quantum.items():
        if name == "tuned":
            continue
        label = "all modules" if name == "frozen" else name
        rows.append(
            (
                label,
                str(runs[0].measured["parameters"]),
                _seeds(runs),
                _summary(runs, "dev"),
                _summary(runs, "test"),
                "" if name == "frozen" else _difference(_compared(final, runs)),
            )
        )
    return StudyTable(
        "Ablations of the final head (frozen embeddings)",
        ("head", "trained parameters", "seeds", "dev", "test", "less all modules, test [95 %]"),
        tuple(rows),
        (
            "As defined: the embedding itself is loaded, angles start in ±π. Without encoder: a trained linear layer and tanh give the Q "
            "values. Without reuploads: the encoders' ⟨Z⟩ go to the linear layer. Without entanglers: no CNOT. Without training: random "
            "circuits, only the linear layer learns.",
        ),
    )


def samples(results: Results) -> StudyTable:
    """On shots and noise."""
    rows = []
    for name, runs in results.sampled.items():
        errors = [float(r.measured["standard_error"]) for r in runs if "standard_error" in r.measured]
        gates = next(
            (" + ".join(map(str, r.measured["two_qubit_gates"])) for r in runs if "two_qubit_gates" in r.measured), ""
        )
        rows.append(
            (
                name,
                str(runs[0].measured["sentences"]),
                _seeds(runs),
                _summary(runs, "test"),
                _summary(runs, "exact"),
                f"{fmean(errors):.3f}" if errors else "",
                gates,
            )
        )
    return StudyTable(
        "On finite shots and under devices' noise (trained exactly, frozen embeddings)",
        ("evaluated", "test sentences", "seeds", "test", "exact on these", "standard error of ⟨Z⟩", "two-qubit gates"),
        tuple(rows),
        (
            "16 amplitudes: 15 principal components and a constant, so that loading is feasible on a device. The final head was not run "
            "under noise: loading 2^q amplitudes takes 2^q − 2 two-qubit gates before its ansatz.",
        ),
    )


def _plots(results: Results, out: Path) -> None:
    names = [name for name, found in results.effects.items() if len(found) > 1]
    with plot(out / "effects.png", columns=len(names), title="Dev accuracy, one factor at a time") as panels:
        for axes, name in zip(panels, names, strict=True):
            found = {value: runs for value, runs in results.effects[name].items() if _scores(runs, "dev")}
            along = [float(value) for value in found]
            spread = [summarise(_scores(runs, "dev")) for runs in found.values()]
            low = [s.mean - (s.deviation or 0) for s in spread]
            high = [s.mean + (s.deviation or 0) for s in spread]
            curves(axes, {name: (along, [s.mean for s in spread])}, name, "dev accuracy (%)", bands={name: (low, high)})
    with plot(out / "curves.png", columns=2, title="Training of the final head (means over seeds)") as panels:
        for axes, key, label in (
            (panels[0], "loss_by_epoch", "training loss"),
            (panels[1], "dev_by_epoch", "dev accuracy (%)"),
        ):
            lines = {}
            for name in (n for n in ("frozen", "tuned", "as defined", "without training") if n in results.quantum):
                each = [run.measured[key] for run in results.quantum[name] if key in run.measured]
                if not each:
                    continue
                lines[name] = (
                    [float(n) for n in range(1, len(each[0]) + 1)],
                    [fmean(values) for values in zip(*each, strict=True)],
                )
            curves(axes, lines, "epoch", label)
    with plot(out / "parameters.png", title="Frozen MiniLM") as (axes,):
        points = {"re-uploading head": results.quantum["frozen"]}
        points |= {_NAMES[m].split(",")[0]: runs for (m, of), runs in results.classical.items() if of == "frozen"}
        lines = {
            name: ([float(runs[0].measured["parameters"])], [fmean(_scores(runs, "test"))])
            for name, runs in points.items()
            if _scores(runs, "test")
        }
        curves(axes, lines, "trained parameters", "test accuracy (%)", log="x")


def _row(name: str, runs: Sequence[Record], final: Sequence[Record]) -> tuple[str, ...]:
    against = None if runs is final else _compared(runs, final)
    return (
        name,
        f"{fmean(float(run.measured['parameters']) for run in runs):.0f}",
        _seeds(runs),
        _summary(runs, "dev"),
        _with_interval(runs),
        _difference(against),
        "" if against is None or against.t_test is None else f"{against.t_test:.2g}",
    )


def _compared(first: Sequence[Record], second: Sequence[Record]) -> Comparison | None:
    """Second less first on test, over the seeds with which neither diverged; None: there are none."""
    one, other = (
        {run.settings["seed"]: float(run.measured["test"]) for run in runs if run.measured["test"] is not None}
        for runs in (first, second)
    )
    shared = [seed for seed in one if seed in other]
    return compare([one[seed] for seed in shared], [other[seed] for seed in shared]) if shared else None


def _difference(found: Comparison | None) -> str:
    return "" if found is None else f"{found.difference:+.2f}{_interval(found.low, found.high)}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"


def _scores(runs: Sequence[Record], split: str) -> list[float]:
    """Of the runs that did not diverge."""
    return [float(run.measured[split]) for run in runs if run.measured[split] is not None]


def _summary(runs: Sequence[Record], split: str) -> str:
    scores = _scores(runs, split)
    return str(summarise(scores)) if scores else "diverged"


def _with_interval(runs: Sequence[Record]) -> str:
    scores = _scores(runs, "test")
    found = summarise(scores) if scores else None
    return "diverged" if found is None else f"{found}{_interval(found.low, found.high)}"


def _seeds(runs: Sequence[Record]) -> str:
    """How many, and how many of them are in no figure."""
    diverged = sum("diverged" in run.measured for run in runs)
    return f"{len(runs)} ({diverged} diverged)" if diverged else str(len(runs))


def _mean(values: Sequence[float], form: str) -> str:
    return f"{fmean(values):{form}}" if values else "diverged"


def _sampling(results: Results) -> float:
    """Half of the 95 % interval of an accuracy on the test set, in points."""
    share = fmean(_scores(results.quantum["frozen"], "test")) / 100
    sentences = results.quantum["frozen"][0].measured["test_texts"]
    return float(196 * (share * (1 - share) / sentences) ** 0.5)
