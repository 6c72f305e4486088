"""One-shot magnitude pruning with masks that stay through training (torch.nn.utils.prune), and how sparse rows became.

In every weight of two or more dimensions the smallest absolute values go, the same share in each: in one contest over all, tables that
start larger (embeddings) would leave other layers empty. Biases and normalisations stay dense. nn.MultiheadAttention reads the weight
of its output projection without calling it, so that torch's own hook would not apply the mask again: a hook on the attention does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from qcascade.errors import PlanError


@dataclass(frozen=True, slots=True)
class Sparsity:
    """What pruning left."""

    parameters: int
    kept: int
    largest_row: int  # most non-zeros in a row of a pruned weight
    mean_row: float


def prune_by_magnitude(model: nn.Module, amount: float = 0.9) -> Sparsity:
    """Prune in place; what was pruned before counts as pruned.

    Args:
        model: any module.
        amount: share of the weights of two or more dimensions to set to zero for good.

    Raises:
        PlanError: `amount` is not in [0, 1), or there is no such weight.

    Example:
        >>> prune_by_magnitude(nn.Linear(100, 10), 0.9).kept  # and ten biases
        110
    """
    if not 0 <= amount < 1:
        raise PlanError(f"amount is {amount}; a share of at least 0 and below 1 is needed.")
    places = [
        (module, name)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() >= 2 and not name.endswith("_orig")
    ]
    if not places:
        raise PlanError(f"{type(model).__name__} has no weight of two or more dimensions to prune.")
    for module, name in places:
        prune.l1_unstructured(module, name, amount=amount)
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and _masks_output not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_masks_output)
    return sparsity(model)


def _masks_output(attention: nn.Module, inputs: object) -> None:
    projection = attention.out_proj
    assert isinstance(projection, nn.Module)
    for hook in projection._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            hook(projection, inputs)


def unprune(model: nn.Module) -> None:
    """Take all masks away in place; what was pruned is zero, and trained again from there (Han et al. 2017, arXiv 1607.04381)."""
    for module in model.modules():
        names = [n.removesuffix("_orig") for n, _ in module.named_parameters(recurse=False) if n.endswith("_orig")]
        for name in names:
            prune.remove(module, name)


def masks(model: nn.Module) -> dict[str, Tensor]:
    """The mask of every trained parameter by its name; None of those that are dense are in it."""
    buffers = dict(model.named_buffers())
    named = [name for name, _ in model.named_parameters() if name.endswith("_orig")]
    return {name: buffers[f"{name.removesuffix('_orig')}_mask"] for name in named}


def sparsity(model: nn.Module) -> Sparsity:
    """Count what is kept."""
    found = masks(model)
    total = sum(p.numel() for p in model.parameters())
    dense = total - sum(m.numel() for m in found.values())
    rows = [m.reshape(len(m), -1).sum(1) for m in found.values()]
    counts = torch.cat(rows) if rows else torch.zeros(1)
    kept = dense + sum(int(m.sum()) for m in found.values())
    return Sparsity(total, kept, int(counts.max()), float(counts.double().mean()))
