"""`qcascade report MODEL`: the partition report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcascade.commands import plan_options as options
from qcascade.commands.format import checked_format, written
from qcascade.commands.model import load_model


def report(
    model: options.Model,
    target: options.TargetName = "ideal",
    objective: options.Objective = "offload",
    kernel: options.KernelNames = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    max_qubits: options.MaxQubits = None,
    max_two_qubit_depth: options.MaxDepth = None,
    min_fidelity: options.MinFidelity = None,
    min_flops: options.MinFlops = 0,
    seed: options.Seed = 0,
    mitigation: options.Mitigations = None,
    format: Annotated[str, typer.Option(help="text, json or html, one page with graph, circuits and device")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; the screen by default")] = None,
) -> None:
    """Print the partition report of a model: what would be offloaded, at what cost, and why the rest is kept."""
    from qcascade.compiler import plan

    checked_format(format, ("text", "json", "html"))
    given = options.plan_options(
        target=target,
        objective=objective,
        kernel=kernel,
        include=include,
        exclude=exclude,
        max_qubits=max_qubits,
        max_two_qubit_depth=max_two_qubit_depth,
        min_fidelity=min_fidelity,
        min_flops=min_flops,
        seed=seed,
        mitigation=mitigation,
    )
    made = plan(load_model(model), **given)
    written(made.to_json() if format == "json" else made.to_html() if format == "html" else str(made), output)
