"""Select the partition: a 0/1 programme over candidates, its value by the objective, its constraints by overlap.

A candidate that is refused, excluded, beyond a limit or of no value under the objective is out, with its reason. Of the
rest, regions that overlap form groups; for each group `scipy.optimize.milp` picks at most one candidate a region and no
two overlapping regions so that the value is greatest. Equal values go to the candidate that was found first, so the
choice is the same every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import combinations

import numpy as np

from qcascade.kernels.base import KERNELS
from qcascade.passes.base import Decision, Match, Pass, PipelineState, RegionCosts
from qcascade.plan import Candidate, Limits
from qcascade.report.units import flops_text, seconds_text
from qcascade.targets import Target


@dataclass(frozen=True, slots=True)
class _Option:
    """A candidate that may be chosen."""

    match: Match
    candidate: Candidate
    value: float
    reason: str


Judge = Callable[[RegionCosts, Candidate], tuple[float | None, str]]


def _most_flops(region: RegionCosts, candidate: Candidate) -> tuple[float | None, str]:
    """FLOPs carried; a region without any (a lookup) counts one."""
    if KERNELS.get(candidate.kernel).adds:
        return 1.0, "asked for by name; it adds to the region and carries nothing away"
    return float(max(region.flops, 1)), f"carries {flops_text(region.flops)} of a forward pass"


def _faster_training(region: RegionCosts, candidate: Candidate) -> tuple[float | None, str]:
    """Seconds of a training step saved on this machine."""
    simulated, classical = candidate.costs.seconds_simulated_training, region.seconds_training
    if simulated is None or classical is None:
        return None, "its training time could not be predicted"
    text = f"a training step of it is predicted at {seconds_text(simulated)} simulated against {seconds_text(classical)} classical"
    return (classical - simulated if simulated < classical else None), text


def _faster_on_target(region: RegionCosts, candidate: Candidate) -> tuple[float | None, str]:
    """Seconds of a forward pass saved by the target."""
    seconds = candidate.costs.seconds_target
    if seconds is None:
        routed = candidate.costs.two_qubit_depth is not None
        why = (
            "the target's gate times are unknown"
            if routed
            else "its circuits are too large to be routed for the target"
        )
        text = f"{why}, so nothing says it is faster than {seconds_text(region.seconds)}"
        if not candidate.costs.break_even:
            return None, text
        even = "; " if candidate.costs.break_even_shot_seconds is None else "; to break even "
        return None, text + even + candidate.costs.break_even
    text = f"a forward pass is predicted at {seconds_text(seconds)} on the target against {seconds_text(region.seconds)} here"
    return (region.seconds - seconds if seconds < region.seconds else None), text


OBJECTIVES: dict[str, Judge] = {
    "offload": _most_flops,
    "train_time": _faster_training,
    "hardware_time": _faster_on_target,
}


class SelectPartition(Pass):
    """What is offloaded, what is kept, and why."""

    def requires(self, state: PipelineState) -> str | None:
        """Candidates have been proposed."""
        return None if len(state.candidates) == len(state.matches) else "regions have no candidates yet"

    def call(self, state: PipelineState) -> PipelineState:
        """The state with `decisions`."""
        decisions, options = {}, list[_Option]()
        for match in state.matches:
            possible, reason = _possible(state, match)
            options.extend(possible)
            decisions[match.name] = Decision(None, reason)
        for group in _groups(options):
            chosen = _best(group)
            for option in group:
                if option in chosen:
                    decisions[option.match.name] = Decision(option.candidate, option.reason)
            for option in group:
                if decisions[option.match.name].chosen is None:
                    rival = next(o for o in chosen if _overlap(o.match, option.match))
                    decisions[option.match.name] = Decision(
                        None,
                        f"overlaps with {rival.match.name}, which is worth more (value {rival.value:.4g} against {option.value:.4g})",
                    )
        return replace(state, decisions=decisions)

    def ensures(self, state: PipelineState) -> str | None:
        """Every region is decided with a reason."""
        missing = [m.name for m in state.matches if not (d := state.decisions.get(m.name)) or not d.reason]
        return f"{missing[0]} is undecided" if missing else None


def _possible(state: PipelineState, match: Match) -> tuple[list[_Option], str]:
    """The candidates of a region that may be chosen, and why not if there is none."""
    request, costs = state.request, state.costs[match.name]
    candidates = state.candidates[match.name]
    if not candidates:
        if match.pattern == "linear":
            return (
                [],
                "nothing carries a projection; adapters are added to it when asked for (kernels=['amplitude_adapter'])",
            )
        return [], f"no kernel for the pattern {match.pattern!r} was considered"
    if request.include is not None and not any(fnmatchcase(match.name, g) for g in request.include):
        return [], f"include names only {', '.join(request.include)}"
    if hit := next((g for g in request.exclude if fnmatchcase(match.name, g)), None):
        return [], f"excluded by {hit!r}"
    reasons, options = [], []
    for candidate in candidates:
        obstacle = (
            candidate.refusal or _too_wide(request.target, candidate) or _beyond(request.limits, candidate, costs)
        )
        if obstacle is None:
            value, text = OBJECTIVES[request.objective](costs, candidate)
            if value is not None:
                options.append(_Option(match, candidate, value, text))
                continue
            obstacle = text
        reasons.append(obstacle)
    return options, "; ".join(dict.fromkeys(reasons))


def _too_wide(target: Target, candidate: Candidate) -> str | None:
    """Circuits that the target has too few joined qubits for."""
    joined, needed = len(target.largest_component), candidate.costs.qubits
    if target.qubits is None or needed is None or needed <= joined:
        return None
    return f"needs {needed} qubits; {target.name} has {joined} that work and are joined"


def _beyond(limits: Limits, candidate: Candidate, region: RegionCosts) -> str | None:
    """The first limit that a candidate does not meet."""
    costs = candidate.costs
    if limits.max_qubits is not None and (costs.qubits is None or costs.qubits > limits.max_qubits):
        return f"needs {costs.qubits} qubits; max_qubits={limits.max_qubits}"
    depth = costs.two_qubit_depth
    if limits.max_two_qubit_depth is not None and (depth is None or depth > limits.max_two_qubit_depth):
        loaded = f" ({costs.loading_two_qubit_gates} of it loading)" if costs.loading_two_qubit_gates else ""
        known = "that is not known" if depth is None else f"of {depth}{loaded}"
        return f"needs a two-qubit depth {known}; max_two_qubit_depth={limits.max_two_qubit_depth}"
    if limits.min_fidelity is not None and (costs.fidelity is None or costs.fidelity < limits.min_fidelity):
        known = "unknown on this target" if costs.fidelity is None else f"{costs.fidelity:.3g}"
        return f"its fidelity is {known}; min_fidelity={limits.min_fidelity}"
    if region.flops < limits.min_flops and not KERNELS.get(candidate.kernel).adds:
        return f"has {flops_text(region.flops)}; min_flops={limits.min_flops}"
    return None


def _overlap(a: Match, b: Match) -> bool:
    return a is not b and not set(a.nodes).isdisjoint(b.nodes)


def _groups(options: list[_Option]) -> list[list[_Option]]:
    """Options that bear on one another: of one region, or of overlapping ones."""
    import networkx as nx  # here, like scipy.optimize below: half a second each

    graph = nx.Graph()
    graph.add_nodes_from(range(len(options)))
    last: dict[object, int] = {}  # the option met last that carries a node, or stands for a region
    for number, option in enumerate(options):
        for part in (id(option.match), *option.match.nodes):
            if part in last:
                graph.add_edge(last[part], number)
            last[part] = number
    return [[options[i] for i in sorted(members)] for members in nx.connected_components(graph)]


def _best(group: list[_Option]) -> list[_Option]:
    """The subset of greatest value without conflicts."""
    if len(group) == 1:
        return group
    from scipy.optimize import Bounds, LinearConstraint, milp

    values = np.array([o.value for o in group])
    objective = -values / values.max() + 1e-6 * np.arange(len(group)) / len(group)
    pairs = [
        (i, j)
        for (i, a), (j, b) in combinations(enumerate(group), 2)
        if a.match is b.match or _overlap(a.match, b.match)
    ]
    rows = np.zeros((len(pairs), len(group)))
    for row, pair in enumerate(pairs):
        rows[row, list(pair)] = 1
    result = milp(
        objective,
        constraints=LinearConstraint(rows, -np.inf, 1),
        bounds=Bounds(0, 1),
        integrality=np.ones(len(group), dtype=np.int64),
        options={"mip_rel_gap": 0.0},
    )
    assert result.x is not None, result.message  # choosing nothing is always feasible
    return [option for option, taken in zip(group, result.x, strict=True) if taken > 0.5]
