"""JSON from a bundle: bytes in, plain values out; what no honest writer makes is refused before it costs anything.

Refused: more than `MAX_BYTES`, no UTF-8, nesting deeper than `MAX_DEPTH`, numbers of more than `MAX_DIGITS` characters,
NaN and infinity (also as 1e999), a key given twice, anything after the value.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from qcascade.errors import BundleError

MAX_BYTES = 64 << 20
MAX_DEPTH = 100
MAX_DIGITS = 400
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # one without an end too, which json refuses
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # 1 and -1
_OTHERS = bytes(sorted(set(range(256)) - set(b"[{]}")))
_PIECE = 1 << 20


def read_json(data: bytes, name: str) -> Any:
    """The value of a JSON document.

    Args:
        data: The document.
        name: What it is called in messages.

    Raises:
        BundleError: It is no JSON, or JSON of a refused kind.

    Example:
        >>> read_json(b'{"a": [1, null]}', "x.json")
        {'a': [1, None]}
        >>> read_json(b'{"a": 1, "a": 2}', "x.json")
        Traceback (most recent call last):
        qcascade.errors.BundleError: x.json is no valid JSON: the key 'a' stands twice.
    """
    if len(data) > MAX_BYTES:
        raise BundleError(f"{name} is {len(data)} bytes of JSON; at most {MAX_BYTES} are read.")
    _check_depth(data, name)
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is no valid JSON: {str(error).rstrip('.')}.") from error


def write_json(value: Any, *, indent: int | None = 1) -> bytes:
    r"""The document of a value: UTF-8, keys in the order given, a newline at the end; the same value, the same bytes.

    Raises:
        BundleError: The value holds NaN, infinity or what JSON has no form for.

    Example:
        >>> write_json({"b": 1, "a": "é"}, indent=None)
        b'{"b": 1, "a": "\xc3\xa9"}\n'
    """
    try:
        return (json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"this cannot be written as JSON: {error}.") from error


def _check_depth(data: bytes, name: str) -> None:
    """Count brackets outside strings, without recursion, in one pass."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    steps = np.frombuffer(_STRING.sub(b"", data).translate(_STEPS, _OTHERS), np.int8)
    depth = 0
    for start in range(0, len(steps), _PIECE):
        depths = depth + np.cumsum(steps[start : start + _PIECE], dtype=np.int64)
        if depths.max() > MAX_DEPTH:
            raise BundleError(f"{name} is nested deeper than {MAX_DEPTH} levels.")
        depth = int(depths[-1])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:40]!r} stands twice")
        found[key] = value
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _float(text: str) -> float:
    value = float(_short(text))
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is out of range")
    return value


def _integer(text: str) -> int:
    return int(_short(text))


def _short(text: str) -> str:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} characters, {MAX_DIGITS} are read")
    return text
