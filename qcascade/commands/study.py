"""`qcascade study`: papers' claims tried on one's own data, one command a study."""

from __future__ import annotations

import typer

from qcascade.commands.study_adapters import adapters
from qcascade.commands.study_cascade import cascade
from qcascade.commands.study_fault_tolerant import fault_tolerant
from qcascade.commands.study_head import head

study = typer.Typer(
    no_args_is_help=True, help="Try a paper's claims on your own data; each study can be stopped and given again."
)
# A study NAME: its options in `study_NAME`, everything slow imported inside, and its function in this list.
for command in (cascade, head, adapters, fault_tolerant):
    study.command()(command)


@study.callback()
def _group() -> None:
    """Keeps `study` a group, however few commands it has."""
