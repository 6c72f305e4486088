"""`qcascade report MODEL`: the partition report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qcascade.commands.format import checked_format, written
from qcascade.commands.model import load_model
from qcascade.commands.plan_options import Model, with_plan_options


@with_plan_options
def report(
    model: Model,
    given: dict[str, Any],
    format: Annotated[str, typer.Option(help="text, json or html, one page with graph, circuits and device")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; the screen by default")] = None,
) -> None:
    """Print the partition report of a model: what would be offloaded, at what cost, and why the rest is kept."""
    from qcascade.compiler import plan

    checked_format(format, ("text", "json", "html"))
    made = plan(load_model(model), **given)
    written(made.to_json() if format == "json" else made.to_html() if format == "html" else str(made), output)
