"""`qcascade study cascade`: a classical encoder against its hybrid on labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qcascade.studies.records import Record

_Folder = typer.Option(help="folder with train.tsv, test.tsv and, where there is one, dev.tsv of text<TAB>label")


def cascade(
    data: Annotated[Path, _Folder],
    out: Annotated[Path, typer.Option(help="folder of results; what is done there is not done again")] = Path(
        "results/cascade"
    ),
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="what to train: classical, hybrid, 'without attention kernel', 'without embedding kernel'; may be repeated; "
            "all by default"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="runs of each", min=1)] = 5,
    first_seed: Annotated[int, typer.Option(help="seeds are this one and those after it", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="processes", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="of torch in each process", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    layers: Annotated[int, typer.Option(min=1)] = 6,
    features: Annotated[int, typer.Option(help="width; the source's is 1024", min=1)] = 128,
    heads: Annotated[int, typer.Option(help="the source's model has 16", min=1)] = 4,
    hidden: Annotated[int, typer.Option(help="width of the feed-forward networks; the source's is 5120", min=1)] = 512,
    length: Annotated[int, typer.Option(help="words of a text that are read", min=1)] = 64,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    rate: Annotated[float, typer.Option(help="learning rate; 2e-5 suits pretrained weights")] = 5e-4,
    warmup: Annotated[float, typer.Option(help="share of the steps in which the rate rises")] = 0.1,
    clip: Annotated[float, typer.Option(help="largest norm of the gradient")] = 1.0,
    dropout: Annotated[float, typer.Option()] = 0.2,
    word_dropout: Annotated[float, typer.Option(help="share of words replaced by the unknown one in training")] = 0.15,
    slots: Annotated[int, typer.Option(help="contexts a head of the attention kernel", min=1)] = 8,
    local_width: Annotated[int, typer.Option(help="width of its local path, odd; 0: none", min=0)] = 0,
    angle_rate: Annotated[float, typer.Option(help="rate of the embedding's angles over the rest's")] = 5.0,
    executor: Annotated[str, typer.Option(help="statevector (exact) or shots, in training")] = "statevector",
    shots: Annotated[int | None, typer.Option(help="of executor shots", min=1)] = None,
) -> None:
    """Train both with several seeds, without each kernel too, and print accuracy, time and memory against the source's."""
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress

    from qcascade.studies.cascade.encoder import Size
    from qcascade.studies.cascade.run import checked_device, train_run
    from qcascade.studies.cascade.settings import KINDS, Kernels, Run, digest_of
    from qcascade.studies.records import Records
    from qcascade.studies.runs import run_all
    from qcascade.studies.training import Protocol

    for name in kind or ():
        if name not in KINDS:
            raise typer.BadParameter(f"{name!r} is unknown; choose from {', '.join(KINDS)}.", param_hint="--kind")
    checked_device(device)
    digest = digest_of(data)
    settings = [
        Run(
            data=data.resolve().name,
            digest=digest,
            kind=name,
            size=Size(features, heads, hidden, layers, length),
            protocol=Protocol(epochs, batch, rate, warmup, clip, seed=seed),
            kernels=None
            if name == "classical"
            else Kernels(slots=slots, local_width=local_width, angle_rate=angle_rate),
            dropout=dropout,
            word_dropout=word_dropout,
            executor="statevector" if name == "classical" else executor,
            shots=None if name == "classical" else shots,
        )
        for seed in range(first_seed, first_seed + seeds)
        for name in kind or KINDS
    ]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("runs", total=len(settings))

        def said(record: Record) -> None:
            progress.advance(bar)
            typer.echo(
                f"{record.settings['data']}, {record.settings['kind']}, seed {record.settings['protocol']['seed']}: "
                f"dev {record.measured['dev']}, test {record.measured['test']:.2f} %",
                err=True,
            )

        work = partial(train_run, folder=data, out=out, device=device)
        run_all(settings, work, Records(out / "runs.jsonl"), workers=workers, threads=threads, said=said)
