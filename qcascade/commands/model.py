"""MODEL on the command line: a module by its name, or an exported program by its file.

A `.pt2` file is read by `torch.export.load`: torch says to load only files whose source is trusted.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from qcascade.errors import CaptureError


def load_model(name: str) -> nn.Module | ExportedProgram:
    """The module called `package.module:name` or `file.py:name`, or the exported program in `file.pt2`.

    Raises:
        CaptureError: There is no such thing, or it is no module.

    Example:
        >>> type(load_model("torch.nn:Identity")).__name__
        'Identity'
    """
    if name.endswith(".pt2"):
        return _program(Path(name))
    place, colon, attribute = name.rpartition(":")
    if not colon or not attribute or not (place.endswith(".py") or all(place.split("."))):
        raise CaptureError(f"MODEL is {name!r}; write package.module:name, file.py:name or file.pt2.")
    value: Any = _module(place)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise CaptureError(
                f"{place} has no {attribute!r}; give the name of a module or of a callable that makes one."
            )
        value = getattr(value, part)
    if not isinstance(value, nn.Module) and callable(value):
        try:
            value = value()
        except TypeError as error:
            raise CaptureError(f"{name} cannot be called without arguments: {error}.") from error
    if not isinstance(value, nn.Module):
        raise CaptureError(
            f"{name} is {type(value).__name__}; a torch.nn.Module or a callable that makes one is needed."
        )
    return value


def _program(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise CaptureError(f"there is no file {path}.")
    try:
        return torch.export.load(path)
    except Exception as error:  # torch raises anything on a file that is none of its own
        raise CaptureError(
            f"{path} cannot be loaded: {type(error).__name__}: {error}. A file written by torch.export.save is needed."
        ) from error


def _module(place: str) -> Any:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise CaptureError(f"there is no file {place}.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    sys.path.insert(0, "")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise CaptureError(f"module {place} cannot be imported: {error}.") from error
    finally:
        sys.path.remove("")
