"""`compile` and `plan`: the whole pipeline on one page.

capture → find regions → cost them → propose and score candidates → choose → rewrite. `plan` stops before rewriting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel, CapturedModules
from qcascade.errors import CaptureError, PlanError
from qcascade.executors.mitigation import Mitigation, plan_of
from qcascade.hybrid import HybridModule
from qcascade.kernels import KERNELS, QuantumKernel
from qcascade.kernels.arguments import check_types
from qcascade.module_hybrid import ModuleHybrid, usable_parts
from qcascade.passes.base import PipelineState, RegionCosts, Request, run_passes, unique_name
from qcascade.passes.measure_regions import measure_model
from qcascade.passes.pipeline import DECIDE, FIND
from qcascade.passes.rewrite_regions import extract_weights, rewrite_graphs, rewrite_regions
from qcascade.passes.select_partition import OBJECTIVES
from qcascade.passes.summarize_graph import graph_units
from qcascade.plan import GraphUnit, Limits, PartitionPlan, PlanRecord, Region, Summary, Verdict
from qcascade.targets import Target, get_target

_MOST_SEED = 2**63 - 1  # kernels add to it, and torch takes 64 bits
Kernels = Iterable[str] | Mapping[str, Mapping[str, Any]] | None


def compile(
    model: nn.Module | ExportedProgram,
    example_inputs: Any = None,
    *,
    target: str | Path | Target = "ideal",
    objective: str = "offload",
    limits: Limits | None = None,
    kernels: Kernels = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    seed: int = 0,
    mitigation: Sequence[Mitigation] = (),
) -> HybridModule:
    """A hybrid of a PyTorch model: chosen regions run as quantum kernels, simulated exactly until told otherwise.

    Args:
        model: Any module that runs, or an exported program; it is left untouched.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments; inferred where None.
        target: Device the plan is made for: one of `qcascade.targets()`, a path ending in .json, or a `Target`.
        objective: "offload" carries the most FLOPs within the limits; "train_time" only what is predicted to
            train faster on this machine, simulated; "hardware_time" only what the target is predicted to run faster.
        limits: What offloaded regions may need at most.
        kernels: Names to consider, or names with options; None considers all but adapters, and [] none.
        include: Globs over region names; only those are offloaded.
        exclude: Globs over region names that stay classical.
        seed: Of everything random in the kernels.
        mitigation: Error mitigation whose circuits and shots the plan counts; running with it is up to `use`.

    Returns:
        A module with the original's interface, parameter names, and training behaviour; `.plan` says what was done and
        why.

    Raises:
        CaptureError: The model could not be captured, or its inputs not inferred; or it is a hybrid, or holds one.
        PlanError: An objective, kernel or option is unknown.
        TargetError: The target is unknown, or its file is invalid.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Embedding(9000, 128), nn.Flatten(), nn.Linear(2048, 2))
        >>> hybrid = compile(model, torch.zeros(2, 16, dtype=torch.long))
        >>> sorted(hybrid.kernels)
        ['0', '2']
    """
    request = make_request(target, objective, limits, kernels, include, exclude, seed, mitigation)
    _check_classical(model)
    return compile_captured(capture(model, example_inputs), request)


def compile_captured(captured: CapturedModel | CapturedModules, request: Request) -> HybridModule:
    """The hybrid of a model that was captured already, which takes most of the time.

    Args:
        captured: What `capture` gave; it is used up, so that several hybrids take copies of it (`copy.deepcopy`).
        request: What is asked, checked by `make_request`.

    Example:
        >>> import copy
        >>> captured = capture(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)))
        >>> plain = compile_captured(copy.deepcopy(captured), make_request(kernels=[]))
        >>> len(plain.kernels), len(compile_captured(captured, make_request()).kernels)
        (0, 1)
    """
    decided = _passed(captured, request)
    made, captured = _plan(decided), decided.captured
    if isinstance(captured, CapturedModel):
        state = decided.states[0]
        modules = _kernels(state, request.seed)
        return rewrite_regions(captured, state.matches, state.training, modules, made, state.request.target)
    parts, number = {}, request.seed
    for state in decided.states:
        modules = _kernels(state, number)
        number += len(state.matches)
        if modules:
            parts[state.captured.path] = rewrite_graphs(state.captured, state.matches, state.training, modules)
    example = (captured.example_args, captured.example_kwargs)
    return ModuleHybrid(captured.model, parts, made, target=decided.request.target, example=example)


def _kernels(state: PipelineState, seed: int) -> dict[str, QuantumKernel]:
    """A kernel for each region that was chosen."""
    facts = {m.name: m.facts for m in (*state.matches, *state.training)}  # in training mode they know the dropout
    modules: dict[str, QuantumKernel] = {}
    for number, match in enumerate(state.matches):
        chosen = state.decisions[match.name].chosen
        if chosen is not None:
            weights = extract_weights(state.captured.model, match)
            kernel = KERNELS.get(chosen.kernel)
            modules[match.name] = kernel.from_region(facts[match.name], weights, chosen.options, seed=seed + number)
            modules[match.name].train(state.captured.model.training)
    return modules


def plan(
    model: nn.Module | ExportedProgram,
    example_inputs: Any = None,
    *,
    target: str | Path | Target = "ideal",
    objective: str = "offload",
    limits: Limits | None = None,
    kernels: Kernels = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    seed: int = 0,
    mitigation: Sequence[Mitigation] = (),
) -> PartitionPlan:
    """What `compile` would do with the same arguments, and why; nothing is rewritten.

    Costs need shapes and no values, so that a model on the meta device is taken too: one that is too large for this machine
    can be planned without its weights.

    Example:
        >>> plan(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))).summary.regions
        2
    """
    request = make_request(target, objective, limits, kernels, include, exclude, seed, mitigation)
    _check_classical(model)
    return plan_captured(capture(model, example_inputs, valueless=True), request)


@dataclass(frozen=True, slots=True)
class _Decided:
    """What was captured, and what the passes say of each of its graphs."""

    captured: CapturedModel | CapturedModules
    request: Request
    states: tuple[PipelineState, ...]
    total: RegionCosts | None


def plan_captured(captured: CapturedModel | CapturedModules, request: Request) -> PartitionPlan:
    """The plan of a model that was captured already; `make_request` checks what is asked."""
    return _plan(_passed(captured, request))


def make_request(
    target: str | Path | Target = "ideal",
    objective: str = "offload",
    limits: Limits | None = None,
    kernels: Kernels = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    seed: int = 0,
    mitigation: Sequence[Mitigation] = (),
) -> Request:
    """The arguments of `compile`, checked.

    Raises:
        PlanError: An objective, kernel or option is unknown.
        TargetError: The target is unknown, or its file is invalid.
    """
    if objective not in OBJECTIVES:
        raise PlanError(f"objective={objective!r} is unknown; choose one of {', '.join(OBJECTIVES)}.")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _MOST_SEED:
        raise PlanError(f"seed={seed!r}; a whole number from 0 to 2**63 - 1 is accepted.")
    return Request(
        target=get_target(target),
        objective=objective,
        limits=_limits(limits),
        kernels=_considered(kernels),
        include=None if include is None else _globs(include),
        exclude=() if exclude is None else _globs(exclude),
        seed=seed,
        mitigation=plan_of(mitigation),
    )


def _check_classical(model: object) -> None:
    """A graph holds what kernels compute when exact, and not the kernels, which no `use` would reach any more.

    Raises:
        CaptureError: The model has quantum kernels in it.
    """
    parts = model.named_modules() if isinstance(model, nn.Module) else ()
    if (place := next((path for path, part in parts if isinstance(part, QuantumKernel)), None)) is not None:
        raise CaptureError(
            f"{type(model).__name__} could not be captured: {place or 'it'} is a quantum kernel already, which its graph would only "
            "simulate (tried: nothing yet). Compile the whole classical model at once, with all options; a hybrid runs as it is, "
            "inside another module too."
        )


def _passed(captured: CapturedModel | CapturedModules, request: Request) -> _Decided:
    if isinstance(captured, CapturedModel):
        state = run_passes((*FIND, *DECIDE), PipelineState(captured, request))
        return _Decided(captured, request, (state,), state.total)
    captured = usable_parts(captured)
    states = tuple(run_passes((*FIND, *DECIDE), PipelineState(part, request)) for part in captured.parts)
    return _Decided(captured, request, states, measure_model(captured))


def _considered(kernels: Kernels) -> dict[str, Mapping[str, Any]]:
    """Kernel names with their options; every name is checked."""
    if kernels is None:
        return {name: {} for name in KERNELS.names() if not KERNELS.get(name).on_request}
    if isinstance(kernels, str):
        kernels = [kernels]
    named = dict(kernels) if isinstance(kernels, Mapping) else {name: {} for name in kernels}
    for name, options in named.items():
        kernel = KERNELS.get(name)
        settings = kernel.settings(options)
        check_types(kernel, options)
        kernel.check(settings)
    return named


def _limits(limits: Limits | None) -> Limits:
    """What an offloaded region may need, checked."""
    if limits is None:
        return Limits()
    if not isinstance(limits, Limits):
        raise PlanError(f"limits is {type(limits).__name__}; give qcascade.Limits(max_qubits=…, …).")
    for field in dataclasses.fields(limits):
        value = getattr(limits, field.name)
        if value is not None and not value >= 0:
            raise PlanError(f"{field.name}={value}; a number of at least 0, or None for no limit, is accepted.")
    return limits


def _globs(patterns: str | Iterable[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _plan(decided: _Decided) -> PartitionPlan:
    regions = []
    for state, match in ((s, m) for s in decided.states for m in s.matches):
        path = ".".join(filter(None, (state.captured.path, match.module)))
        decision, costs = state.decisions[match.name], state.costs.get(match.name)
        regions.append(
            Region(
                name=match.name,
                module=path,
                pattern=match.pattern,
                verdict=Verdict.OFFLOADED if decision.chosen else Verdict.KEPT,
                reason=decision.reason,
                complexity=costs.complexity if costs else None,
                flops=costs.flops if costs else None,
                bytes=costs.bytes if costs else None,
                seconds=costs.seconds if costs else None,
                seconds_training=costs.seconds_training if costs else None,
                kernel=decision.chosen.kernel if decision.chosen else None,
                candidates=state.candidates.get(match.name, ()),
            )
        )
    if isinstance(decided.captured, CapturedModules):
        for unseen in decided.captured.unseen:
            name = unique_name(unseen.path or unseen.pattern, [r.name for r in regions])
            regions.append(Region(name, unseen.path, unseen.pattern, Verdict.KEPT, unseen.reason))
    carried = [r for r in regions if r.kernel is not None and not KERNELS.get(r.kernel).adds]
    summary = Summary(
        regions=len(regions),
        offloaded=sum(r.verdict is Verdict.OFFLOADED for r in regions),
        flops_total=decided.total.flops if decided.total else None,
        flops_offloaded=sum(r.flops or 0 for r in carried),
    )
    return PartitionPlan(
        type(decided.captured.model).__qualname__,
        decided.request.target.name,
        decided.request.objective,
        decided.captured.record,
        summary,
        tuple(regions),
        _record(decided),
    )


def _placed(units: Iterable[GraphUnit], path: str) -> list[GraphUnit]:
    """The units of a part at a path, where what enters and leaves it is not the model's own input and output."""
    words = {"input": "enters", "output": "leaves"} if path else {}
    return [dataclasses.replace(u, label=f"{words[u.kind]} {path}") if u.kind in words else u for u in units]


def _record(decided: _Decided) -> PlanRecord:
    """What the plan's drawings are made from."""
    units: list[GraphUnit] = []
    for state in decided.states:
        units += _placed(graph_units(state, first=len(units)), state.captured.path)
    facts = {match.name: match.facts for state in decided.states for match in state.matches}
    whole = isinstance(decided.captured, CapturedModel)
    request = decided.request
    return PlanRecord(request.target, request.seed, request.mitigation, facts, tuple(units), whole)
