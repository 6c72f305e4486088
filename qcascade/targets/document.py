"""Targets as JSON documents, validated by pydantic. Version 1; unknown fields are refused."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from qcascade.errors import TargetError
from qcascade.targets.target import Target

VERSION = 1


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Document:
    version: int
    target: Target


_ADAPTER: TypeAdapter[_Document] = TypeAdapter(_Document)


def to_json(target: Target, indent: int | None = None) -> str:
    """See `Target.to_json`."""
    return _ADAPTER.dump_json(_Document(VERSION, target), indent=indent).decode()


def from_json(source: str | Path) -> Target:
    """See `Target.from_json`.

    Example:
        >>> from_json(to_json(Target("anything", "no limits"))).name
        'anything'
    """
    text = str(source)
    if isinstance(source, Path) or not text.lstrip().startswith("{"):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # not there; no text
            raise TargetError(
                f"the target file {source} cannot be read: {getattr(error, 'strerror', None) or error}."
            ) from error
    try:
        document = _ADAPTER.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise TargetError(
            f"this is no valid target: {place}: {first['msg']}. `Target.to_json` shows the form; version {VERSION} is accepted."
        ) from error
    if document.version != VERSION:
        raise TargetError(f"the target document has version {document.version}; version {VERSION} is accepted.")
    return document.target
