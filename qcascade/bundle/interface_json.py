"""How a hybrid is called and what it returns, as JSON and back.

Nested values are written by what they are: {"tuple": […]}, {"list": […]}, {"dict": [[key, value], …]}, {"output": name,
"items": [[key, value], …]} for Hugging Face's output classes, {"constant": value} for a plain value of the example, and
null for a tensor. Of classes only those of `transformers.modeling_outputs` are known; where the model returns another
class of output, or transformers is not installed, it becomes a plain dict. Defaults that JSON has no form for are kept
as "some default": a call may leave them out, but not give them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import astuple
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, JsonValue, StringConstraints
from torch import Tensor
from torch.utils import _pytree as pytree

from qcascade.bundle.graph_json import Identifier
from qcascade.bundle.graph_part import Part
from qcascade.bundle.values_json import dtype_name, dtype_of
from qcascade.capture.graph import InputSpec, SizeRule
from qcascade.errors import BundleError
from qcascade.interface import Interface

MAX_DEPTH = 16
_KINDS = {kind.name: kind for kind in inspect._ParameterKind}
Size = Annotated[int, Field(ge=0, le=2**62)]
PositiveSize = Annotated[int, Field(ge=1, le=2**62)]


class ParameterDocument(Part):
    """An argument of the model's forward."""

    name: Identifier
    kind: Literal["POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL", "KEYWORD_ONLY", "VAR_KEYWORD"]
    default: dict[Literal["value", "unknown"], JsonValue] | None = None  # null where it has none


class InputDocument(Part):
    """A tensor input, as `InputSpec`."""

    name: Annotated[str, StringConstraints(max_length=400)]
    dtype: str
    shape: tuple[Size | None, ...]
    maximum: tuple[Size | None, ...]
    ids_below: Size | None = None
    batch: Size | None = None
    rules: tuple[tuple[Size, PositiveSize, Size] | None, ...] = ()  # by dimension: minimum, step, remainder


class InterfaceDocument(Part):
    """How a hybrid is called."""

    parameters: tuple[ParameterDocument, ...]
    inputs: tuple[InputDocument, ...]
    example: JsonValue  # (positional arguments, named ones)
    fills_mask: bool = True


class _Default:
    """A default that a bundle has no form for."""

    def __repr__(self) -> str:
        return "<default of the model>"


def interface_document(interface: Interface) -> InterfaceDocument:
    """The document of an interface.

    Raises:
        BundleError: The example holds what a bundle has no form for.
    """
    parameters = tuple(
        ParameterDocument(name=p.name, kind=p.kind.name, default=_default(p.default))  # type: ignore[arg-type]
        for p in interface.signature.parameters.values()
    )
    inputs = tuple(
        InputDocument(
            name=spec.name,
            dtype=dtype_name(spec.dtype),
            shape=spec.shape,
            maximum=spec.maximum,
            ids_below=spec.ids_below,
            batch=spec.batch,
            rules=tuple(None if rule is None else astuple(rule) for rule in spec.rules),
        )
        for spec in interface.inputs
    )
    return InterfaceDocument(
        parameters=parameters,
        inputs=inputs,
        example=structure_json(interface.example, lambda note: None),
        fills_mask=interface.fills_mask or "attention_mask" not in interface.example[1],
    )


def interface_of(document: InterfaceDocument) -> Interface:
    """The interface of a document.

    Raises:
        BundleError: It is none.
    """
    try:
        signature = inspect.Signature([_parameter(entry) for entry in document.parameters])
    except ValueError as error:
        raise BundleError(f"graph.json: these are no arguments of a function: {error}.") from error
    inputs = []
    for entry in document.inputs:
        if len(entry.shape) != len(entry.maximum):
            raise BundleError(
                f"graph.json: input {entry.name[:80]!r} has {len(entry.shape)} dimensions and {len(entry.maximum)} maxima."
            )
        if entry.rules and len(entry.rules) != len(entry.shape):
            raise BundleError(
                f"graph.json: input {entry.name[:80]!r} has {len(entry.shape)} dimensions and {len(entry.rules)} rules."
            )
        rules = tuple(None if rule is None else SizeRule(*rule) for rule in entry.rules)
        inputs.append(
            InputSpec(
                entry.name, dtype_of(entry.dtype), entry.shape, entry.maximum, entry.ids_below, entry.batch, rules
            )
        )
    example = structure_of(document.example, None)
    fits = isinstance(example, tuple) and len(example) == 2 and type(example[0]) is tuple and type(example[1]) is dict
    if not fits or sum(leaf is None for leaf in pytree.tree_leaves(example)) != len(inputs):
        raise BundleError(
            "graph.json: the example is not a pair of positional and named arguments that has the inputs."
        )
    return Interface(signature, tuple(inputs), example, document.fills_mask)


