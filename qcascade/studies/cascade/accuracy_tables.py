"""Tables of accuracy: every kind by pairs of the same seed with the classical model, and both beside the source's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from qcascade.report.units import bytes_text, seconds_text
from qcascade.studies.cascade.groups import Setting
from qcascade.studies.records import Record
from qcascade.studies.statistics import compare, summarise
from qcascade.studies.tables import StudyTable

CLASSICAL, HYBRID = 92.3, 91.8  # the source's test accuracies in per cent
WITHIN = 0.5  # points, that the source's hybrid is below its classical model


def accuracy_table(setting: Setting) -> StudyTable:
    """Accuracy, its difference from the classical model by pairs, time and memory of every kind."""
    kinds = setting.kinds()
    classical = kinds.get("classical", {})
    rows = []
    for name, runs in kinds.items():
        test = [run.measured["test"] for run in runs.values()]
        dev = [run.measured["dev"] for run in runs.values() if run.measured["dev"] is not None]
        seconds = median(run.measured["step_seconds"]["median"] for run in runs.values())
        in_kernels = median(run.measured["kernel_seconds"] for run in runs.values())
        rows.append(
            (
                name,
                str(len(runs)),
                str(next(iter(runs.values())).measured["parameters"]),
                str(summarise(dev)) if dev else "–",
                str(summarise(test)),
                *_difference(classical, runs, name, setting.folds),
                f"{seconds_text(seconds)}{_loads(runs)}",
                seconds_text(in_kernels) if in_kernels else "–",
                bytes_text(median(run.measured["peak_memory_bytes"] for run in runs.values())),
            )
        )
    protocol = setting.protocol
    return StudyTable(
        f"Accuracy on {setting.name}",
        (
            "model", "seeds", "parameters", "dev, %", "test, %", "− classical, points (95 %)", "paired t-test, p", "Wilcoxon, p",
            "step (load)", "of it in kernels, forward", "memory",
        ),
        tuple(rows),
        (
            f"AdamW, batch {protocol['batch']}, linear decay after {100 * protocol['warmup']:g} % warm-up, cross-entropy, clipping at "
            f"{protocol['clip']:g}; the last epoch's accuracy, so that nothing is chosen. Mean ± standard deviation over seeds, pairs of "
            "the same seed. Circuits are simulated exactly where the row does not say otherwise, so that nothing is sent and nothing "
            "waited for. A step's seconds are medians of runs that did not take turns, each beside as many busy processes as its load "
            "says, so that rows are no comparison of speed: the table by length is. Memory is the process's largest resident set after "
            "a step (on CUDA the peak allocation).",
            *_validation(setting.folds),
        ),
    )  # fmt: skip


def _loads(runs: Mapping[int, Record]) -> str:
    """The least and the largest load of the machine as runs ended, where it is known."""
    loads = [run.machine["load"] for run in runs.values() if run.machine.get("load") is not None]
    if not loads:
        return ""
    low, high = f"{min(loads):.0f}", f"{max(loads):.0f}"
    return f" ({low})" if low == high else f" ({low}–{high})"


def source_table(settings: Sequence[Setting]) -> StudyTable:
    """Test accuracies beside the source's, of seeds that both the classical model and the hybrid have."""
    rows = [("the source", "–", f"{CLASSICAL}", f"{HYBRID}", f"{HYBRID - CLASSICAL:+.1f}", "yes")]
    for setting in settings:
        kinds = setting.kinds()
        for name, runs in kinds.items():
            seeds = sorted(set(kinds.get("classical", {})) & set(runs))
            if name.split(",")[0] != "hybrid" or not seeds:
                continue
            first = [kinds["classical"][seed].measured["test"] for seed in seeds]
            second = [runs[seed].measured["test"] for seed in seeds]
            difference = fmean(second) - fmean(first)
            within = "yes" if abs(difference) <= WITHIN else "above" if difference > 0 else "no"
            label = setting.name + name.removeprefix("hybrid")
            rows.append(
                (label, str(len(seeds)), str(summarise(first)), str(summarise(second)), f"{difference:+.2f}", within)
            )
    return StudyTable(
        "Accuracy against the source",
        ("data", "seeds", "classical, test %", "hybrid, test %", "difference, points", f"within {WITHIN}"),
        tuple(rows),
        ("The source's model is a larger one (121M parameters), on other data and hardware.",),
    )


def _validation(folds: int) -> list[str]:
    if not folds:
        return []
    return [
        f"Cross-validation: the folder's texts are split anew into {folds} parts, and each seed tests another one, which neither model "
        f"was trained on; {folds} seeds test every text once. Intervals and p allow for what training sets have in common "
        "(Nadeau and Bengio, 2003), which the signed-rank test cannot."
    ]


def _difference(
    classical: Mapping[int, Record], runs: Mapping[int, Record], name: str, folds: int
) -> tuple[str, str, str]:
    seeds = sorted(set(classical) & set(runs))
    if name == "classical" or not seeds:
        return "–", "–", "–"
    texts = runs[seeds[0]].measured["texts"]
    first, second = ([own[s].measured["test"] for s in seeds] for own in (classical, runs))
    pairs = compare(first, second, overlap=texts["test"] / texts["train"] if folds else 0.0)
    interval = "" if pairs.low is None else f" ({pairs.low:+.2f} … {pairs.high:+.2f})"
    p = ["–" if value is None else f"{value:.3f}" for value in (pairs.t_test, pairs.wilcoxon)]
    return f"{pairs.difference:+.2f}{interval}", p[0], p[1]
