"""`qcascade targets [NAME]`: the devices a plan can be made for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from qcascade.commands.format import checked_format
from qcascade.targets import get_target


def targets(
    name: Annotated[str | None, typer.Argument(help="show this one in full; a name or a .json file")] = None,
    format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """List the devices a plan can be made for, tab-separated in a pipe, or show one in full.

    Columns: name, qubits, native two-qubit gate, median two-qubit error, median readout error, day of the calibration,
    description.
    """
    from qcascade.targets import summary

    checked_format(format)
    terminal = Console()
    if name is not None:
        target = get_target(name)
        if format == "json":
            typer.echo(target.to_json(indent=2))
            return
        rows = summary.details(target)
        width = max(len(label) for label, _ in rows)
        for label, value in rows:
            typer.echo(f"{label:<{width}}  {value}")
        return
    progress = Console(stderr=True)

    def bar(names: Iterable[str]) -> Iterable[str]:
        return track(names, "reading targets", console=progress, transient=True, disable=not progress.is_terminal)

    found = summary.summaries(bar)
    if format == "json":
        typer.echo(json.dumps([one.to_dict() for one in found], indent=2))
    elif terminal.is_terminal:
        table = Table(*summary.COLUMNS, box=None, header_style="bold")
        for one in found:
            table.add_row(*one.row())
        terminal.print(table)
    else:
        for one in found:
            typer.echo("\t".join(one.row()))
