"""`qcascade export MODEL -o FILE`: compile a model and write it as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcascade.commands import plan_options as options
from qcascade.commands.model import load_model


def export(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="bundle to write: a zip (.qcb), or a directory")],
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
) -> None:
    """Compile a model and write the hybrid as a bundle: ONNX, circuits, weights and report."""
    from qcascade.bundle.export import export as write
    from qcascade.compiler import compile

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
    hybrid = compile(load_model(model), **given).eval()
    path = write(hybrid, output)
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size
    kernels = ", ".join(hybrid.kernels) or "none; the whole model stays classical"
    typer.echo(f"{path}: {size / 1e6:.1f} MB, kernels: {kernels}")
