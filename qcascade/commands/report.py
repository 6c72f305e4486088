"""`qcascade report MODEL`: the partition report."""

from __future__ import annotations

from typing import Annotated

import typer

from qcascade.commands.format import checked_format
from qcascade.commands.model import load_model
from qcascade.errors import PlanError
from qcascade.executors.mitigation import Mitigation, ReadoutInversion, ZeroNoiseExtrapolation
from qcascade.plan import Limits


def report(
    model: Annotated[
        str,
        typer.Argument(help="package.module:name or file.py:name (a module or a callable that makes one), or file.pt2"),
    ],
    target: Annotated[str, typer.Option(help="device, of `qcascade targets`, or a .json file")] = "ideal",
    objective: Annotated[str, typer.Option(help="offload, train_time or hardware_time")] = "offload",
    kernel: Annotated[list[str] | None, typer.Option(help="kernel to consider; may be repeated")] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="glob over region names to offload; may be repeated")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="glob over region names to keep; may be repeated")] = None,
    max_qubits: Annotated[int | None, typer.Option(help="widest circuit accepted")] = None,
    max_two_qubit_depth: Annotated[int | None, typer.Option(help="deepest circuit accepted, loading included")] = None,
    min_fidelity: Annotated[float | None, typer.Option(help="least predicted fidelity accepted")] = None,
    min_flops: Annotated[int, typer.Option(help="regions of fewer FLOPs are kept")] = 0,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    mitigation: Annotated[
        list[str] | None, typer.Option(help="to count in the costs: readout or extrapolation; may be repeated")
    ] = None,
    format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Print the partition report of a model: what would be offloaded, at what cost, and why the rest is kept."""
    from qcascade.compiler import plan

    checked_format(format)
    made = plan(
        load_model(model),
        target=target,
        objective=objective,
        limits=Limits(max_qubits, max_two_qubit_depth, min_fidelity, min_flops),
        kernels=kernel,
        include=include,
        exclude=exclude,
        seed=seed,
        mitigation=[_mitigation(name) for name in mitigation or []],
    )
    typer.echo(made.to_json() if format == "json" else str(made))


def _mitigation(name: str) -> Mitigation:
    if name not in ("readout", "extrapolation"):
        raise PlanError(f"--mitigation {name} is unknown; choose readout or extrapolation.")
    return ReadoutInversion() if name == "readout" else ZeroNoiseExtrapolation()
