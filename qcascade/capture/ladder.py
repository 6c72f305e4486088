"""The ladder of ways to capture a model; each step down is one visible note with its reason.

What comes in: any module and example inputs, or None. What goes out: a `CapturedModel` (by `torch.export`, or by symbolic
tracing), or `CapturedModules` (module by module, its own forward running on), which every model that runs reaches. What
is refused: a model that does not run or gives no tensors (`CaptureError`). The original module is copied first and never
run.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram

from qcascade.capture.export import export_graph
from qcascade.capture.graph import CapturedModel, CapturedModules
from qcascade.capture.inputs import arranged, example_arguments, input_specs
from qcascade.capture.logs import loggers_at
from qcascade.capture.modules import capture_modules
from qcascade.capture.private import Values, private_copy, with_values
from qcascade.capture.probe import fresh, probe, set_mode, shadow
from qcascade.capture.symbolic import symbolic_graph
from qcascade.capture.unwrap import unwrap
from qcascade.errors import first_line
from qcascade.plan import CaptureRecord

Rung = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], fx.GraphModule]
_log = logging.getLogger("qcascade")
_SHOWN = 4  # modules named in a note


@dataclass(frozen=True, slots=True)
class _Method:
    name: str
    capture: Rung


LADDER: tuple[_Method, ...] = (_Method("export", export_graph), _Method("symbolic_trace", symbolic_graph))
MODULES = "modules"


def capture(
    model: nn.Module | ExportedProgram, example_inputs: Any = None, *, valueless: bool = False
) -> CapturedModel | CapturedModules:
    """Capture a model in evaluation and in training mode.

    Args:
        model: Any module, wrapped by `torch.compile` or data parallelism or not, or an exported program; it is left
            untouched.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments; inferred where None.
        valueless: Whether a model on the meta device is taken, zeros in place of its values: for plans, not for running.

    Returns:
        The captured model, its parameters a private copy: its graphs, or those of its modules.

    Raises:
        CaptureError: The model has no values or fails on its own forward, or returns no tensors, or its inputs could not be inferred.

    Example:
        >>> captured = capture(nn.Linear(4, 2))
        >>> captured.record.method
        'export'
    """
    if example_inputs is None and isinstance(model, ExportedProgram) and model.example_inputs is not None:
        args, kwargs = model.example_inputs
        model, notes = unwrap(model)
        example_inputs = arranged(inspect.signature(model.forward), args, kwargs)[1]
    else:
        model, notes = unwrap(model)
    private, made_up = private_copy(model, valueless=valueless)
    if made_up:
        example_inputs = with_values(example_inputs)
    modes = [(module, module.training) for module in private.modules()]
    args, kwargs, more = example_arguments(private, example_inputs)
    notes += made_up + more
    with _untouched():
        values = Values(private, model)
        found = probe(private, args, kwargs)
        written = values.restored()
        notes += found.notes
        failures = [f"{path or type(model).__name__}: {why}" for path, why in found.opaque.items()]
        if failures:
            _step_down(notes, "export and symbolic_trace", "; ".join(failures), MODULES)
        for number, method in enumerate(() if failures else LADDER):
            captured, failure = _graphs(method, private, args, kwargs, notes, written)
            if captured is not None:
                _give_back(private, modes)
                return captured
            below = LADDER[number + 1].name if number + 1 < len(LADDER) else MODULES
            _step_down(notes, method.name, failure, below)
        with _quiet():
            parts, unseen, refused = capture_modules(private, args, kwargs, found.opaque, written)
    _give_back(private, modes)
    notes.append(
        f"{type(model).__name__}'s own forward keeps running; {len(parts)} of its modules were captured by themselves, and what "
        "is computed between them is not seen"
    )
    notes += refused[:_SHOWN]
    if len(refused) > _SHOWN:
        notes.append(f"{len(refused) - _SHOWN} more modules stay as they are")
    return CapturedModules(private, parts, unseen, CaptureRecord(MODULES, tuple(notes)), args, kwargs, written)


def _give_back(model: nn.Module, modes: list[tuple[nn.Module, bool]]) -> None:
    """Every module in the mode that it was given in; all in the model's own where that is the only one."""
    own = modes[0][1]
    one_mode = not set_mode(model, own)
    for module, training in modes:
        module.training = own if one_mode else training


def _step_down(notes: list[str], method: str, reason: str, below: str) -> None:
    """One visible line, in the plan and in the log."""
    line = f"{method} did not capture the model ({reason}); stepped down to {below}"
    notes.append(line)
    _log.warning("%s", line)


def _graphs(
    method: _Method,
    private: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    notes: list[str],
    written: frozenset[str],
) -> tuple[CapturedModel | None, str]:
    """The model's graphs by one method, or why there are none."""
    evaluated, failure = _in_mode(method.capture, private, args, kwargs, training=False)
    if evaluated is None:
        return None, failure
    trained, failure = _in_mode(method.capture, private, args, kwargs, training=True)
    if trained is None:
        if _runs(shadow(private, written), args, kwargs):
            return None, f"in training mode: {failure}"
        notes.append(f"training mode was not captured, so the hybrid only evaluates: {failure}")
    specs, fixed = input_specs(private, evaluated, args, kwargs, trained)
    record = CaptureRecord(method.name, (*notes, *fixed))
    return CapturedModel(private, evaluated, trained, record, specs, args, kwargs), ""


def _in_mode(
    rung: Rung, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool
) -> tuple[fx.GraphModule | None, str]:
    """The graph in one mode, or why there is none. Tracing runs the user's own code, which may raise anything."""
    set_mode(model, training)
    try:
        with _quiet():
            return rung(model, *fresh((args, kwargs))), ""
    except Exception as error:  # the reason is shown, and the ladder goes on
        return None, first_line(error, named=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No prints of half a graph: the reason is told in a line. What is warned of attributes, the probe has found."""
    with (
        loggers_at(logging.CRITICAL, "torch.fx.experimental.symbolic_shapes", "torch.export"),
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore", UserWarning)
        yield


def _runs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a model itself, a copy to be thrown away, runs in its current mode."""
    given = fresh((args, kwargs))
    try:
        model(*given[0], **given[1])
    except Exception:  # then no way of capturing it will do better
        return False
    return True


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    """Leave random state and the attention fast path as they were.

    The fast path would hide attention in one operator.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    states = random.getstate(), np.random.get_state()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(states[0])
        np.random.set_state(states[1])
