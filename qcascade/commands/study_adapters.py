"""`qcascade study adapters`: fine-tuning methods and the amplitude adapter under one budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcascade.commands.format import checked_format


def adapters(
    out: Annotated[Path, typer.Option(help="folder of results; a study that was stopped goes on from it")],
    data: Annotated[
        Path | None, typer.Option(help="folder with train.tsv, test.tsv and dev.tsv of sentences<TAB>label, for MiniLM")
    ] = None,
    reviews: Annotated[
        Path | None,
        typer.Option(help="folder with train.tsv and test.tsv of long texts<TAB>label, for a language model"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="of every method", min=1)] = 5,
    sweep: Annotated[int, typer.Option(help="seeds of other ranks, layers and widths; 0 leaves them out", min=0)] = 2,
    steps: Annotated[int, typer.Option(help="training steps on sentences, a multiple of 4", min=4)] = 216,
    batch: Annotated[int, typer.Option(help="sentences a step", min=1)] = 32,
    evaluated: Annotated[int, typer.Option(help="dev and test sentences scored; 0: all", min=0)] = 0,
    language_steps: Annotated[
        int, typer.Option(help="training steps on blocks of words, a multiple of 4", min=4)
    ] = 200,
    language_evaluated: Annotated[int, typer.Option(help="dev and test blocks scored; 0: all", min=0)] = 400,
    pretraining: Annotated[
        int, typer.Option(help="steps of the language model from scratch, a multiple of 4", min=4)
    ] = 600,
    width: Annotated[int, typer.Option(help="of the language model; a multiple of 8", min=8)] = 64,
    length: Annotated[int, typer.Option(help="words a block", min=4)] = 64,
    widths: Annotated[
        str, typer.Option(help="other widths (qubits: log2), with commas; '' leaves them out")
    ] = "32,128",
    workers: Annotated[int, typer.Option(help="processes", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    format: Annotated[
        str, typer.Option(help="text, or html: also OUT/report.html, one file with tables and plots")
    ] = "text",
) -> None:
    """Full fine-tuning, LoRA, SoRA, prefix tuning and the amplitude adapter: parameters, accuracy or perplexity, time, memory.

    MiniLM on labelled sentences (--data), and a small language model trained from scratch on the first label's reviews and adapted
    to the last label's (--reviews). Writes adapters.jsonl, table.md and plots to --out.
    """
    from qcascade.errors import PlanError
    from qcascade.studies.adapters.runs import PARTS, LanguageModel
    from qcascade.studies.adapters.screening import Budget, Screening
    from qcascade.studies.adapters.tables import write
    from qcascade.studies.devices import checked_device
    from qcascade.studies.records import Record
    from qcascade.studies.results import FORMATS

    checked_format(format, FORMATS)
    if data is None and reviews is None:
        raise PlanError("give --data DIR (sentences), --reviews DIR (long texts), or both.")
    try:
        others = tuple(int(one) for one in widths.split(",") if one)
    except ValueError as error:
        raise PlanError(
            f"--widths {widths!r} must be whole numbers with commas between them, such as 32,128."
        ) from error
    if bad := [one for one in (*others, width) if one % 8]:
        raise PlanError(f"widths {bad} must be multiples of 8 (four heads of an even size).")
    for option, given in (("--steps", steps), ("--language-steps", language_steps), ("--pretraining", pretraining)):
        if given % PARTS:
            raise PlanError(
                f"{option} {given} must be a multiple of {PARTS}: dev is scored after each quarter of the steps."
            )
    checked_device(device)
    budget = Budget(
        seeds=seeds,
        sweep=sweep,
        steps=steps,
        batch=batch,
        evaluated=evaluated,
        language_steps=language_steps,
        language_evaluated=language_evaluated,
        widths=others,
        language=LanguageModel(width=width, length=length, steps=pretraining),
    )

    def said(record: Record) -> None:
        s, m = record.settings, record.measured
        found = "diverged" if "diverged" in m else f"dev {m['dev']:.2f} test {m['test']:.2f}"
        typer.echo(f"{s['task']} {s['method']} size {s['size']} rate {s['rate']:g} seed {s['seed']}: {found}")

    study = Screening(out, budget, data, reviews, workers=workers, device=device, said=said)
    typer.echo(write(study.run(lambda so_far: write(so_far, out, plots=False)), out, page=format == "html"))
