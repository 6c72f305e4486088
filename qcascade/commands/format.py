"""The options --format and --output, shared by the commands that print."""

from __future__ import annotations

from pathlib import Path

import typer

from qcascade.errors import PlanError


def checked_format(given: str, accepted: tuple[str, ...] = ("text", "json")) -> None:
    """Refuse a format that the command does not print.

    Raises:
        PlanError: It is none of those accepted.
    """
    if given not in accepted:
        raise PlanError(f"--format {given} is unknown; choose one of {', '.join(accepted)}.")


def written(text: str, output: Path | None) -> None:
    """Print a report, or write it to a file and say where it is.

    Raises:
        PlanError: The file cannot be written.
    """
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    except OSError as error:
        raise PlanError(f"--output {output} cannot be written: {error.strerror}.") from error
    typer.echo(f"{output}: {len(text.encode()):,} bytes", err=True)
