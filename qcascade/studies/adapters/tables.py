"""The study's tables and plots, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from qcascade.studies.adapters.screening import Results
from qcascade.studies.plots import curves, plot
from qcascade.studies.records import Record
from qcascade.studies.statistics import compare, summarise
from qcascade.studies.tables import StudyTable, to_markdown

_NAMES = {
    "none": "head only / nothing",
    "full": "full fine-tuning",
    "lora": "LoRA",
    "sora": "SoRA",
    "prefix": "prefix tuning",
    "amplitude": "amplitude adapter",
}
_FIGURE = {"sentences": "accuracy (%)", "language": "perplexity"}
_TITLE = {
    "sentences": "MiniLM on labelled sentences: accuracy (%)",
    "language": "A small causal language model, pretrained on one label's reviews and adapted to another's: perplexity",
}


def write(results: Results, out: Path, *, plots: bool = True) -> str:
    """Write table.md, and the plots, to a folder; returns the tables as text."""
    tasks = list(dict.fromkeys(task for task, _ in results.main))
    tables = [methods(results, task) for task in tasks]
    tables += [sizes(results, task) for task in tasks if any(key[0] == task for key in results.sizes)]
    if results.widths:
        tables.append(widths(results))
    tables.append(rates(results))
    shown = (*results.main.values(), *results.sizes.values(), *results.widths.values())
    commands = [record.command for runs in shown for record in runs]
    (out / "table.md").write_text(to_markdown("Adapters under one budget", tables, commands))
    for task in tasks if plots else ():
        _plots(results, task, out)
    return "\n".join(table.text() for table in tables)


def methods(results: Results, task: str) -> StudyTable:
    """Every method at its default size."""
    full = results.main.get((task, "full"))
    rows = []
    for (of, method), runs in results.main.items():
        if of != task:
            continue
        test, memory = summarise(_scores(runs, "test")), runs[0].measured["memory"]
        apart = None if full is None or method == "full" else compare(_scores(full, "test"), _scores(runs, "test"))
        rows.append(
            (
                _name(runs),
                f"{runs[0].measured['parameters']}",
                str(len(runs)),
                str(summarise(_scores(runs, "dev"))),
                f"{test}{_interval(test.low, test.high)}",
                "" if apart is None else f"{apart.difference:+.2f}{_interval(apart.low, apart.high)}",
                _milliseconds(runs),
                f"{sum(memory.values()) / 1e6:.0f} ({memory['activations'] / 1e6:.0f})",
            )
        )
    first = next(runs[0] for (of, _), runs in results.main.items() if of == task)
    settings, measured = first.settings, first.measured
    unit = "sentences" if task == "sentences" else "blocks of words"
    notes = [
        f"{settings['steps']} steps of {settings['batch']} for every method; dev and test figures on {measured['scored'][0]} and "
        f"{measured['scored'][1]} {unit}, the same for all. The rate is the best of two by dev at seed 0. Memory is counted from "
        "tensors: weights, gradients and moments, activations. Milliseconds are of one thread on a busy machine (each record "
        "holds the load): compare their ratios.",
    ]
    if task == "sentences":
        notes.append(
            f"Every method also trains the linear head ({measured['head_parameters']} parameters, not counted). In BERT a prefix "
            "shifts the positions of the sentence by its length, so that it does not start at the pretrained function."
        )
    else:
        notes.append(f"Before adapting, test perplexity is {measured['test_before']:.2f}.")
    gates = [run for (of, method), runs in results.main.items() if (of, method) == (task, "sora") for run in runs]
    if gates:
        left = fmean(float(run.measured["gates_left"]) for run in gates)
        notes.append(f"Of SoRA's gates {left:.1f} are left on average; its parameters are those it starts with.")
    return StudyTable(
        _TITLE[task],
        (
            "method",
            "trained parameters",
            "seeds",
            "dev",
            "test [95 %]",
            "less full fine-tuning [95 %]",
            "ms a step",
            "memory, MB (activations)",
        ),
        tuple(rows),
        tuple(notes),
    )


def sizes(results: Results, task: str) -> StudyTable:
    """Ranks, virtual tokens and layers."""
    rows = [
        (
            _name(runs),
            f"{runs[0].measured['parameters']}",
            str(len(runs)),
            str(summarise(_scores(runs, "dev"))),
            str(summarise(_scores(runs, "test"))),
            _milliseconds(runs),
        )
        for (of, _, _), runs in results.sizes.items()
        if of == task
    ]
    return StudyTable(
        f"Sizes: {_FIGURE[task]}, {task}",
        ("method", "trained parameters", "seeds", "dev", "test", "ms a step"),
        tuple(rows),
    )


def widths(results: Results) -> StudyTable:
    """The language model's width, which sets the adapter's qubits."""
    rows = [
        (
            str(width),
            str(width.bit_length() - 1 if width & (width - 1) == 0 else width.bit_length()),
            _name(runs),
            f"{runs[0].measured['parameters']}",
            f"{fmean(_scores(runs, 'test_before')):.2f}",
            str(summarise(_scores(runs, "dev"))),
            str(summarise(_scores(runs, "test"))),
        )
        for (_, width), runs in sorted(results.widths.items(), key=lambda item: item[0][1])
    ]
    return StudyTable(
        "The language model's width: perplexity",
        ("width", "qubits of an amplitude adapter", "method", "trained parameters", "test before", "dev", "test"),
        tuple(rows),
    )


def rates(results: Results) -> StudyTable:
    """What dev chose."""
    rows = [
        (task, _NAMES[method], ", ".join(f"{rate:g}: {score:.2f}" for rate, score in found.items()))
        for (task, method), found in results.rates.items()
    ]
    return StudyTable("Learning rates tried, with dev's figure at seed 0", ("task", "method", "rate: dev"), tuple(rows))


def _plots(results: Results, task: str, out: Path) -> None:
    found = {method: runs for (of, method), runs in results.main.items() if of == task}
    swept = {
        method: {size: runs for (of, m, size), runs in results.sizes.items() if (of, m) == (task, method)}
        for method in found
    }
    with plot(out / f"{task}.png", columns=3 if results.sizes else 2, title=_TITLE[task]) as panels:
        losses, devs = {}, {}
        for method, runs in found.items():
            if not runs[0].measured.get("loss"):
                continue
            means = [fmean(values) for values in zip(*(run.measured["loss"] for run in runs), strict=True)]
            window = max(1, len(means) // 20)
            smooth = [fmean(means[i : i + window]) for i in range(0, len(means) - window + 1, window)]
            losses[_NAMES[method]] = ([float(window * (i + 1)) for i in range(len(smooth))], smooth)
            curve = [fmean(values) for values in zip(*(run.measured["dev_curve"] for run in runs), strict=True)]
            part = len(means) / len(curve)
            devs[_NAMES[method]] = ([part * (i + 1) for i in range(len(curve))], curve)
        curves(panels[0], losses, "step", "training loss")
        curves(panels[1], devs, "step", f"dev {_FIGURE[task]}")
        if results.sizes:
            lines = {
                _NAMES[method]: (
                    [float(runs[0].measured["parameters"]) for runs in by_size.values()],
                    [fmean(_scores(runs, "test")) for runs in by_size.values()],
                )
                for method, by_size in swept.items()
                if by_size
            }
            curves(panels[2], lines, "trained parameters", f"test {_FIGURE[task]}", log="x")


def _name(runs: Sequence[Record]) -> str:
    settings = runs[0].settings
    unit = {"lora": "rank", "sora": "rank", "prefix": "virtual tokens", "amplitude": "layers"}.get(settings["method"])
    return _NAMES[settings["method"]] + (f", {unit} {settings['size']}" if unit else "")


def _milliseconds(runs: Sequence[Record]) -> str:
    found = [float(run.measured["step_seconds"]) for run in runs if "step_seconds" in run.measured]
    return f"{1000 * median(found):.0f}" if found else ""


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"


def _scores(runs: Sequence[Record], name: str) -> list[float]:
    return [float(run.measured[name]) for run in runs]
