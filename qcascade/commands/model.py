"""MODEL on the command line: a module by its name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from torch import nn

from qcascade.errors import CaptureError


def load_model(name: str) -> nn.Module:
    """The module called `package.module:name` or `file.py:name`.

    Raises:
        CaptureError: There is no such thing, or it is no module.

    Example:
        >>> type(load_model("torch.nn:Identity")).__name__
        'Identity'
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise CaptureError(f"MODEL is {name!r}; write package.module:name or file.py:name.")
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
