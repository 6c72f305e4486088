"""Plots of the cascaded study: learning curves, and time and memory of a step by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from qcascade.studies.cascade.device_tables import by_length, what_differs
from qcascade.studies.cascade.encoder import Size
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
    seconds: dict[str, dict[float, float]] = {}
    memory: dict[str, dict[float, float]] = {}
    for record in by_length(records):
        size, peak = record.settings["size"], record.measured["peak_bytes"]
        own = [f"d = {size['features']}", f"batch {record.settings['batch']}"]
        own += [f"{size['layers']} layers"] * (size["layers"] != Size().layers)
        for kind in ("classical", "hybrid"):
            name = ", ".join((kind, *own, *what_differs(record)))
            seconds.setdefault(name, {})[size["length"]] = record.measured["seconds"][kind]
            if peak:
                memory.setdefault(name, {})[size["length"]] = peak[kind] / 1e9
    with plot(file, columns=2, title="A training step by length") as (left, right):
        curves(left, _lines(seconds), "words n", "seconds", log="xy")
        curves(right, _lines(memory), "words n", "peak memory, GB", log="x")


def _lines(points: Mapping[str, Mapping[float, float]]) -> dict[str, tuple[list[float], list[float]]]:
    return {name: (list(own), list(own.values())) for name, own in points.items()}


def _band(values: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [min(v) for v in values], [max(v) for v in values]
