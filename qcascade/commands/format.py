"""The option --format, shared by the commands that print."""

from __future__ import annotations

from qcascade.errors import PlanError


def checked_format(given: str, accepted: tuple[str, ...] = ("text", "json")) -> None:
    """Refuse a format that the command does not print.

    Raises:
        PlanError: It is none of those accepted.
    """
    if given not in accepted:
        raise PlanError(f"--format {given} is unknown; choose one of {', '.join(accepted)}.")
