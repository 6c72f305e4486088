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
        return copy.deepcopy(model, memo), [_NOTE] if absent else []
    except Exception as error:  # classes may refuse to be copied in any way
        raise CaptureError(
            f"{type(model).__name__} could not be captured: copying it failed with {first_line(error, named=True)} "
            "(tried: copy.deepcopy). Make it deep-copyable."
        ) from error


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
