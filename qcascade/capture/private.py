"""The private copy of a model that is captured: its own values, or zeros in place of values that it has not got.

A model on the meta device has shapes and no values. What regions cost depends on shapes alone, so that it can be planned, though
not compiled: every such tensor becomes zeros.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from qcascade.errors import CaptureError, first_line

_NOTE = "the model is on the meta device: it was planned with zeros in place of its values"


def private_copy(model: nn.Module, *, valueless: bool = False) -> tuple[nn.Module, list[str]]:
    """A deep copy, and a note where values are made up in it.

    Results of computations that modules keep, which torch refuses to copy, are plain tensors in it.

    Args:
        model: Left untouched.
        valueless: Whether tensors on the meta device are taken, as zeros.

    Raises:
        CaptureError: A tensor is on the meta device and not taken, or the model cannot be copied.

    Example:
        >>> private_copy(nn.Linear(2, 1, device="meta"), valueless=True)[0](torch.ones(1, 2)).tolist()
        [[0.0]]
    """
    absent = [(name, tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if absent and not valueless:
        raise CaptureError(
            f"{type(model).__name__} could not be captured: {absent[0][0]} is on the meta device, which holds no values (tried: nothing "
            "yet). Give it weights first: model.to_empty(device='cpu'), then load_state_dict; qcascade.plan takes it as it is."
        )
    memo: dict[int, Any] = {id(tensor): _zeros(tensor) for _, tensor in absent}
    for module in model.modules():
        for leaf in pytree.tree_leaves(dict(vars(module), _modules=None)):
            if isinstance(leaf, Tensor) and not leaf.is_leaf:
                memo[id(leaf)] = leaf.detach().clone()
    try:
        with torch.no_grad():
            made = copy.deepcopy(model, memo)
    except Exception as error:  # classes may refuse to be copied in any way
        raise CaptureError(
            f"{type(model).__name__} could not be captured: copying it failed with {first_line(error, named=True)} "
            "(tried: copy.deepcopy). Make it deep-copyable."
        ) from error
    for module, copied in zip(model.modules(), made.modules(), strict=False):
        if isinstance(
            module, torch.jit.ScriptModule
        ):  # a copy of one is a result of the original, or needs no gradients
            for parameter, wanted in zip(copied.parameters(), module.parameters(), strict=True):
                parameter.requires_grad_(wanted.requires_grad)
    return made, [_NOTE] if absent else []


class Values:
    """What a private copy's parameters held, to be put back after code ran that may write to them.

    Nothing is copied: the original, which never runs, still has the values.

    Args:
        private: The copy, not run yet.
        original: What it was copied from.

    Example:
        >>> private = copy.deepcopy(original := nn.Linear(2, 1))
        >>> values = Values(private, original)
        >>> with torch.no_grad():
        ...     _ = private.weight.mul_(2)
        >>> values.restored(), torch.equal(private.weight, original.weight)
        (frozenset({'weight'}), True)
    """

    def __init__(self, private: nn.Module, original: nn.Module) -> None:
        wanted = {name: p.data for name, p in original.named_parameters() if not (p.is_meta or is_lazy(p))}
        self._held = [(n, p, p.data, wanted[n]) for n, p in private.named_parameters() if _alike(p.data, wanted.get(n))]

    def restored(self) -> frozenset[str]:
        """Put the values back; the names of the parameters that had been written to."""
        written = set()
        for name, parameter, data, wanted in self._held:
            replaced = parameter.data_ptr() != data.data_ptr() or not _alike(parameter.data, data)
            if replaced:
                parameter.data = data
            if replaced or not torch.equal(data, wanted):
                data.copy_(wanted)
                written.add(name)
        return frozenset(written)


def _alike(tensor: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are plain ones of the same form."""
    if other is None or not type(tensor) is type(other) is Tensor or tensor.layout != torch.strided:
        return False
    return (tensor.shape, tensor.dtype, tensor.device) == (other.shape, other.dtype, other.device)


def with_values(inputs: Any) -> Any:
    """Example inputs with ones, which number a row of any table and mask nothing, in place of tensors on the meta device."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_meta:
            return torch.ones(leaf.shape, dtype=leaf.dtype, requires_grad=leaf.requires_grad)
        return leaf

    return pytree.tree_map(one, inputs)


def _zeros(tensor: Tensor) -> Tensor:
    """Zeros with the shape and strides of a tensor; the system gives them no memory until they are written."""
    held = torch.from_numpy(np.zeros(tensor.untyped_storage().nbytes(), np.uint8)).view(tensor.dtype)
    zeros = held.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return nn.Parameter(zeros, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else zeros