def output_json(spec: pytree.TreeSpec, note: Callable[[str], None]) -> Any:
    """The document of how flat results make up the model's output."""
    leaves: list[Any] = [torch.empty(0)] * spec.num_leaves
    return structure_json(pytree.tree_unflatten(leaves, spec), note)


def output_of(document: Any) -> pytree.TreeSpec:
    """How flat results make up the model's output.

    Raises:
        BundleError: The document says nothing that a model returns.
    """
    made = structure_of(document, torch.empty(0))
    if not all(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(made)):
        raise BundleError("graph.json: the output holds a constant.")
    return pytree.tree_flatten(made)[1]


def structure_json(value: Any, note: Callable[[str], None]) -> Any:
    """The document of nested containers.

    Args:
        value: Tuples, lists, dicts and outputs of tensors (or None) and constants.
        note: Told of what will come back as something else.

    Raises:
        BundleError: It holds something else.
    """
    if value is None or isinstance(value, Tensor):
        return None
    if isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return {"constant": value}
    if type(value) in (tuple, list):
        return {type(value).__name__: [structure_json(item, note) for item in value]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        items = [[key, structure_json(item, note)] for key, item in value.items()]
        if type(value) is dict:
            return {"dict": items}
        name = type(value).__name__
        if _output_class(name) is type(value):
            return {"output": name, "items": items}
        note(f"the output is a {name}, which a bundle gives back as a dict")
        return {"dict": items}
    raise BundleError(
        f"the model takes or returns a {type(value).__name__}, which a bundle has no form for; tensors, numbers, texts, tuples, lists, "
        "dicts and Hugging Face's outputs are accepted."
    )


def structure_of(document: Any, leaf: Any, depth: int = 0) -> Any:
    """The nested containers of a document, with `leaf` for every tensor.

    Raises:
        BundleError: It is none.
    """
    if document is None:
        return leaf
    if depth < MAX_DEPTH and isinstance(document, dict) and len(document) == 1:
        ((kind, content),) = document.items()
        if kind == "constant" and isinstance(content, (bool, int, float, str)):
            return content
        if kind in ("tuple", "list") and isinstance(content, list):
            made = [structure_of(item, leaf, depth + 1) for item in content]
            return tuple(made) if kind == "tuple" else made
        if kind == "dict":
            return _items(content, leaf, depth)
    if depth < MAX_DEPTH and isinstance(document, dict) and sorted(document) == ["items", "output"]:
        items, name = _items(document["items"], leaf, depth), document["output"]
        found = _output_class(name) if isinstance(name, str) else None
        if found is None:
            return items
        try:
            output = found(**items)
        except (TypeError, ValueError) as error:
            raise BundleError(f"graph.json: {name[:80]} cannot hold these: {error}.") from error
        if list(output) != list(items):
            raise BundleError(f"graph.json: {name[:80]} does not hold its values in this order.")
        return output
    raise BundleError(f"graph.json: {str(document)[:60]!r} is no nested value.")


def _items(content: Any, leaf: Any, depth: int) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for pair in content if isinstance(content, list) else [None]:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)) or pair[0] in items:
            raise BundleError("graph.json: a dict is written as pairs of a text and a value, no text twice.")
        items[pair[0]] = structure_of(pair[1], leaf, depth + 1)
    return items


def _output_class(name: str) -> type[Any] | None:
    """A class of outputs by name, where transformers is installed and has it."""
    try:
        from transformers import modeling_outputs
        from transformers.utils import ModelOutput
    except ImportError:
        return None
    found = vars(modeling_outputs).get(name)
    return found if isinstance(found, type) and issubclass(found, ModelOutput) and found is not ModelOutput else None


def _default(value: Any) -> dict[Literal["value", "unknown"], JsonValue] | None:
    if value is inspect.Parameter.empty:
        return None
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return {"value": value}
    return {"unknown": None}


def _parameter(entry: ParameterDocument) -> inspect.Parameter:
    default: Any = inspect.Parameter.empty
    if entry.default is not None:
        if len(entry.default) != 1 or isinstance(entry.default.get("value"), (list, dict)):
            raise BundleError(f"graph.json: argument {entry.name!r} has no such default.")
        default = entry.default["value"] if "value" in entry.default else _Default()
    return inspect.Parameter(entry.name, _KINDS[entry.kind], default=default)
