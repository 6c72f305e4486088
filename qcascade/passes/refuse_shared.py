"""Refuse shared weights: a region whose weights something outside it reads too is kept, whatever the kernel.

A module that is called several times, say, is several regions of the same weights, and as kernels each would learn its own.
Tables are left to their own finder, which names what they are tied to. An adapter takes no weights away, so that a
projection may be tied to another layer; one that is called several times is refused like the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import fx

from qcascade.capture.graph import CapturedModel
from qcascade.passes.base import Match, Pass, PipelineState
from qcascade.passes.graph_walk import (
    IDENTITY,
    LAYOUT,
    as_linear,
    is_size,
    live_nodes,
    module_path,
    packet,
    readers,
    tensor_paths,
)

_VIEWS = LAYOUT | IDENTITY | {torch.ops.aten.numpy_T}


class RefuseShared(Pass):
    """Weights of a region's own."""

    def call(self, state: PipelineState) -> PipelineState:
        """The state with its matches, those refused whose weights are used elsewhere."""
        captured = state.captured
        return replace(state, matches=shared_refused(state.matches, captured.eval_graph, captured))


def shared_refused(matches: Sequence[Match], graph: fx.GraphModule, captured: CapturedModel) -> tuple[Match, ...]:
    """The matches of a graph, those refused whose weights it reads outside them too."""
    tensors = tensor_paths(captured.model)
    reading, live = readers(graph.graph, tensors), live_nodes(graph.graph)
    found: list[Match] = []
    for match in matches:
        if match.refusal is None and match.pattern != "embedding":
            own = set(match.nodes)
            sources = {id(tensors[r.path]): None for r in match.weights.values() if r.path in tensors}
            outside = [n for i in sources for n in _users(reading[i], live) if n not in own]
            if match.pattern == "linear":
                calls = (n for n in outside if as_linear(n) is not None)
                outside = [n for n in calls if module_path(n) == module_path(match.output)]
            if outside:
                names = dict.fromkeys(_name(node, match, matches, captured) for node in outside)
                match = replace(match, refusal=f"its weights are also used by {', '.join(names)}")
        found.append(match)
    return tuple(found)


def _users(sources: Iterable[fx.Node], live: set[fx.Node]) -> list[fx.Node]:
    """The nodes that compute with a tensor or with a view of it."""
    found: list[fx.Node] = []
    pending = list(sources)
    while pending:
        for user in pending.pop().users:
            if user in live and not is_size(user):
                (pending if packet(user) in _VIEWS else found).append(user)
    return sorted(found)


def _name(node: fx.Node, match: Match, matches: Sequence[Match], captured: CapturedModel) -> str:
    """What a node belongs to: another region, of the same kind where there is one, or a module."""
    others = [m for m in matches if m is not match and node in m.nodes]
    others.sort(key=lambda m: m.pattern != match.pattern)
    path = ".".join(filter(None, (captured.path, module_path(node))))
    return others[0].name if others else path or type(captured.model).__name__
