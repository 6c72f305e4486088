"""`qcascade study cascade`: a classical encoder against its hybrid on labelled texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcascade.commands.format import checked_format

if TYPE_CHECKING:
    from qcascade.studies.records import Record

_PARTS = ("train", "lengths", "noise", "report")
_LENGTHS = [64, 128, 256, 512, 1024, 2048]
_Folder = typer.Option(help="folder with train.tsv, test.tsv and, where there is one, dev.tsv of text<TAB>label")
_Kinds = typer.Option(
    help="what to train: classical, hybrid, 'without attention kernel', 'without embedding kernel'; may be repeated; all by default"
)
_Parts = typer.Option(
    help="train, lengths (time and memory of a step), noise (on --target), report (tables and plots alone, always written); "
    "may be repeated; all by default"
)


def cascade(
    data: Annotated[Path, _Folder],
    out: Annotated[Path, typer.Option(help="folder of results; what is done there is not done again")] = Path(
        "results/cascade"
    ),
    part: Annotated[list[str] | None, _Parts] = None,
    kind: Annotated[list[str] | None, _Kinds] = None,
    seeds: Annotated[int, typer.Option(help="runs of each", min=1)] = 5,
    first_seed: Annotated[int, typer.Option(help="seeds are this one and those after it", min=0)] = 0,
    folds: Annotated[
        int,
        typer.Option(
            help="cross-validation over all texts, each seed testing another fold; 0: test.tsv as it is", min=0
        ),
    ] = 0,
    workers: Annotated[int, typer.Option(help="processes that train", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="of torch in each process", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    size: Annotated[
        str, typer.Option(help="small: d = 128, for a CPU; reference: d = 1024, 16 heads, FFN 5120, as the source's")
    ] = "small",
    features: Annotated[int | None, typer.Option(help="width d, instead of the size's", min=1)] = None,
    heads: Annotated[int | None, typer.Option(help="instead of the size's", min=1)] = None,
    hidden: Annotated[
        int | None, typer.Option(help="of the feed-forward networks, instead of the size's", min=1)
    ] = None,
    layers: Annotated[int, typer.Option(min=1)] = 6,
    length: Annotated[int, typer.Option(help="words of a text that are read", min=1)] = 64,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    rate: Annotated[float, typer.Option(help="learning rate; 2e-5 suits pretrained weights")] = 5e-4,
    warmup: Annotated[float, typer.Option(help="share of the steps in which the rate rises")] = 0.1,
    clip: Annotated[float, typer.Option(help="largest norm of the gradient")] = 1.0,
    decay: Annotated[float, typer.Option(help="AdamW's weight decay", min=0)] = 0.01,
    dropout: Annotated[
        float, typer.Option(help="in the embedding and the layers; attention weights are not dropped")
    ] = 0.2,
    word_dropout: Annotated[float, typer.Option(help="share of words replaced by the unknown one in training")] = 0.0,
    slots: Annotated[int, typer.Option(help="contexts a head of the attention kernel", min=1)] = 8,
    mixer_layers: Annotated[int, typer.Option(help="layers of its circuit", min=0)] = 2,
    local_width: Annotated[int, typer.Option(help="width of its local path, odd; 0: none", min=0)] = 0,
    mixer_rate: Annotated[
        float,
        typer.Option(help="rate of its circuit's angles over the rest's; 0: softmax pooling, without a circuit", min=0),
    ] = 1.0,
    qubits: Annotated[int, typer.Option(help="of the embedding's circuit", min=2, max=12)] = 8,
    circuit_layers: Annotated[int, typer.Option(help="of the same", min=1)] = 4,
    spread: Annotated[
        float, typer.Option(help="deviation of the embedding's starting angles from word to word, in radians", min=0)
    ] = 0.1,
    angle_rate: Annotated[float, typer.Option(help="rate of the embedding's angles over the rest's", min=0)] = 5.0,
    executor: Annotated[
        str, typer.Option(help="of circuits in training: statevector (exact) or shots")
    ] = "statevector",
    shots: Annotated[int | None, typer.Option(help="of executor shots, each circuit; 1024 by default", min=1)] = None,
    step_length: Annotated[
        list[int] | None, typer.Option(help="lengths of part lengths; 64 to 2048 by default")
    ] = None,
    step_batch: Annotated[int, typer.Option(help="texts of a step of part lengths", min=1)] = 4,
    rounds: Annotated[int, typer.Option(help="of part lengths", min=1)] = 5,
    step_memory: Annotated[bool, typer.Option(help="memory too, in processes of their own")] = True,
    target: Annotated[list[str] | None, typer.Option(help="devices of part noise; ibm_torino by default")] = None,
    noise_texts: Annotated[int, typer.Option(help="test texts that are read under noise", min=1)] = 64,
    noise_epochs: Annotated[int, typer.Option(help="that the small hybrid read under noise is trained for", min=1)] = 3,
    format: Annotated[
        str, typer.Option(help="text, or html: also OUT/report.html, one file with tables and plots")
    ] = "text",
) -> None:
    """Train both with several seeds, without each kernel too, and print accuracy, time and memory against the source's."""
    from dataclasses import replace
    from functools import partial

    from rich.console import Console
    from rich.progress import Progress

    from qcascade.errors import ExecutionError
    from qcascade.studies.cascade.encoder import SIZES
    from qcascade.studies.cascade.lengths import LengthRun, measure_length
    from qcascade.studies.cascade.noise import NoisyRun, PredictedRun, check_calibrated, predict, simulate
    from qcascade.studies.cascade.report import LENGTHS, NOISE, RUNS, make_report
    from qcascade.studies.cascade.run import train_run
    from qcascade.studies.cascade.settings import KINDS, Kernels, Run
    from qcascade.studies.devices import checked_device
    from qcascade.studies.records import Records
    from qcascade.studies.results import FORMATS
    from qcascade.studies.runs import run_all
    from qcascade.studies.texts import digest_of
    from qcascade.studies.training import Protocol

    checked_format(format, FORMATS)
    _known("--kind", kind or (), KINDS)
    _known("--part", part or (), _PARTS)
    _known("--size", (size,), SIZES)
    parts = part or list(_PARTS)
    given = {"features": features, "heads": heads, "hidden": hidden, "layers": layers, "length": length}
    sizes = replace(SIZES[size], **{name: value for name, value in given.items() if value is not None})
    name, digest = data.resolve().name, digest_of(data)
    kernels = Kernels(
        slots=slots,
        mixer_layers=mixer_layers,
        local_width=local_width,
        mixer_rate=mixer_rate,
        qubits=qubits,
        circuit_layers=circuit_layers,
        spread=spread,
        angle_rate=angle_rate,
    )
    training = [
        Run(
            data=name,
            digest=digest,
            kind=one,
            size=sizes,
            protocol=Protocol(epochs, batch, rate, warmup, clip, decay, seed),
            kernels=None if one == "classical" else kernels,
            dropout=dropout,
            word_dropout=word_dropout,
            executor="statevector" if one == "classical" else executor,
            shots=None if one == "classical" else shots or (1024 if executor == "shots" else None),
            device=checked_device(device).type,
            folds=folds,
        )
        for seed in range(first_seed, first_seed + seeds)
        for one in kind or KINDS
    ]
    steps = [
        LengthRun(
            replace(sizes, length=n),
            kernels,
            step_batch,
            rounds=rounds,
            device=device,
            threads=threads,
            memory=step_memory,
        )
        for n in step_length or _LENGTHS
    ]
    targets = target or ["ibm_torino"]
    if "noise" in parts:
        for one in targets:
            check_calibrated(one)
    predicted = [PredictedRun(one, sizes, kernels, batch) for one in targets]
    simulated = [
        NoisyRun(one, name, digest, protocol=Protocol(noise_epochs, rate=2e-3), texts=noise_texts) for one in targets
    ]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        total = (
            len(training) * ("train" in parts)
            + len(steps) * ("lengths" in parts)
            + 2 * len(targets) * ("noise" in parts)
        )
        bar = progress.add_task("runs", total=total)

        def said(record: Record) -> None:
            progress.advance(bar)
            if "test" in record.measured:
                seed, measured = record.settings["protocol"]["seed"], record.measured
                typer.echo(
                    f"{name}, {record.settings['kind']}, seed {seed}: test {measured['test']:.2f} %, "
                    f"{measured['step_seconds']['sum']:.0f} s",
                    err=True,
                )

        if "train" in parts:
            work = partial(train_run, folder=data, out=out, device=device)
            run_all(training, work, Records(out / RUNS), workers=workers, threads=threads, said=said)
        if "lengths" in parts:
            run_all(steps, measure_length, Records(out / LENGTHS), said=said)
        if "noise" in parts:
            run_all(predicted, predict, Records(out / NOISE), said=said)
            run_all(simulated, partial(simulate, folder=data), Records(out / NOISE), said=said)
    terminal = Console()
    tables = make_report(out, page=format == "html")
    if not tables:
        raise ExecutionError(f"{out} holds no results of this study; give its folder, or train first.")
    for table in tables:
        typer.echo(table.text(terminal.width if terminal.is_terminal else 200))


def _known(option: str, given: Iterable[str], accepted: Iterable[str]) -> None:
    names = list(accepted)
    for value in given:
        if value not in names:
            raise typer.BadParameter(f"{value!r} is unknown; choose from {', '.join(names)}.", param_hint=option)
