"""The user's cache folder: JSON files named by content, written whole or not at all.

The folder is `QCASCADE_CACHE_DIR`, else `XDG_CACHE_HOME`/qcascade, else ~/.cache/qcascade. A cache that cannot be read or
written only costs the work again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Where cached files are; it need not exist."""
    if chosen := os.environ.get("QCASCADE_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qcascade"


def read_cached(name: str) -> Any:
    """The JSON value stored under a name; None where there is none, or the file is damaged."""
    try:
        return json.loads((cache_folder() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def write_cached(name: str, value: Any) -> None:
    """Store a JSON value; other processes see the whole file or none."""
    file = cache_folder() / f"{name}.json"
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value))
        partial.replace(file)
    except OSError:
        with suppress(OSError):
            partial.unlink()
