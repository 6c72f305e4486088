"""Arrays by name in .npz files, for the command line: read without pickle and within bounds, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcascade.errors import ExecutionError


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file.

    Raises:
        ExecutionError: There is none, or it is no .npz of plain arrays.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ExecutionError(f"{path} holds one array without a name; save it by np.savez(path, name=array).")
        with found:
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise ExecutionError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ExecutionError(f"{path} is no .npz file of plain arrays: {error}.") from error


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file under its name when it is complete.

    Raises:
        ExecutionError: It cannot be written there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_arrays(Path(folder, "y.npz"), {"y": np.arange(3)})
        ...     read_arrays(Path(folder, "y.npz"))
        {'y': array([0, 1, 2])}
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.partial"
    try:
        with temporary.open("xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ExecutionError(f"{path} cannot be written: {error.strerror or error}.") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
