"""The command line: report, targets, route, demo. Exit 0: done; 1: the work failed; 2: wrong usage."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from qcascade.errors import CaptureError, PlanError, QCascadeError, TargetError
from qcascade.executors.mitigation import Mitigation, ReadoutInversion, ZeroNoiseExtrapolation
from qcascade.plan import Limits, PartitionPlan
from qcascade.targets import get_target

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Compile PyTorch models into hybrids with quantum kernels."
)

_FORMATS: dict[str, Callable[[PartitionPlan], str]] = {"text": str, "json": PartitionPlan.to_json}


@app.command()
def report(
    model: Annotated[
        str, typer.Argument(help="package.module:name or file.py:name, a module or a callable that makes one")
    ],
    target: Annotated[str, typer.Option(help="device, of `qcascade targets`, or a .json file")] = "ideal",
    objective: Annotated[str, typer.Option(help="offload, train_time or hardware_time")] = "offload",
    kernel: Annotated[list[str] | None, typer.Option(help="kernel to consider; may be repeated")] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="glob over region names to offload; may be repeated")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="glob over region names to keep; may be repeated")] = None,
    max_qubits: Annotated[int | None, typer.Option(help="widest circuit accepted")] = None,
    max_two_qubit_depth: Annotated[int | None, typer.Option(help="deepest circuit accepted, loading included")] = None,
    min_fidelity: Annotated[float | None, typer.Option(help="least predicted fidelity accepted")] = None,
    min_flops: Annotated[int, typer.Option(help="regions of fewer FLOPs are kept")] = 0,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    mitigation: Annotated[
        list[str] | None, typer.Option(help="to count in the costs: readout or extrapolation; may be repeated")
    ] = None,
    format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Print the partition report of a model: what would be offloaded, at what cost, and why the rest is kept."""
    from qcascade.compiler import plan

    if format not in _FORMATS:
        raise PlanError(f"--format {format} is unknown; choose one of {', '.join(_FORMATS)}.")
    made = plan(
        load_model(model),
        target=target,
        objective=objective,
        limits=Limits(max_qubits, max_two_qubit_depth, min_fidelity, min_flops),
        kernels=kernel,
        include=include,
        exclude=exclude,
        seed=seed,
        mitigation=[_mitigation(name) for name in mitigation or []],
    )
    typer.echo(_FORMATS[format](made))


@app.command()
def targets(
    name: Annotated[str | None, typer.Argument(help="show this one in full; a name or a .json file")] = None,
    format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """List the devices a plan can be made for, tab-separated in a pipe, or show one in full.

    Columns: name, qubits, native two-qubit gate, median two-qubit error, median readout error, day of the calibration,
    description.
    """
    from qcascade.targets import summary

    if format not in _FORMATS:
        raise PlanError(f"--format {format} is unknown; choose one of {', '.join(_FORMATS)}.")
    terminal = Console()
    if name is not None:
        target = get_target(name)
        if format == "json":
            typer.echo(target.to_json(indent=2))
            return
        rows = summary.details(target)
        width = max(len(label) for label, _ in rows)
        for label, value in rows:
            typer.echo(f"{label:<{width}}  {value}")
        return
    progress = Console(stderr=True)

    def bar(names: Iterable[str]) -> Iterable[str]:
        return track(names, "reading targets", console=progress, transient=True, disable=not progress.is_terminal)

    found = summary.summaries(bar)
    if format == "json":
        typer.echo(json.dumps([one.to_dict() for one in found], indent=2))
    elif terminal.is_terminal:
        table = Table(*summary.COLUMNS, box=None, header_style="bold")
        for one in found:
            table.add_row(*one.row())
        terminal.print(table)
    else:
        for one in found:
            typer.echo("\t".join(one.row()))


@app.command()
def route(
    file: Annotated[Path, typer.Argument(help="OpenQASM 2 or 3", exists=True, dir_okay=False, readable=True)],
    target: Annotated[str, typer.Option(help="device; see `qcascade targets`")],
    seeds: Annotated[int, typer.Option(help="seeds of every method that has any", min=1)] = 10,
    seconds: Annotated[float | None, typer.Option(help="time budget; the best so far is taken", min=0)] = None,
    workers: Annotated[
        int | None, typer.Option(help="processes at most; the cores there are by default", min=1)
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="OpenQASM 2 on the device's qubits")] = None,
    format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Compile a circuit for a device, noise-aware, and print what it will come to there."""
    from qcascade.routing import route as compile_circuit
    from qcascade.routing.qasm import read_qasm, write_qasm
    from qcascade.routing.summary import routed_json, routed_text

    if format not in ("text", "json"):
        raise PlanError(f"--format {format} is unknown; choose one of text, json.")
    made = compile_circuit(read_qasm(file), target, seeds=seeds, seconds=seconds, workers=workers)
    if output is not None:
        write_qasm(made, output)
    typer.echo(routed_json(made) if format == "json" else routed_text(made))


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="folder with train.tsv and test.tsv of text<TAB>label")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training data", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = 0,
) -> None:
    """Train a small transformer classifier and its hybrid side by side; digits by default, nothing is downloaded."""
    from qcascade.demo import run_demo

    run_demo(data, epochs=epochs, seed=seed)


def _mitigation(name: str) -> Mitigation:
    if name not in ("readout", "extrapolation"):
        raise PlanError(f"--mitigation {name} is unknown; choose readout or extrapolation.")
    return ReadoutInversion() if name == "readout" else ZeroNoiseExtrapolation()


def load_model(name: str) -> nn.Module:
    """The module called `package.module:name` or `file.py:name`.

    Raises:
        CaptureError: There is no such thing, or it is no module.

    Example:
        >>> type(load_model("torch.nn:Identity")).__name__
        'Identity'
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise CaptureError(f"MODEL is {name!r}; write package.module:name or file.py:name.")
    value: Any = _module(place)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise CaptureError(
                f"{place} has no {attribute!r}; give the name of a module or of a callable that makes one."
            )
        value = getattr(value, part)
    if not isinstance(value, nn.Module) and callable(value):
        try:
            value = value()
        except TypeError as error:
            raise CaptureError(f"{name} cannot be called without arguments: {error}.") from error
    if not isinstance(value, nn.Module):
        raise CaptureError(
            f"{name} is {type(value).__name__}; a torch.nn.Module or a callable that makes one is needed."
        )
    return value


def _module(place: str) -> Any:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise CaptureError(f"there is no file {place}.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    sys.path.insert(0, "")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise CaptureError(f"module {place} cannot be imported: {error}.") from error
    finally:
        sys.path.remove("")


def main() -> None:
    """Entry point: what QCascade refuses is one line on standard error."""
    try:
        app()
    except (PlanError, TargetError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from error
    except QCascadeError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error
