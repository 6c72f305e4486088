"""`qcascade route FILE.qasm --target T`: one circuit compiled for a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcascade.commands.format import checked_format


def route(
    file: Annotated[Path, typer.Argument(help="OpenQASM 2 or 3", exists=True, dir_okay=False, readable=True)],
    target: Annotated[str, typer.Option(help="device; see `qcascade targets`")],
    seeds: Annotated[int, typer.Option(help="seeds of every method that has any", min=1)] = 10,
    seconds: Annotated[float | None, typer.Option(help="time budget; the best so far is taken", min=0)] = None,
    workers: Annotated[
        int | None, typer.Option(help="processes at most; the cores there are by default", min=1)
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="OpenQASM 2 on the device's qubits")] = None,
    format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Compile a circuit for a device, noise-aware, and print what it will come to there."""
    from qcascade.routing import route as compile_circuit
    from qcascade.routing.qasm import read_qasm, write_qasm
    from qcascade.routing.summary import routed_json, routed_text

    checked_format(format)
    made = compile_circuit(read_qasm(file), target, seeds=seeds, seconds=seconds, workers=workers)
    if output is not None:
        write_qasm(made, output)
    typer.echo(routed_json(made) if format == "json" else routed_text(made))
