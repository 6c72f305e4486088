"""The ladder of ways to capture a model; each step down is one visible note with its reason.

What comes in: any module and example inputs, or None. What goes out: a `CapturedModel`. What is refused: a model that
no rung captures (`CaptureError`, with what each rung said). The original module is copied first and never run.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from qcascade.capture.export import export_graph
from qcascade.capture.graph import CapturedModel
from qcascade.capture.inputs import example_arguments, input_specs
from qcascade.errors import CaptureError
from qcascade.plan import CaptureRecord

Rung = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], fx.GraphModule]


@dataclass(frozen=True, slots=True)
class _Method:
    name: str
    capture: Rung


LADDER: tuple[_Method, ...] = (_Method("export", export_graph),)


def capture(model: nn.Module, example_inputs: Any = None) -> CapturedModel:
    """Capture a model in evaluation and in training mode.

    Args:
        model: Any module; it is left untouched.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments; inferred where None.

    Returns:
        The captured model, its parameters a private copy.

    Raises:
        CaptureError: No rung captured the model, or its inputs could not be inferred.

    Example:
        >>> captured = capture(nn.Linear(4, 2))
        >>> captured.record.method
        'export'
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(f"model is {type(model).__name__}; pass a torch.nn.Module.")
    private = copy.deepcopy(model)
    args, kwargs, notes = example_arguments(private, example_inputs)
    failures: list[str] = []
    for method in LADDER:
        with _untouched():
            evaluated, failure = _in_mode(method.capture, private, args, kwargs, training=False)
            if evaluated is None:
                failures.append(f"{method.name}: {failure}")
                continue
            trained, failure = _in_mode(method.capture, private, args, kwargs, training=True)
        if trained is None:
            notes.append(f"training mode was not captured, so the hybrid only evaluates: {failure}")
        specs, fixed = input_specs(private, evaluated, args, kwargs)
        private.train(model.training)
        record = CaptureRecord(method.name, (*notes, *fixed))
        return CapturedModel(private, evaluated, trained, record, specs, args, kwargs)
    raise CaptureError(
        f"{type(model).__name__} could not be captured. {' '.join(failures)} Give example_inputs that the model's own forward accepts."
    )


def _in_mode(
    rung: Rung, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool
) -> tuple[fx.GraphModule | None, str]:
    """The graph in one mode, or why there is none. Tracing runs the user's own code, which may raise anything."""
    model.train(training)
    try:
        return rung(model, args, kwargs), ""
    except Exception as error:  # the reason is shown, and the ladder goes on
        lines = str(error).strip().splitlines() or [""]
        return None, f"{type(error).__name__}: {lines[0]}"


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    """Leave random state and the attention fast path as they were.

    The fast path would hide attention in one operator.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
