"""`qcascade export MODEL -o FILE`: compile a model and write it as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qcascade.commands.model import load_model
from qcascade.commands.plan_options import Model, with_plan_options
from qcascade.report.units import bytes_text


@with_plan_options
def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="bundle to write: a zip (.qcb), or a directory")],
    given: dict[str, Any],
) -> None:
    """Compile a model and write the hybrid as a bundle: ONNX, circuits, weights and report."""
    from qcascade.bundle.export import export as write
    from qcascade.compiler import compile

    hybrid = compile(load_model(model), **given).eval()
    path = write(hybrid, output)
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size
    kernels = ", ".join(hybrid.kernels) or "none; the whole model stays classical"
    typer.echo(f"{path}: {bytes_text(size)}, kernels: {kernels}")
