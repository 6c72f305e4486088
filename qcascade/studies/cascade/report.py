"""Everything that is in a folder of results, as tables (text and table.md) and plots; nothing is typed by hand but the source's figures."""

from __future__ import annotations

from pathlib import Path

from qcascade.studies.cascade.accuracy_tables import accuracy_table, source_table
from qcascade.studies.cascade.commands import commands
from qcascade.studies.cascade.device_tables import lengths_table, predicted_table, simulated_table
from qcascade.studies.cascade.figures import draw_curves, draw_lengths
from qcascade.studies.cascade.groups import settings_of
from qcascade.studies.records import Records
from qcascade.studies.tables import StudyTable, to_markdown

RUNS, LENGTHS, NOISE = "runs.jsonl", "lengths.jsonl", "noise.jsonl"


def make_report(out: Path) -> list[StudyTable]:
    """Write table.md and the plots.

    Args:
        out: Folder with any of runs.jsonl, lengths.jsonl and noise.jsonl.

    Returns:
        The tables, as written.

    Raises:
        ExecutionError: A results file is damaged.
        QCascadeError: matplotlib is not installed.
    """
    runs, lengths, noise = (Records(out / name).all() for name in (RUNS, LENGTHS, NOISE))
    predicted = [record for record in noise if record.settings["part"] == "predicted"]
    simulated = [record for record in noise if record.settings["part"] == "simulated"]
    settings = settings_of(runs)
    tables = [accuracy_table(setting) for setting in settings]
    for setting in settings:
        draw_curves(setting, out / f"curves-{setting.file_name}.png")
    if settings:
        tables.append(source_table(settings))
    if lengths:
        tables.append(lengths_table(lengths))
        draw_lengths(lengths, out / "lengths.png")
    if predicted:
        tables.append(predicted_table(predicted))
    if simulated:
        tables.append(simulated_table(simulated))
    if tables:
        heading = "The cascaded study: a classical encoder and its hybrid"
        own = (record.command for record in (*lengths, *noise))
        text = to_markdown(heading, tables, [*commands(settings), *own])
        (out / "table.md").write_text(text, encoding="utf-8")
    return tables
