"""Qualify names: regions of a part of a model, captured by itself, are called by their place in the whole model.

Weights that code outside the part uses too (a tied projection, say) refuse their region. A model captured as a whole is
left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from qcascade.capture.graph import CapturedModel
from qcascade.passes.base import Match, Pass, PipelineState, unique_name

_OWN = ("attention", "weight")  # what finders call a region that is the whole part


class QualifyNames(Pass):
    """Names in the whole model."""

    def call(self, state: PipelineState) -> PipelineState:
        """The state with its matches renamed."""
        return replace(state, matches=qualified(state.matches, state.captured))


def qualified(matches: Iterable[Match], captured: CapturedModel) -> tuple[Match, ...]:
    """Matches under the names that they have in the whole model."""
    if not captured.path:
        return tuple(matches)
    found: list[Match] = []
    for match in matches:
        stem, _, number = match.name.partition("#")
        whole = not match.module and stem in _OWN
        name = captured.path + (f"#{number}" if number else "") if whole else f"{captured.path}.{match.name}"
        outside = {captured.shared[r.path] for r in match.weights.values() if r.path in captured.shared}
        refusal = match.refusal
        if outside and refusal is None:
            refusal = f"its weights are also used by {', '.join(sorted(outside))}"
        found.append(replace(match, name=unique_name(name, [m.name for m in found]), refusal=refusal))
    return tuple(found)
