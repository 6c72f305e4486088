"""The study's tables and plots, from its records alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median

from qcascade.studies.adapters.screening import Results
from qcascade.studies.plots import curves, plot
from qcascade.studies.records import Record
from qcascade.studies.results import write_results
from qcascade.studies.statistics import Comparison, compare, summarise
from qcascade.studies.tables import StudyTable

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
_TIMES = (
    "Milliseconds are of one thread, in brackets the machine's load: runs did not take turns, so that times of different rows are no "
    "comparison."
)


def write(results: Results, out: Path, *, plots: bool = True, page: bool = False) -> str:
    """Write table.md, the plots and report.html, if asked for, to a folder; returns the tables as text."""
    tasks = list(dict.fromkeys(task for task, _ in results.main))
    tables = [methods(results, task) for task in tasks]
    tables += [sizes(results, task) for task in tasks if any(key[0] == task for key in results.sizes)]
    if results.widths:
        tables.append(widths(results))
    tables.append(rates(results))
    shown = (*results.main.values(), *results.sizes.values(), *results.widths.values())
    commands = [record.command for runs in shown for record in runs]
    for task in tasks if plots else ():
        _plots(results, task, out)
    write_results(out, "Adapters under one budget", tables, commands, page=page)
    return "\n".join(table.text() for table in tables)


def methods(results: Results, task: str) -> StudyTable:
    """Every method at its default size."""
    full = results.main.get((task, "full"))
    rows = []
    for (of, method), runs in results.main.items():
        if of != task:
            continue
        test, memory = summarise(_scores(runs, "test")), _ended(runs)[0].measured["memory"]
        apart = None if full is None or method == "full" else _compare(full, runs)
        rows.append(
            (
                _name(runs),
                _parameters(runs),
                str(len(_ended(runs))),
                _figure(runs, "dev"),
                f"{test}{_interval(test.low, test.high)}",
                "" if apart is None else f"{apart.difference:+.2f}{_interval(apart.low, apart.high)}",
                _milliseconds(runs),
                f"{sum(memory.values()) / 1e6:.0f} ({memory['activations'] / 1e6:.0f})",
            )
        )
    found = [run for (of, _), runs in results.main.items() if of == task for run in runs]
    settings, measured = _ended(found)[0].settings, _ended(found)[0].measured
    unit = "sentences" if task == "sentences" else "blocks of words"
    notes = [
        f"{settings['steps']} steps of {settings['batch']} for every method; dev and test figures on {measured['scored'][0]} and "
        f"{measured['scored'][1]} {unit}, the same for all. The rate is the best of two by dev at seed 0. Memory is counted from "
        "tensors: weights, gradients and moments, activations. " + _TIMES,
    ]
    if task == "sentences":
        notes.append(
            f"Every method also trains the linear head ({measured['head_parameters']} parameters, not counted). In BERT a prefix "
            "shifts the positions of the sentence by its length, so that it does not start at the pretrained function."
        )
    else:
        notes.append(f"Before adapting, test perplexity is {measured['test_before']:.2f}.")
    if gates := _ended(run for run in found if run.settings["method"] == "sora"):
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
            "ms a step (load)",
            "memory, MB (activations)",
        ),
        tuple(rows),
        (*notes, *_diverged(found)),
    )


def sizes(results: Results, task: str) -> StudyTable:
    """Ranks, virtual tokens and layers."""
    found = [runs for (of, _, _), runs in results.sizes.items() if of == task]
    rows = [
        (
            _name(runs),
            _parameters(runs),
            str(len(_ended(runs))),
            _figure(runs, "dev"),
            _figure(runs, "test"),
            _milliseconds(runs),
        )
        for runs in found
    ]
    return StudyTable(
        f"Sizes: {_FIGURE[task]}, {task}",
        ("method", "trained parameters", "seeds", "dev", "test", "ms a step (load)"),
        tuple(rows),
        (_TIMES, *_diverged(run for runs in found for run in runs)),
    )


def widths(results: Results) -> StudyTable:
    """The language model's width, which sets the adapter's qubits."""
    rows = [
        (
            str(width),
            str(width.bit_length() - 1 if width & (width - 1) == 0 else width.bit_length()),
            _name(runs),
            _parameters(runs),
            f"{fmean(before):.2f}" if (before := _scores(runs, "test_before")) else "",
            _figure(runs, "dev"),
            _figure(runs, "test"),
        )
        for (_, width), runs in sorted(results.widths.items(), key=lambda item: item[0][1])
    ]
    return StudyTable(
        "The language model's width: perplexity",
        ("width", "qubits of an amplitude adapter", "method", "trained parameters", "test before", "dev", "test"),
        tuple(rows),
        _diverged(run for runs in results.widths.values() for run in runs),
    )


def rates(results: Results) -> StudyTable:
    """What dev chose."""
    rows = [
        (task, _NAMES[method], ", ".join(_rate(*one) for one in found.items()))
        for (task, method), found in results.rates.items()
    ]
    return StudyTable("Learning rates tried, with dev's figure at seed 0", ("task", "method", "rate: dev"), tuple(rows))


def _plots(results: Results, task: str, out: Path) -> None:
    found = {method: _ended(runs) for (of, method), runs in results.main.items() if of == task}
    swept = {
        method: [_ended(runs) for (of, m, _), runs in results.sizes.items() if (of, m) == (task, method)]
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
                    [float(runs[0].measured["parameters"]) for runs in by_size if runs],
                    [fmean(_scores(runs, "test")) for runs in by_size if runs],
                )
                for method, by_size in swept.items()
                if any(by_size)
            }
            curves(panels[2], lines, "trained parameters", f"test {_FIGURE[task]}", log="x")


def _name(runs: Sequence[Record]) -> str:
    settings = runs[0].settings
    unit = {"lora": "rank", "sora": "rank", "prefix": "virtual tokens", "amplitude": "layers"}.get(settings["method"])
    return _NAMES[settings["method"]] + (f", {unit} {settings['size']}" if unit else "")


def _ended(runs: Iterable[Record]) -> list[Record]:
    return [run for run in runs if "diverged" not in run.measured]


def _diverged(runs: Iterable[Record]) -> tuple[str, ...]:
    """A note that names what the figures leave out."""
    names = [
        f"{_name([run])}, {'' if width is None else f'width {width}, '}seed {run.settings['seed']}"
        for run in runs
        if "diverged" in run.measured
        for width in [(run.settings.get("language") or {}).get("width")]
    ]
    return (f"DivergedError, and left out: {'; '.join(names)}.",) if names else ()


def _parameters(runs: Sequence[Record]) -> str:
    return next((f"{run.measured['parameters']}" for run in _ended(runs)), "")


def _figure(runs: Sequence[Record], name: str) -> str:
    return str(summarise(found)) if (found := _scores(runs, name)) else "diverged"


def _compare(first: Sequence[Record], second: Sequence[Record]) -> Comparison:
    """Figures of test, over the seeds that ended in both."""
    of, to = ({run.settings["seed"]: float(run.measured["test"]) for run in _ended(runs)} for runs in (first, second))
    seeds = [seed for seed in of if seed in to]
    return compare([of[seed] for seed in seeds], [to[seed] for seed in seeds])


def _rate(rate: float, score: float | None) -> str:
    return f"{rate:g}: " + ("diverged" if score is None else f"{score:.2f}")


def _milliseconds(runs: Sequence[Record]) -> str:
    timed = [run for run in runs if "step_seconds" in run.measured]
    if not timed:
        return ""
    loads = sorted(run.machine["load"] for run in timed if run.machine["load"] is not None)
    between = "–".join(dict.fromkeys(f"{load:.0f}" for load in (*loads[:1], *loads[-1:])))
    return f"{1000 * median(float(run.measured['step_seconds']) for run in timed):.0f} ({between or '?'})"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"


def _scores(runs: Sequence[Record], name: str) -> list[float]:
    return [float(run.measured[name]) for run in _ended(runs)]
