"""Inputs of a kernel as amplitudes of its register: how many qubits they take, whether they fit, and the states."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_QUBITS = 16  # of a kernel's circuits


def register(features: int) -> int:
    """Qubits that hold `features` amplitudes.

    Example:
        >>> register(384), register(1)
        (9, 1)
    """
    return max(1, math.ceil(math.log2(features)))


def too_wide(features: int) -> str | None:
    """Why so many values cannot be loaded, or None where they can."""
    needed = register(features)
    if needed <= MAX_QUBITS:
        return None
    return f"loading {features} values needs {needed} qubits; at most {MAX_QUBITS} are simulated"


def load(x: Tensor, qubits: int) -> Tensor:
    """Rows [B, d] padded and normalised to states [B, 2^q]; a row of zeros becomes |0…0⟩, one that is not finite NaN."""
    padded = F.pad(x, (0, 2**qubits - x.shape[-1]))
    norm = padded.norm(dim=-1, keepdim=True)
    ground = F.pad(torch.ones_like(norm), (0, 2**qubits - 1))
    return torch.where(norm == 0, ground, padded / norm.clamp_min(torch.finfo(x.dtype).tiny))
