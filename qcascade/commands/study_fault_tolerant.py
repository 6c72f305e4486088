"""`qcascade study fault-tolerant`: Hessian spectra of encoders in training, held against exact ones on digits; the algorithm simulated;
sparse training with re-upload; and what they would take.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcascade.commands.format import checked_format

if TYPE_CHECKING:
    from qcascade.studies.fault_tolerant.spectra import Spectra

PARTS = ("spectra", "oracle", "solver", "training", "tables")


def fault_tolerant(
    data: Annotated[
        Path | None, typer.Option(help="folder with train.tsv, dev.tsv and test.tsv of text<TAB>label")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="spectra, oracle (them against exact ones, on digits), solver (the algorithm simulated), training, or tables "
            "(with plots, of what is there); may be repeated; all by default"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of results")] = Path("results/fault-tolerant"),
    model: Annotated[
        list[str] | None,
        typer.Option(help="of spectra: small, 7m, minilm, 22m, 103m or 121m; may be repeated; all by default"),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="of training: digits or sst2; may be repeated; all by default")
    ] = None,
    seeds: Annotated[int, typer.Option(help="of training", min=1)] = 5,
    workers: Annotated[int, typer.Option(help="processes of training", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="torch's threads in each process", min=1)] = 1,
    state: Annotated[
        Path | None, typer.Option(help="folder of the spectra's checkpoints; OUT/state by default")
    ] = None,
    format: Annotated[
        str, typer.Option(help="text, or html: also OUT/report.html, one file with tables and plots")
    ] = "text",
) -> None:
    """Measure, or go on where a run was stopped; then write tables and plots of all that is there."""
    import torch

    from qcascade.errors import PlanError
    from qcascade.studies.fault_tolerant.spectra import RUNS
    from qcascade.studies.fault_tolerant.training import SCHEDULES
    from qcascade.studies.results import FORMATS
    from qcascade.studies.texts import digest_of, read_texts

    checked_format(format, FORMATS)
    parts, models, tasks = part or list(PARTS), model or list(RUNS), task or list(SCHEDULES)
    for name, given, accepted in (("part", parts, PARTS), ("model", models, RUNS), ("task", tasks, SCHEDULES)):
        if unknown := [x for x in given if x not in accepted]:
            raise PlanError(f"--{name} {unknown[0]} is unknown; choose one of {', '.join(accepted)}.")
    digest = ""
    if "spectra" in parts or ("training" in parts and "sst2" in tasks):
        if data is None:
            raise PlanError("--data is missing: a folder with train.tsv, dev.tsv and test.tsv of sentences.")
        read_texts(data, needs_dev=True)  # refuses what cannot be read, even if all is done
        digest = digest_of(data)
    torch.set_num_threads(threads)
    if "training" in parts:
        _training(tasks, seeds, data, digest, out, workers, threads)
    if "oracle" in parts:
        _oracle(out)
    if "solver" in parts:
        _solver(out)
    if "spectra" in parts and data is not None:
        _spectra([replace(RUNS[name], digest=digest) for name in models], data, out, state or out / "state")
    if "tables" in parts:
        from qcascade.studies.fault_tolerant.tables import write_tables

        for table in write_tables(out, page=format == "html"):
            typer.echo(table.text())


def _oracle(out: Path) -> None:
    from qcascade.studies.fault_tolerant.oracle import CASES, run_oracle
    from qcascade.studies.records import Records
    from qcascade.studies.runs import run_all

    run_all(CASES, run_oracle, Records(out / "oracle.jsonl"))


def _solver(out: Path) -> None:
    from qcascade.studies.fault_tolerant.solver import SHORT, WIDE, run_solver
    from qcascade.studies.records import Records
    from qcascade.studies.runs import run_all

    run_all((*SHORT, *WIDE), run_solver, Records(out / "solver.jsonl"))


def _spectra(runs: list[Spectra], data: Path, out: Path, state: Path) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from qcascade.cost_models.fault_tolerant.trajectory import products
    from qcascade.studies.fault_tolerant.spectra import run_spectra

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for run in runs:
            bar = progress.add_task(f"{run.model}: Hessian products", total=products(run.settings()))
            run_spectra(run, data, out, state, advance=partial(progress.advance, bar), said=typer.echo)


def _training(
    tasks: list[str], seeds: int, data: Path | None, digest: str, out: Path, workers: int, threads: int
) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from qcascade.studies.fault_tolerant.training import run_training, training_runs
    from qcascade.studies.records import Records
    from qcascade.studies.runs import run_all

    runs = [run for task in tasks for run in training_runs(task, seeds, digest)]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("training runs", total=len(runs))
        run_all(
            runs,
            partial(run_training, data=data),
            Records(out / "training.jsonl"),
            workers=workers,
            threads=threads,
            said=lambda record: progress.advance(bar),
        )
