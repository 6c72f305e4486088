"""Summarize a graph for drawing: its regions, what each module computes beside them, and the dataflow between these units.

What comes in: a state whose regions have been found and measured. What goes out: units in an order of the dataflow, each
with its costs and the units that it reads. Parameters, sizes and mere rearrangements are no units: what reads them reads
what they were made from.

Method: regions are contracted first. Beside them, consecutive nodes of one innermost module share a unit as long as all
that a node reads lies strictly below that unit; so the units have no cycles. One walk over the nodes; O(nodes + edges).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from torch import fx

from qcascade.cost_models.classical import OperationCosts
from qcascade.passes.base import Match, PipelineState
from qcascade.passes.graph_walk import IDENTITY, LAYOUT, is_size, module_path, packet
from qcascade.plan import GraphUnit

_ENDS = {"placeholder": "input", "output": "output"}
_MOST_OPERATIONS = 8  # named in a unit


@dataclass(eq=False)
class _Unit:
    """A unit under construction; `height` is fixed when it is made, and what it reads is lower."""

    kind: str
    module: str
    height: int
    region: str | None = None
    nodes: list[fx.Node] = field(default_factory=list)
    inputs: dict[_Unit, None] = field(default_factory=dict)


def graph_units(state: PipelineState, first: int = 0) -> tuple[GraphUnit, ...]:
    """The units of a state's evaluation graph.

    Args:
        state: With its regions.
        first: Place of the first unit, where units of other parts come before.
    """
    owners = _owners(state.matches)
    sources: dict[fx.Node, tuple[_Unit, ...]] = {}
    open_units: dict[str, _Unit] = {}
    regions: dict[str, _Unit] = {}
    units: list[_Unit] = []
    for node in _contracted(state.captured.eval_graph.graph.nodes, state.matches, owners):
        read = tuple(dict.fromkeys(u for n in node.all_input_nodes for u in sources.get(n, ())))
        owner = owners.get(node)
        if owner is not None:
            unit = regions.get(owner.name)
            if unit is None:
                unit = regions[owner.name] = _Unit("region", owner.module, 0, owner.name)
                units.append(unit)
            unit.height = max([unit.height, *(u.height + 1 for u in read if u is not unit)])
        elif _is_quiet(node):
            sources[node] = () if is_size(node) else read
            continue
        elif node.op in _ENDS:
            unit = _Unit(_ENDS[node.op], "", max((u.height + 1 for u in read), default=0))
            units.append(unit)
        else:
            path = module_path(node)
            last = open_units.get(path)
            if last is None or any(u is not last and u.height >= last.height for u in read):
                last = open_units[path] = _Unit("classical", path, max((u.height + 1 for u in read), default=0))
                units.append(last)
            unit = last
        unit.nodes.append(node)
        unit.inputs.update(dict.fromkeys(u for u in read if u is not unit))
        sources[node] = (unit,)
    ordered = _ordered(units)
    place = {unit: number for number, unit in enumerate(ordered, first)}
    return tuple(_finished(unit, state, place) for unit in ordered)


def _ordered(units: list[_Unit]) -> list[_Unit]:
    """The units after all that they read, otherwise as they were made."""
    number = {unit: place for place, unit in enumerate(units)}
    users: dict[_Unit, list[_Unit]] = {}
    waiting = {unit: len(unit.inputs) for unit in units}
    for unit in units:
        for source in unit.inputs:
            users.setdefault(source, []).append(unit)
    ready = [number[unit] for unit in units if not waiting[unit]]
    found: list[_Unit] = []
    while ready:
        unit = units[heapq.heappop(ready)]
        found.append(unit)
        for user in users.get(unit, ()):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, number[user])
    return [*found, *(u for u in units if waiting[u])]  # the last: regions that read one another, which finders avoid


def _owners(matches: Iterable[Match]) -> dict[fx.Node, Match]:
    """The region of each node: of overlapping ones the first found, which is the larger pattern."""
    owners: dict[fx.Node, Match] = {}
    for match in matches:
        for node in match.nodes:
            owners.setdefault(node, match)
    return owners


def _contracted(nodes: Iterable[fx.Node], matches: Iterable[Match], owners: dict[fx.Node, Match]) -> Iterator[fx.Node]:
    """The nodes, those of a region together, where its first stands or as soon after as all it reads has come.

    Regions are convex, so what stands between two of a region's nodes and is needed by the later needs none of the earlier.
    """
    members: dict[str, list[fx.Node]] = {}
    for node, owner in owners.items():
        members.setdefault(owner.name, []).append(node)
    done: set[fx.Node] = set()
    for root in nodes:
        pending = [root]
        while pending:
            node = pending[-1]
            group = members[owners[node].name] if node in owners else [node]
            missing = [
                n
                for one in group
                for n in one.all_input_nodes
                if n not in done and owners.get(n) is not owners.get(node, n) and n not in pending
            ]
            if node not in done and missing:
                pending.append(missing[0])
                continue
            pending.pop()
            for one in sorted(group):
                if one not in done:
                    done.add(one)
                    yield one


def _is_quiet(node: fx.Node) -> bool:
    """Whether a node is no work of its own: a parameter, a size, a rearrangement."""
    return node.op == "get_attr" or is_size(node) or packet(node) in LAYOUT or packet(node) in IDENTITY


def _finished(unit: _Unit, state: PipelineState, place: dict[_Unit, int]) -> GraphUnit:
    names = dict.fromkeys(_operation(n) for n in unit.nodes if n.op.startswith("call") and not _is_quiet(n))
    known = state.costs.get(unit.region) if unit.region else None
    costs = sum((state.nodes.get(n, OperationCosts()) for n in unit.nodes), OperationCosts())
    leaf = unit.nodes[0].name if unit.kind in _ENDS.values() else unit.module.rpartition(".")[2]
    return GraphUnit(
        label=unit.region or leaf or "model",
        module=unit.module,
        kind=unit.kind,
        operations=tuple(names)[:_MOST_OPERATIONS],
        nodes=len(unit.nodes),
        flops=known.flops if known else costs.flops,
        bytes=known.bytes if known else costs.bytes,
        seconds=known.seconds if known else costs.seconds,
        region=unit.region,
        inputs=tuple(sorted(place[u] for u in unit.inputs)),
    )


def _operation(node: fx.Node) -> str:
    kind = packet(node)
    name = getattr(kind, "__name__", None) or str(node.target)
    return str(name).removeprefix("_")
