"""Everything that is in a folder of results, as tables (text and table.md) and plots; nothing is typed by hand but the source's figures."""

from __future__ import annotations

from pathlib import Path

from qcascade.errors import ExecutionError
from qcascade.studies.cascade.accuracy_tables import accuracy_table, source_table
from qcascade.studies.cascade.commands import commands, length_commands, noise_commands
from qcascade.studies.cascade.device_tables import lengths_table, predicted_table, simulated_tables
from qcascade.studies.cascade.figures import draw_curves, draw_lengths
from qcascade.studies.cascade.groups import settings_of
from qcascade.studies.records import Record, Records
from qcascade.studies.results import write_results
from qcascade.studies.tables import StudyTable

RUNS, LENGTHS, NOISE = "runs.jsonl", "lengths.jsonl", "noise.jsonl"


def make_report(out: Path, *, page: bool = False) -> list[StudyTable]:
    """Write table.md, the plots and, if asked for, report.html.

    Args:
        out: Folder with any of runs.jsonl, lengths.jsonl and noise.jsonl.
        page: report.html too.

    Returns:
        The tables, as written.

    Raises:
        ExecutionError: A results file is damaged.
        QCascadeError: matplotlib is not installed.
    """
    runs, lengths, noise = (Records(out / name).all() for name in (RUNS, LENGTHS, NOISE))
    try:
        return _report(out, runs, lengths, noise, page)
    except KeyError as error:
        raise ExecutionError(
            f"a record in {out} has no {error}, so it is not one of this study; mend or move it."
        ) from error


def _report(out: Path, runs: list[Record], lengths: list[Record], noise: list[Record], page: bool) -> list[StudyTable]:
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
        tables.extend(simulated_tables(simulated))
    if tables:
        heading = "The cascaded study: a classical encoder and its hybrid"
        own = [*commands(settings), *length_commands(lengths), *noise_commands(noise)]
        write_results(out, heading, tables, own, page=page)
    return tables
