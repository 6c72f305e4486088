"""What a circuit loads for an embedding: the embedding itself, or a form of it whose sign ⟨Z⟩ can see.

⟨Z⟩ of a real state |x⟩ is xᵀAx/‖x‖²: it is the same for x and −x, and has no term that is linear in x. A constant entry c beside
the centred embedding gives it one, 2c·aᵀx. Means and deviations are of the training part alone.

- "raw": the embedding as it is (the definition);
- "centred": less the mean, and a constant of the centred embeddings' mean norm;
- "standard": every feature standardised, and a constant √d;
- "pcaK": K − 1 whitened principal components and a constant √(K − 1): few amplitudes, for devices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qcascade.errors import ExecutionError


def prepare(form: str, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The map of embeddings [N, d] to what is loaded [N, d'], fitted to training embeddings x.

    Raises:
        ExecutionError: The form is unknown.

    Example:
        >>> prepare("centred", torch.tensor([[1.0, 2.0], [3.0, 2.0]]))(torch.tensor([[1.0, 2.0]]))
        tensor([[-1.,  0.,  1.]])
    """
    if form == "raw":
        return lambda rows: rows
    centre = x.mean(0)
    if form == "centred":
        constant = float((x - centre).norm(dim=1).mean())
        return lambda rows: _beside(rows - centre, constant)
    if form == "standard":
        scale = x.std(0).clamp_min(1e-6)
        return lambda rows: _beside((rows - centre) / scale, x.shape[1] ** 0.5)
    if form.startswith("pca") and form[3:].isdigit() and 2 <= int(form[3:]) <= x.shape[1] + 1:
        components = principal(x, int(form[3:]) - 1)
        return lambda rows: _beside(components(rows), (int(form[3:]) - 1) ** 0.5)
    raise ExecutionError(f"inputs={form!r} are unknown; choose raw, centred, standard, or pcaK with K of 2 to d + 1.")


def principal(x: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """The first whitened principal components [N, count], fitted to x."""
    centre = x.mean(0)
    _, scale, axes = torch.linalg.svd(x - centre, full_matrices=False)
    whitening = (axes[:count] / scale[:count, None].clamp_min(1e-6) * len(x) ** 0.5).T
    return lambda rows: (rows - centre) @ whitening


def _beside(rows: Tensor, constant: float) -> Tensor:
    return torch.cat((rows, torch.full_like(rows[:, :1], constant)), -1)
