"""The folder of everything that is kept between runs: machine profiles, converted targets, compiled circuits."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`QCASCADE_CACHE_DIR`, else `XDG_CACHE_HOME`/qcascade, else ~/.cache/qcascade; it need not exist yet."""
    if chosen := os.environ.get("QCASCADE_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qcascade"
