"""Propose candidates: for every region the considered kernels of its kind, each taken or refused with its reason."""

from __future__ import annotations

from dataclasses import replace

from qcascade.kernels.base import KERNELS
from qcascade.passes.base import Match, Pass, PipelineState
from qcascade.passes.rewrite_regions import extract_weights
from qcascade.plan import Candidate, Costs
from qcascade.targets import get_target


class ProposeCandidates(Pass):
    """Kernels for regions."""

    def call(self, state: PipelineState) -> PipelineState:
        """The state with `candidates`, not yet costed."""
        candidates: dict[str, tuple[Candidate, ...]] = {}
        given = state.request.target
        target = get_target(given) if isinstance(given, str) else given
        for match in state.matches:
            found = []
            for name, options in state.request.kernels.items():
                kernel = KERNELS.get(name)
                if kernel.pattern == match.pattern:
                    refusal = match.refusal or _unusable(state, match) or kernel.refuse(match.facts, options)
                    chosen = kernel.settings(options) if refusal else kernel.settings_for(options, match.facts, target)
                    found.append(Candidate(name, chosen, Costs(), refusal))
            candidates[match.name] = tuple(found)
        return replace(state, candidates=candidates)


def _unusable(state: PipelineState, match: Match) -> str | None:
    """Weights that nothing can be started from."""
    for name, weight in extract_weights(state.captured.model, match, copied=False).items():
        if not bool(weight.isfinite().all()):
            bad = int((~weight.isfinite()).sum())
            return f"{bad} of the {weight.numel()} entries of its {name} are NaN or infinite"
    return None
