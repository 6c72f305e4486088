"""Example inputs: what the user gave, brought into one form, or inferred from the model.

And what the graph says of them.

Inference, in order: a Hugging Face model's own dummy inputs (with an attention mask that masks something); else the
forward signature's required arguments, with shape and dtype from the first layer that takes them. What cannot be
inferred is a `CaptureError` naming the argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from qcascade.capture.graph import InputSpec
from qcascade.capture.sizes import size_rules
from qcascade.errors import CaptureError

_BATCH, _LENGTH, _IMAGE = 2, 16, 32


def example_arguments(model: nn.Module, given: Any) -> tuple[tuple[Any, ...], dict[str, Any], list[str]]:
    """Positional and keyword arguments to capture with, and notes on what was assumed.

    Raises:
        CaptureError: Nothing was given and an argument cannot be inferred, or what was given is of another kind.
    """
    notes: list[str] = []
    if given is None:
        args, kwargs = _inferred(model)
        notes.append("example inputs were inferred: " + ", ".join(f"{k} {_describe(v)}" for k, v in kwargs.items()))
    elif isinstance(given, Tensor):
        args, kwargs = (given,), {}
    elif isinstance(given, Mapping):
        args, kwargs = (), {k: v for k, v in given.items() if v is not None}
    elif isinstance(given, (tuple, list)):
        args, kwargs = tuple(given), {}
    else:
        raise CaptureError(
            f"example_inputs is {type(given).__name__}; give a tensor, a tuple of positional or a dict of keyword arguments."
        )
    if _takes_cache(model) and "use_cache" not in kwargs:
        kwargs["use_cache"] = False
        notes.append("use_cache=False was set: caches of keys and values are not captured")
    try:
        args, kwargs = arranged(inspect.signature(model.forward), args, kwargs)
    except TypeError as error:
        raise CaptureError(f"example_inputs do not fit {type(model).__name__}.forward: {error}.") from error
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    if tensors and all(t.dim() > 0 and t.shape[0] == 1 for t in tensors):
        args, kwargs = pytree.tree_map(
            lambda leaf: torch.cat((leaf, leaf)) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
        )
        notes.append("the example's batch of 1 was repeated to 2, so that the batch stays free")
    return args, kwargs, notes


def arranged(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call in one form: what can be named is named, in the order of the signature.

    Arguments that are None are left out.

    Raises:
        TypeError: The call does not fit the signature.
    """
    bound = signature.bind(*args, **kwargs)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    variadic = any(p.kind is p.VAR_POSITIONAL and n in bound.arguments for n, p in signature.parameters.items())
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            positional.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif kind is inspect.Parameter.POSITIONAL_ONLY or (
            variadic and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ):
            positional.append(value)
        else:
            named[name] = value
    return tuple(positional), {name: value for name, value in named.items() if value is not None}


def _takes_cache(model: nn.Module) -> bool:
    return "use_cache" in inspect.signature(model.forward).parameters


