"""A results file of JSON lines, one for every finished run: what a killed study goes on from, and what tables are made of.

A line holds the run's settings, what was measured, the versions, the machine and its load, and the command. Settings are compared as
JSON, with defaults where an option is younger than the record and without what the settings' own `identity`, if they have one, leaves
out: a run with the same ones is done. A line is written in one piece; a last one that a kill cut short is dropped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from qcascade.errors import ExecutionError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Record:
    """One finished run."""

    settings: Mapping[str, Any]
    measured: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    command: str
    finished: str  # UTC, ISO 8601


class Records:
    """The runs of a file.

    Args:
        path: Made, with its folder, when the first run is added.

    Example:
        >>> import tempfile
        >>> @dataclass(frozen=True)
        ... class Settings:
        ...     seed: int
        >>> records = Records(Path(tempfile.mkdtemp()) / "runs.jsonl")
        >>> _ = records.add(Settings(1), {"accuracy": 80.0})
        >>> records.find(Settings(1)).measured["accuracy"], records.find(Settings(2))
        (80.0, None)
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[Record]:
        """All runs, in the order in which they ended.

        Raises:
            ExecutionError: The file cannot be read, or a line is not a record.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ExecutionError(f"{self.path} cannot be read ({error.strerror}); give another folder.") from error
        found = []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last line's end was cut short
            try:
                found.append(Record(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ExecutionError(
                    f"{self.path}, line {number} is not a run's record ({error}); mend or move the file."
                ) from error
        return found

    def find(self, settings: DataclassInstance) -> Record | None:
        """The run with these settings, if it is done.

        An option that there was not yet when it was recorded counts as its default.
        """
        wanted = identity_of(settings)
        return next((r for r in self.all() if _identity(settings, _completed(r.settings, settings)) == wanted), None)

    def check_writable(self) -> None:
        """Make the file and its folder, before hours of work are to be written there.

        Raises:
            ExecutionError: They cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise ExecutionError(
                f"{self.path} cannot be written ({error.strerror}); give a folder that can be written to."
            ) from error

    def add(
        self, settings: DataclassInstance, measured: Mapping[str, Any], machine: Mapping[str, Any] | None = None
    ) -> Record:
        """Write a finished run down, with versions, command and the machine as its process found it (this one by default)."""
        record = Record(
            json.loads(_canonical(settings)),
            measured,
            versions(),
            machine_here() if machine is None else machine,
            command(),
            datetime.now(UTC).isoformat("T", "seconds"),
        )
        line = json.dumps(dataclasses.asdict(record), allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.seek(0)
            held = file.read()
            if held and not held.endswith(b"\n"):
                file.truncate(held.rfind(b"\n") + 1)
            file.write(line)
        return record


def key_of(settings: DataclassInstance) -> str:
    """A short name of settings, for files that belong to a run."""
    return hashlib.sha256(identity_of(settings).encode()).hexdigest()[:16]


def identity_of(settings: DataclassInstance) -> str:
    """What two equal runs have in common, as JSON."""
    return _identity(settings, dataclasses.asdict(settings))


def versions() -> dict[str, str]:
    """Of what results depend on."""
    import torch

    import qcascade

    return {"python": platform.python_version(), "torch": str(torch.__version__), "qcascade": qcascade.__version__}


def machine_here() -> dict[str, Any]:
    """Cores, their load, this process's threads and the accelerator; figures in seconds mean little without them."""
    import torch

    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": load, "gpu": gpu}


def command() -> str:
    """What was typed, as far as this process knows; the program's own folder is left out."""
    program = Path(sys.argv[0])
    return join(["qcascade" if program.parts[-2:] == ("qcascade", "__main__.py") else program.name, *sys.argv[1:]])


def _completed(recorded: Any, wanted: Any) -> Any:
    """What was recorded, with the defaults of options that there were not yet."""
    if not (dataclasses.is_dataclass(wanted) and isinstance(recorded, Mapping)):
        return recorded
    usual = dict[str, Any]()
    for field in dataclasses.fields(wanted):
        if field.default is not dataclasses.MISSING:
            usual[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            usual[field.name] = field.default_factory()
    return usual | {name: _completed(value, getattr(wanted, name, None)) for name, value in recorded.items()}


def _identity(kind: Any, settings: Mapping[str, Any]) -> str:
    identity = getattr(kind, "identity", None)
    return _canonical(settings if identity is None else identity(settings))


def _canonical(settings: Any) -> str:
    return json.dumps(settings, sort_keys=True, default=dataclasses.asdict)
