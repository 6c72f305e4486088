"""`qcascade study head`: the re-uploading head against classical classifiers on sentence embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcascade.commands.format import checked_format


def head(
    data: Annotated[Path, typer.Option(help="folder with train.tsv, test.tsv and dev.tsv of text<TAB>label")],
    out: Annotated[Path, typer.Option(help="folder of results; a study that was stopped goes on from it")],
    seeds: Annotated[int, typer.Option(help="of the final heads and the classical columns", min=1)] = 10,
    screening: Annotated[int, typer.Option(help="seeds of every setting that is chosen from", min=1)] = 3,
    ablation: Annotated[int, typer.Option(help="seeds of the ablations", min=1)] = 5,
    sampled: Annotated[int, typer.Option(help="seeds of the runs on shots and noise", min=1)] = 3,
    epochs: Annotated[int, typer.Option(help="passes over train in each run", min=1)] = 8,
    qubits: Annotated[str, typer.Option(help="widths of the sweep, with commas; '' leaves it out")] = "4,6,8,10,12,14",
    qubit_texts: Annotated[int, typer.Option(help="training sentences in that sweep; 0: all", min=0)] = 2000,
    qubit_epochs: Annotated[int, typer.Option(help="epochs in that sweep", min=1)] = 4,
    subset: Annotated[int, typer.Option(help="test sentences under a device's noise; 0: all", min=0)] = 400,
    devices: Annotated[str, typer.Option(help="whose noise, with commas; '' for none")] = "ibm_torino,ibm_boston",
    source: Annotated[bool, typer.Option(help="also the 14-qubit head of 886 parameters, one seed")] = True,
    tuned: Annotated[bool, typer.Option(help="also on embeddings of MiniLM fine-tuned for one epoch")] = True,
    workers: Annotated[int, typer.Option(help="processes", min=1)] = 1,
    device: Annotated[str, typer.Option(help="where MiniLM runs: cpu or cuda; circuits run on the CPU")] = "cpu",
    format: Annotated[
        str, typer.Option(help="text, or html: also OUT/report.html, one file with tables and plots")
    ] = "text",
) -> None:
    """Sentence embeddings (MiniLM, frozen and fine-tuned) into the re-uploading head of Kim et al. 2025, and classical heads.

    Writes quantum.jsonl, classical.jsonl, sampled.jsonl, table.md and plots to --out; embeddings are kept in its checkpoints/.
    """
    from qcascade.errors import PlanError
    from qcascade.studies.head.screening import Budget, Screening
    from qcascade.studies.head.tables import write
    from qcascade.studies.records import Record
    from qcascade.studies.results import FORMATS

    checked_format(format, FORMATS)
    try:
        widths = tuple(int(width) for width in qubits.split(",") if width)
    except ValueError as error:
        raise PlanError(
            f"--qubits {qubits!r} must be whole numbers with commas between them, such as 4,6,8."
        ) from error
    names = tuple(name.strip() for name in devices.split(",") if name.strip())
    budget = Budget(
        seeds, screening, ablation, sampled, epochs, widths, qubit_texts, qubit_epochs, subset, names, source, tuned
    )

    def said(record: Record) -> None:
        settings = {name: value for name, value in record.settings.items() if name != "head"}
        scores = {k: record.measured[k] for k in ("dev", "test") if record.measured.get(k) is not None}
        figures = " ".join(f"{k} {v:.2f}" for k, v in scores.items()) or "diverged"
        typer.echo(f"{figures}  {' '.join(f'{k}={v}' for k, v in settings.items())}")

    study = Screening(out, budget, data, workers=workers, said=said, device=device)
    typer.echo(write(study.run(lambda so_far: write(so_far, out, plots=False)), out, page=format == "html"))
