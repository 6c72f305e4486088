"""`qcascade jobs`: what a journal holds of submissions: list, show, wait, cancel, prune."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from qcascade.errors import ExecutionError

if TYPE_CHECKING:
    from qcascade.dispatch import Journal, Record

jobs = typer.Typer(no_args_is_help=True, help="What was submitted to backends, by the journal of `use(journal=...)`.")
_Path = Annotated[Path | None, typer.Option("--journal", help="the journal's file; the user's own by default")]
_Number = Annotated[int, typer.Argument(help="of the submission, as `list` shows it")]
_COLUMNS = ("number", "state", "executor", "circuits", "shots", "price", "changed", "handle")


@jobs.command("list")
def list_jobs(
    journal: _Path = None,
    state: Annotated[str | None, typer.Option(help="only those in this state")] = None,
    format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """List submissions, oldest first; tab-separated in a pipe."""
    from qcascade.commands.format import checked_format
    from qcascade.dispatch.journal import STATES

    checked_format(format)
    if state is not None and state not in STATES:
        raise typer.BadParameter(f"{state!r} is unknown; choose one of {', '.join(STATES)}.", param_hint="--state")
    found = _opened(journal).records(STATES if state is None else (state,))
    if format == "json":
        typer.echo(json.dumps([dataclasses.asdict(record) for record in found], indent=2))
        return
    terminal = Console()
    if not terminal.is_terminal:
        for record in found:
            typer.echo("\t".join(_row(record)))
        return
    table = Table(*_COLUMNS, box=None, header_style="bold")
    for record in found:
        table.add_row(*_row(record))
    terminal.print(table)


@jobs.command()
def show(number: _Number, journal: _Path = None) -> None:
    """Show one submission in full."""
    for name, value in dataclasses.asdict(_opened(journal).record(number)).items():
        text = _time(value) if name in ("created", "changed") else "-" if value in (None, "") else str(value)
        typer.echo(f"{name:<9} {text}")


@jobs.command()
def wait(
    numbers: Annotated[list[int] | None, typer.Argument(help="all that are open by default")] = None,
    journal: _Path = None,
    seconds: Annotated[float, typer.Option(help="at most; 0: for ever")] = 0.0,
) -> None:
    """Wait until submissions are open no more, which takes the process that made them; exit 1 if some stay open."""
    from qcascade.dispatch.journal import OPEN, is_alive

    _check_span(seconds, "--seconds")
    book, end = _opened(journal), time.monotonic() + seconds
    wanted = numbers or [record.number for record in book.records(OPEN)]
    while waiting := [record for record in map(book.record, wanted) if record.open]:
        orphans = [record.number for record in waiting if not is_alive(record.owner)]
        if len(orphans) == len(waiting):
            listed = ", ".join(map(str, orphans))
            raise ExecutionError(
                f"nobody works on {listed}: the process has ended. Run it again with the same journal to go on."
            )
        if seconds and time.monotonic() > end:
            raise ExecutionError(f"{len(waiting)} submissions are still open after {seconds:g} s.")
        time.sleep(0.2)


@jobs.command()
def cancel(number: _Number, journal: _Path = None) -> None:
    """Give an open submission up in the journal: its circuits may be submitted again, and paid for again.

    The provider is not told: a journal holds a backend's name and a job's handle, but not the backend object or the login with
    which it could be asked. Cancel the job there with the handle that this prints. A running program cancels what passes
    its policy's deadline itself.
    """
    book = _opened(journal)
    record = book.record(number)
    if not book.release(number, "cancelled", "given up by `qcascade jobs cancel`"):
        raise ExecutionError(f"submission {number} is {book.record(number).state}; only an open one can be cancelled.")
    typer.echo(f"submission {number} is given up in the journal")
    if record.handle is not None:
        typer.echo(f"at the provider it may still run, and cost: its handle is {record.handle}; cancel it there")


@jobs.command()
def prune(
    journal: _Path = None,
    days: Annotated[float, typer.Option(help="only what last changed so many days ago, or earlier")] = 0.0,
) -> None:
    """Forget submissions that are not open, with their results: the same circuits would be submitted again.

    What was spent on them still counts in budgets (`Policy(max_shots=...)` and the like).
    """
    _check_span(days, "--days")
    before = time.time() - 86400 * days
    typer.echo(f"{_opened(journal).prune(before=before)} submissions were forgotten")


def _check_span(value: float, option: str) -> None:
    if not value >= 0:
        raise typer.BadParameter(f"{value:g} is no span of time; give a number of at least 0.", param_hint=option)


def _opened(path: Path | None) -> Journal:
    from qcascade.dispatch import Journal, default_path

    chosen = default_path() if path is None else path
    if not chosen.exists():
        raise ExecutionError(f"there is no journal {chosen}; give --journal, or run something with use(journal=...).")
    return Journal(chosen)


def _row(record: Record) -> tuple[str, ...]:
    executor = "/".join(part for part in record.executor.split("|")[:2])
    price = "-" if record.price is None else f"{record.price:.2f}"
    shots = "-" if record.shots is None else str(record.shots)
    handle = "-" if record.handle is None else record.handle if len(record.handle) < 40 else f"{record.handle[:37]}..."
    numbers = (str(record.number), record.state, executor, str(record.circuits), shots)
    return (*numbers, price, _time(record.changed), handle)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
