"""Score candidates: every registered cost model is asked about every candidate that was not refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qcascade.cost_models.base import COST_MODELS, Subject
from qcascade.cost_models.machine import this_machine
from qcascade.kernels.base import KERNELS, known_workload
from qcascade.passes.base import Pass, PipelineState
from qcascade.plan import Candidate, Costs


class ScoreCandidates(Pass):
    """Costs of candidates."""

    def requires(self, state: PipelineState) -> str | None:
        """Regions have been measured."""
        return None if len(state.costs) == len(state.matches) else "regions have no costs yet"

    def call(self, state: PipelineState) -> PipelineState:
        """The state with `candidates` costed; like candidates of like regions are costed once."""
        machine, known = this_machine(), dict[Any, Costs]()
        models = [COST_MODELS.get(name) for name in COST_MODELS.names()]
        scored: dict[str, tuple[Candidate, ...]] = {}
        for match in state.matches:
            row = []
            for candidate in state.candidates[match.name]:
                if candidate.refusal is None:
                    kernel, seconds = KERNELS.get(candidate.kernel), state.costs[match.name].seconds
                    key = (candidate.kernel, match.facts, tuple(candidate.options.items()), seconds)
                    if key not in known:
                        workload = known_workload(kernel, match.facts, key[2], state.request.seed)
                        subject = Subject(
                            kernel,
                            candidate.options,
                            match.facts,
                            workload,
                            seconds,
                            state.request.target,
                            machine,
                            state.request.seed,
                            state.request.mitigation,
                        )
                        fields: dict[str, Any] = {}
                        for model in models:
                            fields.update(model(subject))
                        known[key] = Costs(**fields)
                    candidate = replace(candidate, costs=known[key])
                row.append(candidate)
            scored[match.name] = tuple(row)
        return replace(state, candidates=scored)
