"""`qcascade study fault-tolerant`: Hessian spectra of encoders in training, and what training them on a quantum computer would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fault_tolerant(
    data: Annotated[Path, typer.Option(help="folder with train.tsv, dev.tsv and test.tsv of text<TAB>label")],
    out: Annotated[Path, typer.Option(help="folder of results")] = Path("results/fault-tolerant"),
    model: Annotated[
        list[str] | None, typer.Option(help="small, 7m, minilm, 22m or 103m; may be repeated; all by default")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="folder of checkpoints; OUT/state by default")] = None,
    threads: Annotated[int, typer.Option(help="torch's threads", min=1)] = 1,
) -> None:
    """Measure, or go on where a run was stopped."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from qcascade.cost_models.fault_tolerant.trajectory import products
    from qcascade.errors import PlanError
    from qcascade.studies.fault_tolerant.spectra import RUNS, run_spectra

    chosen = model or list(RUNS)
    if unknown := [name for name in chosen if name not in RUNS]:
        raise PlanError(f"--model {unknown[0]} is unknown; choose one of {', '.join(RUNS)}.")
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for name in chosen:
            bar = progress.add_task(f"{name}: Hessian products", total=products(RUNS[name].settings()))
            run_spectra(
                RUNS[name],
                data,
                out,
                state or out / "state",
                advance=lambda bar=bar: progress.advance(bar),  # type: ignore[misc]
                said=lambda line: typer.echo(line),
            )
