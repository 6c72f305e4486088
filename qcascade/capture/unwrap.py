"""Unwrap: the module inside what `torch.compile`, data parallelism or `torch.export` made of it, with a note on each."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from qcascade.errors import CaptureError


def unwrap(model: Any) -> tuple[nn.Module, list[str]]:
    """The module itself, and notes on what it was wrapped in.

    Raises:
        CaptureError: It is no module, or TorchScript.

    Example:
        >>> unwrap(nn.DataParallel(nn.Linear(2, 2)))[1]
        ['DataParallel was unwrapped: the hybrid is of the module inside, and can be wrapped again']
    """
    notes: list[str] = []
    while True:
        if isinstance(model, ExportedProgram):
            notes.append("an exported program has one mode: in the hybrid train() and eval() compute the same")
            model = model.module(check_guards=False)
        elif _compiled(model):
            notes.append("torch.compile was unwrapped: the hybrid is of the module inside, and can be compiled again")
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            name = type(model).__name__
            notes.append(f"{name} was unwrapped: the hybrid is of the module inside, and can be wrapped again")
            model = model.module
        elif isinstance(model, torch.jit.ScriptModule):
            raise CaptureError(
                "model is TorchScript, which torch cannot trace any more; pass the module that it was made from."
            )
        elif isinstance(model, nn.Module):
            return model, notes
        else:
            raise CaptureError(
                f"model is {type(model).__name__}; pass a torch.nn.Module or a torch.export.ExportedProgram."
            )


def _compiled(model: Any) -> bool:
    """Whether `torch.compile` made it; its class is in a package that takes a second to import."""
    dynamo = sys.modules.get("torch._dynamo")
    return dynamo is not None and isinstance(model, dynamo.OptimizedModule)
