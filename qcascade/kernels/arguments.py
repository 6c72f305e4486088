"""A kernel's constructor arguments as JSON values, and back, checked.

What comes in: a kernel, or what a file says of one. What goes out: its arguments by name. Refused, as one `PlanError`:
values of another type than the constructor's annotation, names it does not have, integers and text beyond any use.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model
from torch import nn

from qcascade.errors import PlanError

_MOST = 2**31  # of an integer
_LONGEST = 64  # of a text
_PLAIN = (bool, int, float, str, type(None))


def plain_attributes(kernel: nn.Module) -> dict[str, Any]:
    """The attributes named like the constructor's arguments.

    Raises:
        PlanError: One is missing or no JSON value.
    """
    values = {}
    for name in _parameters(type(kernel)):
        value = getattr(kernel, name, inspect.Parameter.empty)
        if not isinstance(value, _PLAIN):
            raise PlanError(
                f"{type(kernel).__name__} cannot be saved: its constructor takes {name!r}, and it keeps no number, text, "
                f"boolean or None of that name. Let it keep the value as self.{name}, or override arguments()."
            )
        values[name] = value
    return values


def checked(kernel: type[nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the constructor, those given over its defaults.

    Raises:
        PlanError: One is missing, unknown, of another type or out of range.
    """
    hints = typing.get_type_hints(kernel.__init__)
    fields: dict[str, Any] = {
        f"a_{name}": (hints.get(name, Any), ... if p.default is p.empty else p.default)
        for name, p in _parameters(kernel).items()
    }
    model = create_model(
        kernel.__name__, __config__=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False), **fields
    )
    try:
        made = model(**{f"a_{name}": value for name, value in arguments.items()})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0])[2:][:_LONGEST] if first["loc"] else "the arguments"
        raise PlanError(
            f"{kernel.__name__}: {name}: {first['msg']}; it takes {', '.join(_parameters(kernel))}."
        ) from error
    values = {name: getattr(made, f"a_{name}") for name in _parameters(kernel)}
    for name, value in values.items():
        if not isinstance(value, _PLAIN):
            raise PlanError(
                f"{kernel.__name__}: {name} is {type(value).__name__}; a JSON number, text, boolean or null is accepted."
            )
        if (isinstance(value, (int, float)) and abs(value) > _MOST) or (
            isinstance(value, str) and len(value) > _LONGEST
        ):
            raise PlanError(
                f"{kernel.__name__}: {name} is beyond what is accepted: at most {_MOST}, texts of {_LONGEST}."
            )
    return values


def check_types(kernel: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Refuse values of another type than that of the constructor's argument of their name; None is accepted where it is the default.

    Raises:
        PlanError: There is one.

    Example:
        >>> from qcascade.kernels import AmplitudeAttentionPooling
        >>> check_types(AmplitudeAttentionPooling, {"slots": 4, "max_length": None})
    """
    hints = typing.get_type_hints(kernel.__init__)
    for name, value in options.items():
        if value is None or name not in hints:
            continue
        try:
            TypeAdapter(hints[name], config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            message = error.errors(include_input=False, include_url=False)[0]["msg"]
            raise PlanError(f"{kernel.__name__}: {name}={value!r}: {message}.") from error


def _parameters(kernel: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """The constructor's arguments.

    Raises:
        PlanError: It takes others than named ones.
    """
    parameters = dict(list(inspect.signature(kernel.__init__).parameters.items())[1:])
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise PlanError(
                f"{kernel.__name__} cannot be saved: its constructor takes {parameter}; only named arguments can be kept. "
                f"Name them ({name}), or override arguments() and from_arguments()."
            )
    return parameters
