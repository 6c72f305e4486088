"""What training a model holds in memory, counted from its tensors: the same on a busy machine, in a process that held more before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_MOMENTS = 2  # of AdamW


def training_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, int]:
    """Bytes of weights, of gradients and moments of what is trained, and of activations kept for one backward pass.

    Args:
        model: As it is trained.
        loss: Runs one batch forward.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> x = torch.ones(4, 2)
        >>> training_bytes(model, lambda: model(x).square().sum())
        {'weights': 24, 'gradients_and_moments': 72, 'activations': 64}
    """
    parameters = list(model.parameters())
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parameters}
    kept: dict[int, Tensor] = {}  # the tensors, so that no two have the same address

    def keep(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        detached = tensor.detach()  # with its graph it would keep itself alive, which no garbage collector sees
        if pointer not in weights:
            kept[pointer] = detached
        return detached

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del value
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    return {
        "weights": sum(weights.values()),
        "gradients_and_moments": (1 + _MOMENTS) * trained,
        "activations": activations,
    }
