"""The first rung: `torch.export`, non-strict, with dynamic batch and sequence.

Non-strict export keeps Parameter objects and state_dict keys (strict drops tied ones). Guards are stripped: the hybrid
checks its inputs itself, with clearer messages.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from qcascade.capture.autograd_functions import recorded_functions
from qcascade.capture.export_settings import quick_export
from qcascade.capture.recurrent import recurrent_operators


def export_graph(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
    """The graph of `model` in its current mode; every tensor dimension is dynamic where the model allows it."""
    shapes = pytree.tree_map(
        lambda leaf: tuple(Dim.AUTO for _ in leaf.shape) if isinstance(leaf, Tensor) else None, (args, kwargs)
    )
    with quick_export(), recurrent_operators(), recorded_functions():
        program = torch.export.export(
            model, args, kwargs, dynamic_shapes=_bound(model, shapes[0], shapes[1]), strict=False
        )
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    _strip_guards(module)
    return module


def _bound(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | tuple[Any, ...]:
    """Dynamic shapes as export wants them: in the order of the call."""
    if not kwargs:
        return args
    signature = inspect.signature(model.forward)
    named = dict(signature.bind_partial(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and name in named:
            named.update(named.pop(name))
    return named


def _strip_guards(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("_guards"):
            module.graph.erase_node(node)
    for name in [n for n, _ in module.named_children() if n.startswith("_guards")]:
        delattr(module, name)
    module.recompile()
