"""`qcascade run BUNDLE --inputs x.npz -o y.npz`: a bundle's outputs, in onnxruntime or with its kernels on an executor."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer


def run(
    bundle: Annotated[Path, typer.Argument(help="a .qcb file, or a bundle's directory")],
    inputs: Annotated[Path, typer.Option(help="arrays by the inputs' names, .npz")],
    output: Annotated[Path, typer.Option("-o", "--output", help="outputs by name, .npz")],
    executor: Annotated[str, typer.Option(help="onnxruntime, statevector, shots or noisy")] = "onnxruntime",
    kernel: Annotated[
        list[str] | None, typer.Option(help="kernel that the executor runs, all by default; globs; may be repeated")
    ] = None,
    shots: Annotated[int | None, typer.Option(help="per circuit", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="of the samples")] = None,
    target: Annotated[str | None, typer.Option(help="whose noise is simulated; the bundle's by default")] = None,
    threads: Annotated[int | None, typer.Option(help="cores of onnxruntime", min=1)] = None,
    memory: Annotated[
        float | None, typer.Option(help="GB that loading and running may take; what is free by default; held on Linux")
    ] = None,
) -> None:
    """Run a bundle on the arrays of an .npz file and write its outputs to another."""
    from qcascade.bundle.arrays import read_arrays, write_arrays
    from qcascade.bundle.bundle import load

    if memory is not None and not 1 <= memory * 1e9 < math.inf:
        raise typer.BadParameter(f"--memory {memory:g}: GB above 0 are needed; leave it out for what is free.")
    arrays = read_arrays(inputs)
    options = {"shots": shots, "seed": seed, "target": target}
    loaded = load(bundle, threads=threads, memory=None if memory is None else int(memory * 1e9))
    loaded.use(executor, kernel, **{name: value for name, value in options.items() if value is not None})
    outputs = loaded(**arrays)
    write_arrays(output, outputs)
    for name, value in outputs.items():
        typer.echo(f"{name}\t{value.dtype}\t{list(value.shape)}")
