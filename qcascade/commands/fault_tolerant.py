"""`qcascade fault-tolerant MODEL --data DIR`: the fault-tolerant outlook of a model along a short training trajectory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from qcascade.commands.format import checked_format, written
from qcascade.commands.model import load_model
from qcascade.errors import CaptureError, PlanError


def fault_tolerant(
    model: Annotated[
        str, typer.Argument(help="package.module:name or file.py:name, a module or a callable that makes one")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="folder with train.npz (arrays by the names of forward's arguments, and labels) or train.tsv"
        ),
    ],
    at: Annotated[
        list[int] | None, typer.Option(help="step to measure at; may be repeated; 0, 10, 20 by default")
    ] = None,
    rate: Annotated[float, typer.Option(help="learning rate η of the descent")] = 0.1,
    prune: Annotated[float, typer.Option(help="share of weights pruned by magnitude")] = 0.9,
    probes: Annotated[int, typer.Option(help="random vectors of the spectral density", min=2)] = 4,
    iterations: Annotated[int, typer.Option(help="Lanczos steps of each", min=2)] = 48,
    batch: Annotated[int, typer.Option(help="examples of a step", min=1)] = 32,
    measured: Annotated[int, typer.Option(help="batches that curvature is averaged over", min=1)] = 2,
    steps: Annotated[int, typer.Option(help="T, steps that the quantum computer would run", min=1)] = 1000,
    precision: Annotated[float, typer.Option(help="ε of the linear-system solver")] = 1e-2,
    order: Annotated[int, typer.Option(help="K of the Carleman lift", min=1)] = 3,
    memory: Annotated[float, typer.Option(help="GB for Lanczos vectors")] = 2.0,
    resume: Annotated[Path | None, typer.Option(help="file to keep the state in, and to go on from")] = None,
    warmup: Annotated[int, typer.Option(help="dense steps of AdamW before pruning", min=0)] = 0,
    train: Annotated[
        int,
        typer.Option(
            help="steps of training, dense, sparse, and sparse with download and re-upload, to compare; --warmup of them dense",
            min=0,
        ),
    ] = 0,
    tolerance: Annotated[float, typer.Option(help="of the error proxy at the end of a segment of --train")] = 1.5,
    plots: Annotated[Path | None, typer.Option(help="folder for spectra.png, proxy.png and resources.png")] = None,
    seed: Annotated[int, typer.Option(help="of probes and batches")] = 0,
    format: Annotated[str, typer.Option(help="text, json or html, one page with plots")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; the screen by default")] = None,
) -> None:
    """Say what training this model by quantum gradient descent would take, and whether it would ever be faster."""
    from rich.console import Console
    from rich.progress import Progress

    from qcascade.commands.examples import read_examples
    from qcascade.cost_models.fault_tolerant.comparison import compare_training
    from qcascade.cost_models.fault_tolerant.report import make_report, plain
    from qcascade.cost_models.fault_tolerant.sparse_training import Schedule
    from qcascade.cost_models.fault_tolerant.trajectory import Settings, products

    checked_format(format, ("text", "json", "html"))
    if not 0 <= memory < float("inf"):
        raise PlanError(f"--memory is {memory:g}; GB for Lanczos vectors are needed, 0 to keep none.")
    schedule = Schedule(train, warmup, prune, rate, tolerance=tolerance, seed=seed) if train else None
    settings = Settings(
        moments=tuple(at or (0, 10, 20)),
        rate=rate,
        prune=prune,
        probes=probes,
        iterations=iterations,
        seed=seed,
        warmup=warmup,
    )
    module = load_model(model)
    if not isinstance(module, nn.Module):
        raise CaptureError(f"{model} is an exported program, which has one mode; give a module, which can be trained.")
    examples = read_examples(data, module, batch, seed)
    console, compared = Console(stderr=True), None
    with Progress(console=console, disable=not console.is_terminal) as progress:
        if schedule is not None:
            steps_bar = progress.add_task("training steps", total=3 * train)
            compared = compare_training(
                module,
                examples.loss,
                examples.batch_of,
                examples.first(measured),
                schedule,
                advance=lambda: progress.advance(steps_bar),
            )
        bar = progress.add_task("Hessian products", total=products(settings))
        made = make_report(
            module,
            examples.loss,
            examples.batch_of,
            examples.first(measured),
            settings,
            steps=steps,
            precision=precision,
            order=order,
            file=resume,
            memory_bytes=int(memory * 1e9),
            advance=lambda: progress.advance(bar),
        )
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        for name, figure in made.figures().items():
            figure.savefig(plots / f"{name}.png", metadata={"Software": None})
    if format == "text":
        text = str(made) if compared is None else f"{made}\n{compared}"
    elif format == "html":
        from qcascade.report.html.outlook import to_html

        text = to_html(made, compared)
    elif compared is None:
        text = made.to_json()
    else:
        told = {**json.loads(made.to_json()), "training": plain(compared.to_dict())}
        text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
    written(text, output)
