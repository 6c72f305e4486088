"""Plots of the cascaded study: learning curves, and time and memory of a step by length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from qcascade.studies.cascade.device_tables import by_length
from qcascade.studies.cascade.groups import Setting
from qcascade.studies.plots import curves, plot
from qcascade.studies.records import Record


def draw_curves(setting: Setting, file: Path) -> None:
    """Loss and dev accuracy by epoch, means over seeds with the range of seeds as a band."""
    losses, scores, loss_bands, score_bands = {}, {}, {}, {}
    for name, runs in setting.kinds().items():
        epochs = list(zip(*(run.measured["epochs"] for run in runs.values()), strict=True))
        along = [float(number) for number in range(1, len(epochs) + 1)]
        values = [[own["loss"] for own in epoch] for epoch in epochs]
        losses[name], loss_bands[name] = (along, [fmean(v) for v in values]), _band(values)
        if all("dev" in own for epoch in epochs for own in epoch):
            values = [[own["dev"] for own in epoch] for epoch in epochs]
            scores[name], score_bands[name] = (along, [fmean(v) for v in values]), _band(values)
    with plot(file, columns=2, title=setting.name) as (left, right):
        from matplotlib.ticker import MaxNLocator

        curves(left, losses, "epoch", "training loss", bands=loss_bands)
        curves(right, scores, "epoch", "dev accuracy, %", bands=score_bands)
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_lengths(records: Sequence[Record], file: Path) -> None:
    """Seconds and peak memory of a step by length, of every size measured."""
    seconds: dict[str, tuple[list[float], list[float]]] = {}
    memory: dict[str, tuple[list[float], list[float]]] = {}
    for record in by_length(records):
        size = record.settings["size"]
        for kind in ("classical", "hybrid"):
            name, peak = f"{kind}, d = {size['features']}", record.measured["peak_bytes"]
            _add(seconds, name, size["length"], record.measured["seconds"][kind])
            if peak:
                _add(memory, name, size["length"], peak[kind] / 1e9)
    with plot(file, columns=2, title="A training step by length") as (left, right):
        curves(left, seconds, "words n", "seconds", log="xy")
        curves(right, memory, "words n", "peak memory, GB", log="x")


def _add(lines: dict[str, tuple[list[float], list[float]]], name: str, x: float, y: float) -> None:
    along, values = lines.setdefault(name, ([], []))
    along.append(x)
    values.append(y)


def _band(values: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [min(v) for v in values], [max(v) for v in values]
