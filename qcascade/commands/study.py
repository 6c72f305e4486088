"""`qcascade study`: papers' claims tried on one's own data, one command a study."""

from __future__ import annotations

import typer

from qcascade.commands.study_fault_tolerant import fault_tolerant

study = typer.Typer(
    no_args_is_help=True, help="Try a paper's claims on your own data; each study can be stopped and given again."
)
# A study: `from qcascade.commands.study_NAME import NAME`, then `study.command()(NAME)` here; its options are in that file, and
# everything slow is imported inside of it.


@study.callback()
def _group() -> None:
    """Keeps `study` a group, however few commands it has."""


study.command()(fault_tolerant)
