"""`qcascade inspect BUNDLE`: what a bundle holds, verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from qcascade.commands.format import checked_format


def inspect(
    bundle: Annotated[Path, typer.Argument(help="a .qcb file, or a bundle's directory")],
    draw: Annotated[bool, typer.Option(help="draw circuits as text")] = True,
    width: Annotated[int | None, typer.Option(help="columns; the terminal's by default", min=40)] = None,
    format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Verify a bundle and print its kernels, circuits, sizes and target; nothing of it is executed."""
    from qcascade.bundle.summary import inspect as inspected
    from qcascade.bundle.summary import inspected_text

    checked_format(format)
    summary = inspected(bundle)
    if format == "json":
        typer.echo(json.dumps(summary.to_dict(), indent=2, ensure_ascii=False))
    else:
        typer.echo(inspected_text(summary, width or shutil.get_terminal_size((100, 24)).columns, drawings=draw))
