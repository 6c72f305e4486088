"""A method put on a model: which parameters are trained, and what is done after a step.

In: a Hugging Face model whose query and value projections are nn.Linear. Out: the adapted model, called as before. LoRA and prefix
tuning are peft's; SoRA is `sora`; the amplitude adapter is put on by `qcascade.compile`. All but prefix tuning sit on the
projections of queries and values of every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

import qcascade
from qcascade.errors import ExecutionError, QCascadeError
from qcascade.studies.adapters.runs import METHODS
from qcascade.studies.adapters.sora import attach, gates_after_step

GATE_STEP, GATE_SPARSITY = 0.1, 0.05  # η and λ of SoRA's proximal gradient
_ANGLE_SCALE = 3.0  # the angles' rate over that of the amplitude adapter's W_up


@dataclass(frozen=True, slots=True)
class Adapted:
    """A model ready to train.

    Attributes:
        model: Called as before.
        groups: Parameter groups for AdamW; a group's "scale" multiplies the rate.
        after_step: Called after every step.
        trained: Trained parameters of the method, gates included, the task's own head left out.
    """

    model: nn.Module
    groups: list[Mapping[str, Any]]
    after_step: Callable[[], tuple[float, ...]]
    trained: int


def adapt(
    model: nn.Module,
    method: str,
    size: int,
    projections: tuple[str, ...],
    example: Mapping[str, Tensor],
    task_type: str,
) -> Adapted:
    """Put a method on a pretrained model.

    Args:
        model: A Hugging Face model, or, for "amplitude", any module that `example` can be given to.
        method: One of `METHODS`.
        size: See `AdapterRun.size`.
        projections: Last names of the query and value projections.
        example: Keyword inputs, for `qcascade.compile`.
        task_type: peft's, such as "CAUSAL_LM".

    Raises:
        ExecutionError: The method is unknown, or the projections are not there.
        QCascadeError: peft is not installed.
    """
    if method not in METHODS:
        raise ExecutionError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}.")
    if method == "full":
        return _adapted(model)
    model.requires_grad_(False)
    if method == "none":
        return _adapted(model)
    if method == "sora":
        layers = attach(model, projections, size)
        gates = [layer.gate for layer in layers]
        others = [p for p in model.parameters() if p.requires_grad and not any(p is gate for gate in gates)]
        after = gates_after_step(layers, GATE_STEP, GATE_SPARSITY)
        return Adapted(model, [{"params": others}], after, _count(model))
    if method == "amplitude":
        return _amplitude(model, size, projections, example)
    return _adapted(_peft(model, method, size, projections, task_type))


def _peft(model: nn.Module, method: str, size: int, projections: tuple[str, ...], task_type: str) -> nn.Module:
    try:
        from peft import LoraConfig, PrefixTuningConfig, get_peft_model
    except ImportError as error:
        raise QCascadeError("LoRA and prefix tuning are peft's: pip install 'qcascade[studies]'.") from error
    if method == "lora":
        config: Any = LoraConfig(task_type=task_type, r=size, lora_alpha=size, target_modules=list(projections))
    else:
        config = PrefixTuningConfig(task_type=task_type, num_virtual_tokens=size)
    wrapped: nn.Module = get_peft_model(model, config)
    return wrapped


def _amplitude(model: nn.Module, layers: int, projections: tuple[str, ...], example: Mapping[str, Tensor]) -> Adapted:
    hybrid = qcascade.compile(
        model,
        dict(example),
        kernels={"amplitude_adapter": {"layers": layers}},
        include=[f"*{name}" for name in projections],
    )
    for name, parameter in hybrid.named_parameters():
        parameter.requires_grad_(".quantum." in name)
    angles = [p for n, p in hybrid.named_parameters() if p.requires_grad and n.endswith(".angles")]
    ups = [p for n, p in hybrid.named_parameters() if p.requires_grad and not n.endswith(".angles")]
    if not ups:
        raise ExecutionError(f"no projection named {', '.join(projections)} took an amplitude adapter.\n{hybrid.plan}")
    groups: list[Mapping[str, Any]] = [
        {"params": ups},
        {"params": angles, "scale": _ANGLE_SCALE, "weight_decay": 0.0},
    ]
    return Adapted(hybrid, groups, tuple, _count(hybrid))


def _adapted(model: nn.Module) -> Adapted:
    return Adapted(model, [{"params": [p for p in model.parameters() if p.requires_grad]}], tuple, _count(model))


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
