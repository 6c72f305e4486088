"""Measure regions: classical FLOPs, bytes, seconds and growth in sequence length.

Of each region and of the whole model.

Nothing is computed, and what is alike is costed once: the graph runs on fake tensors, at the example's size, and at
three lengths n, 2n, 4n where its sequence is free; those of several sequences keep their ratio. Lengths start lower where the model
would not take 4n.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from qcascade.capture.graph import CapturedModel, CapturedModules
from qcascade.capture.logs import loggers_at
from qcascade.capture.probe import fresh, set_mode, shadow
from qcascade.cost_models.classical import NodeCosts, OperationCosts, complexity, count, region_training_costs
from qcascade.cost_models.machine import Machine, this_machine
from qcascade.errors import PlanError
from qcascade.passes.base import Match, Pass, PipelineState, RegionCosts
from qcascade.passes.extract_region import extract_region, likeness
from qcascade.passes.graph_walk import sizes

_FACTORS = (1, 2, 4)


class MeasureRegions(Pass):
    """Classical costs."""

    def call(self, state: PipelineState) -> PipelineState:
        """The state with `total`, `nodes` and `costs`."""
        captured, machine = state.captured, this_machine()
        leaves = pytree.tree_leaves((captured.example_args, captured.example_kwargs))
        cost_of = NodeCosts(captured.eval_graph, machine)
        nodes = cost_of(leaves)
        grown = _grown(captured, leaves, nodes, cost_of)
        costs, alike = {}, _known_regions(machine)
        for match in state.matches:
            own = sum((nodes.get(n, OperationCosts()) for n in match.nodes), OperationCosts())
            growth = None
            if grown is not None:
                lengths, counts = grown
                growth = complexity(lengths, [sum(c[n].flops for n in match.nodes if n in c) for c in counts])
            key = None if match.refusal else likeness(captured.eval_graph, match)
            if key is None:
                training = _training(captured, match, machine)
            else:
                training = alike[key] if key in alike else alike.setdefault(key, _training(captured, match, machine))
            costs[match.name] = RegionCosts(own.flops, own.bytes, own.seconds, growth, training)
        total = sum(nodes.values(), OperationCosts())
        whole = RegionCosts(total.flops, total.bytes, total.seconds)
        return replace(state, total=whole, nodes=nodes, costs=costs)

    def ensures(self, state: PipelineState) -> str | None:
        """Every region has its costs."""
        missing = [m.name for m in state.matches if m.name not in state.costs]
        return f"{missing[0]} has no costs" if missing else None


def measure_model(captured: CapturedModules) -> RegionCosts:
    """What a forward pass of a model costs whose own forward runs: counted while it runs on its example."""
    args, kwargs = fresh((captured.example_args, captured.example_kwargs))
    model = shadow(captured.model, captured.written)
    set_mode(model, False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator is not counted
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            costs = count(lambda: model(*args, **kwargs), this_machine())
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return RegionCosts(costs.flops, costs.bytes, costs.seconds)


@lru_cache(maxsize=4)
def _known_regions(machine: Machine) -> dict[Any, float | None]:
    """What `_training` gave for regions that were seen, by likeness."""
    return {}


def _training(captured: CapturedModel, match: Match, machine: Machine) -> float | None:
    """Predicted seconds of a training step's share; None where the region cannot be cut out."""
    if match.refusal is not None:
        return None
    try:
        region = extract_region(captured.eval_graph, match)
    except PlanError:
        return None
    inputs = [torch.empty(sizes(n), dtype=n.meta["val"].dtype) for n in match.inputs if n is not None]
    return region_training_costs(region, inputs, machine).seconds


def _grown(
    captured: CapturedModel, leaves: list[Any], nodes: dict[Any, OperationCosts], cost_of: NodeCosts
) -> tuple[tuple[int, ...], list[dict[Any, OperationCosts]]] | None:
    """Costs at three lengths; None where the sequence is not free. `nodes` are those of the example itself."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    free = [
        (t, s)
        for t, s in zip(tensors, captured.inputs, strict=True)
        if len(s.shape) > 1 and s.shape[1] is None and _is_sequence(t)
    ]
    if not free:
        return None
    fits = [Fraction(most, 4 * t.shape[1]) for t, s in free if (most := s.maximum[1]) is not None]
    smaller = min((Fraction(1), *fits))
    starts = {id(t): max(1, int(smaller * t.shape[1])) for t, _ in free}
    counts = []
    for factor in _FACTORS:
        if smaller == 1 == factor:
            counts.append(nodes)
            continue
        stretched = [_stretched(leaf, factor * starts[id(leaf)]) if id(leaf) in starts else leaf for leaf in leaves]
        try:
            with loggers_at(logging.CRITICAL, "torch._subclasses.fake_tensor"):  # it tells of operators that do not fit
                counts.append(cost_of(stretched))
        except (RuntimeError, ValueError, IndexError):
            return None  # the model does not take this length
    start = starts[id(free[0][0])]
    return tuple(factor * start for factor in _FACTORS), counts


def _is_sequence(tensor: Tensor) -> bool:
    return tensor.dim() == 3 or (tensor.dim() == 2 and not tensor.is_floating_point())


def _stretched(tensor: Tensor, length: int) -> Tensor:
    shape = (tensor.shape[0], length, *tensor.shape[2:])
    return torch.empty(shape, dtype=tensor.dtype)