def _inferred(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    parameters = inspect.signature(model.forward).parameters
    if hasattr(model, "dummy_inputs") and hasattr(model, "config"):
        return (), _hugging_face(model, parameters)
    wanted = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if len(wanted) != 1:
        raise CaptureError(
            f"the inputs of {type(model).__name__} cannot be inferred: its forward needs {wanted or 'no named argument'}. "
            f"Give example_inputs with an example for {', '.join(wanted) or 'each tensor'}."
        )
    for layer in model.modules():
        if (example := _example_for(layer)) is not None:
            return (), {wanted[0]: example}
    raise CaptureError(
        f"an example for the argument {wanted[0]!r} of {type(model).__name__} cannot be inferred from its layers; give example_inputs."
    )


def _example_for(layer: nn.Module) -> Tensor | None:
    """An input for a model whose first layer this is."""
    match layer:
        case nn.Embedding():
            return torch.arange(_BATCH * _LENGTH).reshape(_BATCH, _LENGTH) % layer.num_embeddings
        case nn.Linear():
            return torch.randn(_BATCH, layer.in_features)
        case nn.Conv1d():
            return torch.randn(_BATCH, layer.in_channels, 4 * _LENGTH)
        case nn.Conv2d():
            return torch.randn(_BATCH, layer.in_channels, _IMAGE, _IMAGE)
        case nn.TransformerEncoderLayer():
            return torch.randn(_BATCH, _LENGTH, layer.self_attn.embed_dim)
        case nn.MultiheadAttention():
            return torch.randn(_BATCH, _LENGTH, layer.embed_dim)
        case _:
            return None


def _hugging_face(model: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own dummy inputs, with length, ids and mask that exercise it."""
    inputs = {k: v for k, v in model.dummy_inputs.items() if k in parameters}
    if "input_ids" in inputs:
        vocabulary = int(model.config.get_text_config().vocab_size)
        ids = torch.arange(_BATCH * _LENGTH).reshape(_BATCH, _LENGTH) % max(1, vocabulary - 10) + min(9, vocabulary - 1)
        inputs["input_ids"] = ids.clamp_max(vocabulary - 1)
        if "attention_mask" in parameters:
            inputs["attention_mask"] = torch.ones_like(ids)
            inputs["attention_mask"][-1, -3:] = 0
    if "pixel_values" in parameters and "pixel_values" not in inputs:
        size = getattr(model.config, "image_size", _IMAGE)
        channels = getattr(model.config, "num_channels", 3)
        height, width = (size, size) if isinstance(size, int) else size
        inputs["pixel_values"] = torch.randn(_BATCH, channels, height, width)
    return inputs


def input_specs(
    model: nn.Module,
    graph: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    trained: fx.GraphModule | None = None,
) -> tuple[tuple[InputSpec, ...], list[str]]:
    """What each tensor input must look like, in the order of the graph's placeholders (of both graphs, where there are two).

    Notes where batch or sequence is fixed.
    """
    leaves, _ = pytree.tree_flatten((args, kwargs))
    specs = []
    rules, notes = size_rules([graph] if trained is None else [graph, trained])
    holders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    for node, leaf in zip(holders, leaves, strict=True):
        if not isinstance(leaf, Tensor):
            continue
        value = node.meta["val"]
        shape = tuple(_fixed_size(s) for s in value.shape)
        maximum = tuple(None if _fixed_size(s) is not None else upper_bound(s) for s in value.shape)
        ruled = tuple(rules.get((str(node.name), axis)) for axis in range(len(shape)))
        batch = leaf.shape[0] if shape else None
        specs.append(
            InputSpec(str(node.name), leaf.dtype, shape, maximum, _ids_below(node), batch, ruled if any(ruled) else ())
        )
        if leaf.dim() and shape[0] is not None:
            notes.append(f"the batch of {node.name} is fixed at {shape[0]}: the model's code depends on it")
        if leaf.dim() == 2 and not leaf.is_floating_point() and shape[1] is not None:
            notes.append(f"the length of {node.name} is fixed at {shape[1]}: the model's code depends on it")
    return tuple(specs), notes


def _ids_below(node: fx.Node) -> int | None:
    """Rows of the smallest table that the input indexes as it is."""
    tables = [u.args[0] for u in node.users if u.target is torch.ops.aten.embedding.default and u.args[1] is node]
    rows = [int(t.meta["val"].shape[0]) for t in tables if isinstance(t, fx.Node)]
    return min(rows, default=None)


def _fixed_size(size: int | torch.SymInt) -> int | None:
    """The size of a dimension that has only one, also where the graph still writes it as a symbol."""
    if isinstance(size, int):
        return size
    bounds = size.node.shape_env.bound_sympy(size.node.expr)
    return int(bounds.lower) if bounds.lower == bounds.upper else None


def upper_bound(size: torch.SymInt) -> int | None:
    """Upper bound of a free dimension, where the model has one."""
    environment = size.node.shape_env
    bounds = environment.bound_sympy(size.node.expr)
    upper = bounds.upper
    return int(upper) if upper.is_Integer and int(upper) < 2**31 else None


def _describe(value: Any) -> str:
    return (
        f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
    )
