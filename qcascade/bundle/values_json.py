"""Arguments of graph nodes as JSON, and back.

Null, booleans, integers, text and finite floats stand for themselves, and arrays for lists; everything else is an object
with one key that says what it is: {"node": name}, {"tuple": […]}, {"dict": [[key, value], …]}, {"slice": [a, b, c]},
{"float": "inf" | "-inf" | "nan"}, {"complex": [re, im]}, {"dtype": "float32"}, {"device": "cpu"}, {"layout": "strided"},
{"memory_format": "preserve_format"}, and {"program": …} for a circuit. Anything else is refused, in both directions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from qcascade.bundle.program_json import program_text_of
from qcascade.errors import BundleError

MAX_DEPTH = 12
MAX_TEXT = 2000  # characters: an einsum equation, a mode
_DTYPE_NAMES = (
    "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex32 complex64 complex128 "
    "float8_e4m3fn float8_e5m2"
)
_DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in _DTYPE_NAMES.split()}
_LAYOUTS = {"strided": torch.strided}
_FORMATS = {
    name: getattr(torch, name) for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
}
_SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|meta)(:[0-9]{1,2})?")
_TAGGED: tuple[tuple[type, str, Mapping[str, Any]], ...] = (
    (torch.dtype, "dtype", _DTYPES),
    (torch.layout, "layout", _LAYOUTS),
    (torch.memory_format, "memory_format", _FORMATS),
)


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype's name, without `torch.`."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name.

    Raises:
        BundleError: There is none.

    Example:
        >>> dtype_of("float32")
        torch.float32
    """
    if name not in _DTYPES:
        raise BundleError(f"graph.json: {name[:40]!r} is no dtype.")
    return _DTYPES[name]


def value_json(value: Any) -> Any:
    """The JSON of an argument; nodes are named.

    Raises:
        BundleError: It has no form.

    Example:
        >>> value_json((1, -math.inf, torch.float32))
        {'tuple': [1, {'float': '-inf'}, {'dtype': 'float32'}]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return _scalar(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": "nan" if math.isnan(value) else str(value)}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, tuple) and type(value).__module__ in ("builtins", "torch"):
        return {"tuple": [value_json(item) for item in value]}
    if isinstance(value, list):
        return [value_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": [[key, value_json(item)] for key, item in value.items()]}
    if isinstance(value, slice):
        return {"slice": [value_json(part) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, complex) and math.isfinite(abs(value)):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, torch.device) and _DEVICE.fullmatch(str(value)):
        return {"device": str(value)}
    for kind, tag, names in _TAGGED:
        if isinstance(value, kind) and (name := str(value).removeprefix("torch.")) in names:
            return {tag: name}
    raise BundleError(
        f"the graph holds a {type(value).__name__} ({str(value)[:60]!r}) as an argument, which a bundle has no form for; "
        "this model cannot be exported."
    )


def value_of(document: Any, node: Callable[[str], fx.Node], depth: int = 0) -> Any:
    """The argument of a JSON value.

    Args:
        document: What was read.
        node: The node of a name, for those that came before; it raises BundleError for others.
        depth: Of the value in its argument.

    Raises:
        BundleError: It is none.
    """
    if depth > MAX_DEPTH:
        raise BundleError(f"graph.json: an argument is nested deeper than {MAX_DEPTH} levels.")
    if document is None or isinstance(document, (bool, int, float, str)):
        return _scalar(document)
    if isinstance(document, list):
        return [value_of(item, node, depth + 1) for item in document]
    if isinstance(document, dict) and len(document) == 1:
        ((tag, content),) = document.items()
        if tag == "node" and isinstance(content, str):
            return node(content)
        if tag == "tuple" and isinstance(content, list):
            return tuple(value_of(item, node, depth + 1) for item in content)
        if tag == "slice" and isinstance(content, list) and len(content) == 3:
            return slice(*(value_of(part, node, depth + 1) for part in content))
        if tag == "dict" and isinstance(content, list) and _is_pairs(content):
            return {key: value_of(item, node, depth + 1) for key, item in content}
        if tag == "program" and depth == 0:
            return program_text_of(content)
        if tag == "float" and isinstance(content, str) and content in _SPECIAL:
            return _SPECIAL[content]
        if tag == "complex" and isinstance(content, list) and [type(part) for part in content] == [float, float]:
            return complex(*content)
        if tag == "device" and isinstance(content, str) and _DEVICE.fullmatch(content):
            return torch.device(content)
        for _, known, names in _TAGGED:
            if tag == known and isinstance(content, str) and content in names:
                return names[content]
    raise BundleError(f"graph.json: {str(document)[:60]!r} is no argument.")


def _scalar(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise BundleError(
            f"a text of {len(value)} characters is an argument of the graph; at most {MAX_TEXT} are accepted."
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BundleError("an integer argument of the graph is beyond 64 bits.")
    return value


def _is_pairs(content: list[Any]) -> bool:
    keys = [pair[0] for pair in content if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)]
    return len(keys) == len(content) == len(set(keys))
