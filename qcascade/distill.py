"""Distil: align each kernel with the region it replaced, layer by layer.

What comes in: a hybrid as compiled and batches of its inputs. For every batch the original regions are put back for one
evaluation pass, which records each region's own inputs and outputs; each kernel then takes a step of Adam on the mean
squared error towards its region's output on the same input, relative to that output's variance. Kernels do not see each
other's errors. Padding positions do not count. Nothing but the kernels is trained. After FitNets (Romero et al. 2015)
and the layer-wise transfer of TinyBERT (Jiao et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from qcascade.errors import ExecutionError
from qcascade.hybrid import HybridModule
from qcascade.kernels.attention import key_mask
from qcascade.kernels.base import QuantumKernel

_WINDOW = 20  # steps that a reported error is averaged over


@dataclass(frozen=True, slots=True)
class DistillReport:
    """Error over variance of every kernel, mean of the first and of the last steps, by region name."""

    steps: int
    before: Mapping[str, float]
    after: Mapping[str, float]


class _Recorder(nn.Module):
    """Runs the original region and keeps what went in and out."""

    def __init__(self, region: fx.GraphModule) -> None:
        super().__init__()
        self.region = region
        self.seen: tuple[tuple[Tensor | None, ...], Tensor] | None = None

    def forward(self, *inputs: Tensor | None) -> Any:
        output = self.region(*(i for i in inputs if i is not None))
        self.seen = (inputs, output)
        return output


def distill(
    hybrid: HybridModule, batches: Iterable[Any], *, lr: float = 2e-2, steps: int | None = None
) -> DistillReport:
    """Train the hybrid's kernels to do what the regions they replaced did.

    Args:
        hybrid: As compiled; its classical parameters are left as they are.
        batches: Inputs of the hybrid, each a tensor, a tuple of positional or a mapping of keyword arguments.
        lr: Learning rate of Adam for what starts at random; what a kernel took over from its region learns at a
            twentieth of it. Both rise over the first ten steps, and fall to zero by a cosine where `steps` is given.
        steps: Stop after so many batches; all of them by default.

    Returns:
        The error over variance of each kernel before and after.

    Raises:
        ExecutionError: The hybrid no longer holds the regions it replaced, or there is no batch.

    Example:
        >>> import qcascade
        >>> layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        >>> hybrid = qcascade.compile(layer, torch.randn(2, 8, 16))
        >>> report = distill(hybrid, [torch.randn(4, 8, 16) for _ in range(3)])
        >>> report.steps
        3
    """
    if not isinstance(hybrid, HybridModule):
        raise ExecutionError(f"{type(hybrid).__name__} is no hybrid; give what qcascade.compile returns.")
    if steps is not None and steps < 1:
        raise ExecutionError(f"steps={steps}; at least 1 is needed, or None for all batches.")
    regions = hybrid._state.replaced
    if not regions:
        raise ExecutionError(
            "this hybrid holds no replaced regions: nothing was offloaded, or it was saved and loaded. "
            "Distil a hybrid as it comes from qcascade.compile."
        )
    kernels = {name: hybrid.kernels[name] for name in regions}
    optimizer = torch.optim.Adam(_groups(kernels.values(), lr))
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    errors: dict[str, list[float]] = {name: [] for name in kernels}
    training = hybrid.training
    hybrid.eval()
    count = 0
    for batch in batches:
        if steps is not None and count >= steps:
            break
        share = min(1.0, (count + 1) / 10)
        if steps is not None:
            share *= 0.5 * (1 + math.cos(math.pi * count / steps))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = share * rate
        seen = _record(hybrid, regions, batch)
        optimizer.zero_grad()
        for name, kernel in kernels.items():
            inputs, wanted = seen[name]
            error = _relative_error(kernel, inputs, wanted)
            error.backward()
            errors[name].append(float(error.detach()))
        optimizer.step()
        count += 1
    hybrid.train(training)
    if count == 0:
        raise ExecutionError("batches is empty; give at least one batch of inputs to distil on.")
    before = {name: sum(e[:_WINDOW]) / len(e[:_WINDOW]) for name, e in errors.items()}
    after = {name: sum(e[-_WINDOW:]) / len(e[-_WINDOW:]) for name, e in errors.items()}
    return DistillReport(count, before, after)


def _groups(kernels: Iterable[QuantumKernel], lr: float) -> list[dict[str, Any]]:
    """Parameters at their rates: a twentieth for those that came from the region."""
    new, warm = list[nn.Parameter](), list[nn.Parameter]()
    for kernel in kernels:
        for name, parameter in kernel.named_parameters():
            (warm if name.split(".")[0] in kernel.warm else new).append(parameter)
    return [{"params": new, "lr": lr}, {"params": warm, "lr": lr / 20}]


def _relative_error(kernel: QuantumKernel, inputs: tuple[Tensor | None, ...], wanted: Tensor) -> Tensor:
    """Mean squared error over variance, where tokens count."""
    got = kernel(*inputs)
    if kernel.pattern == "attention" and inputs[1] is not None:
        valid = key_mask(inputs[1])
        valid = valid[:: max(1, valid.shape[0] // wanted.shape[0])].expand(wanted.shape[:2])
        got, wanted = got[valid], wanted[valid]
    error: Tensor = (got - wanted).square().mean() / wanted.var().clamp_min(1e-12)
    return error


@torch.no_grad()
def _record(
    hybrid: HybridModule, regions: Mapping[str, fx.GraphModule], batch: Any
) -> dict[str, tuple[tuple[Tensor | None, ...], Tensor]]:
    """Each region's inputs and output in an evaluation pass of the original model."""
    recorders = {name: _Recorder(region).eval() for name, region in regions.items()}
    with _swapped(hybrid, recorders):
        if isinstance(batch, Mapping):
            hybrid(**batch)
        elif isinstance(batch, (tuple, list)):
            hybrid(*batch)
        else:
            hybrid(batch)
    seen = {}
    for name, recorder in recorders.items():
        assert recorder.seen is not None
        seen[name] = recorder.seen
    return seen


@contextmanager
def _swapped(hybrid: HybridModule, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """The hybrid with other modules in place of its kernels."""
    kernels = hybrid.kernels
    try:
        _put(hybrid, modules)
        yield
    finally:
        _put(hybrid, kernels)


def _put(hybrid: HybridModule, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        parent, _, leaf = hybrid._state.kernels[name].rpartition(".")
        hybrid.get_submodule(parent)._modules[leaf] = module
