"""Pair modes: a region is replaced in the evaluation and in the training graph, or in neither.

What comes in: the regions of the evaluation graph. What goes out: those of the training graph beside them; a region is refused
that is not there in training mode, or is something else there. A model that only evaluates is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from qcascade.facts import EmbeddingFacts
from qcascade.passes.base import Finder, Match, Pass, PipelineState, find_regions
from qcascade.passes.graph_walk import tensor_paths
from qcascade.passes.qualify_names import qualified
from qcascade.passes.refuse_shared import shared_refused


class PairModes(Pass):
    """The same regions in both modes.

    Args:
        finders: What found the regions of the evaluation graph.
    """

    def __init__(self, finders: Sequence[Finder]) -> None:
        self.finders = finders

    def call(self, state: PipelineState) -> PipelineState:
        """The state with `training`, and with regions refused that have no like there."""
        captured = state.captured
        graph = captured.train_graph
        if graph is None:
            return state
        found = shared_refused(qualified(find_regions(self.finders, graph, captured), captured), graph, captured)
        trained, tensors = {m.name: m for m in found}, tensor_paths(captured.model)
        matches = tuple(
            replace(m, refusal=_unlike(m, trained.get(m.name), tensors)) if m.refusal is None else m
            for m in state.matches
        )
        return replace(state, matches=matches, training=found)


def _unlike(match: Match, trained: Match | None, tensors: Mapping[str, Tensor]) -> str | None:
    """What keeps a region from being replaced in training mode too."""
    if trained is None:
        return "in training mode it does not run, or is no region of its own"
    if trained.pattern != match.pattern:
        return f"in training mode its pattern is {trained.pattern!r}, not {match.pattern!r}"
    if trained.refusal is not None:
        return f"in training mode {trained.refusal}"
    if _weights(match, tensors) != _weights(trained, tensors):
        return "in training mode it has other weights"
    one, other = match.facts, trained.facts
    if (
        isinstance(one, EmbeddingFacts)
        and isinstance(other, EmbeddingFacts)
        and one.tied_to is None is not other.tied_to
    ):
        return f"in training mode its table is tied to {other.tied_to}, which would lose its weights"
    return None


def _weights(match: Match, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """A region's weights, whichever of their names it was found by."""
    return {n: (id(tensors.get(r.path, r.path)), r.rows, r.transposed) for n, r in match.weights.items()}
