"""The command line, one file a command in `commands`. Exit 0: done; 1: the work failed; 2: wrong usage."""

from __future__ import annotations

import typer

from qcascade.commands.demo import demo
from qcascade.commands.export import export
from qcascade.commands.fault_tolerant import fault_tolerant
from qcascade.commands.inspect import inspect
from qcascade.commands.jobs import jobs
from qcascade.commands.report import report
from qcascade.commands.route import route
from qcascade.commands.run import run
from qcascade.commands.study import study
from qcascade.commands.targets import targets
from qcascade.errors import PlanError, QCascadeError, TargetError

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Compile PyTorch models into hybrids with quantum kernels."
)
for command in (report, export, inspect, run, targets, route, fault_tolerant, demo):
    app.command()(command)
app.add_typer(jobs, name="jobs")
app.add_typer(study, name="study")


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
