"""What passes share: the match of a region in the graph, the state they read and extend, and the pass protocol.

Passes up to `select_partition` only read the graph and extend the state; `rewrite_regions` is the only one that changes
a graph. Each states what it needs in `requires` and what it promises in `ensures`; `run_passes` checks both.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx

from qcascade.capture.graph import CapturedModel
from qcascade.cost_models.classical import OperationCosts
from qcascade.errors import QCascadeError
from qcascade.executors.mitigation import Plan as MitigationPlan
from qcascade.facts import RegionFacts
from qcascade.plan import Candidate, Limits
from qcascade.targets import IDEAL, Target


@dataclass(frozen=True, slots=True)
class WeightRef:
    """Where a region's weight is found: a parameter's dotted path, which rows of it.

    And whether it is stored transposed.

    `rows` picks output features, after any transposition; None takes all in order.
    """

    path: str
    rows: tuple[int, ...] | None = None
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A region found in one graph.

    `inputs` are in the order the region's kernels take them: attention (x, mask or None), embedding (ids,), head (x,),
    linear (x,). `weights` has canonical names: "query.weight", "query.bias", "key.…", "value.…", "output.…" for
    attention, "weight" and "bias" for the others; weights are in nn.Linear's layout [out, in] after `WeightRef` is
    applied.
    """

    name: str
    module: str
    facts: RegionFacts
    nodes: tuple[fx.Node, ...]  # in graph order
    inputs: tuple[fx.Node | None, ...]
    output: fx.Node
    weights: Mapping[str, WeightRef]
    refusal: str | None = None  # why no kernel may stand in, whatever it is
    mask_excludes: bool = False  # the mask input is true where a key does not count
    sequence_first: bool = False  # input and output are [n, B, d]

    @property
    def pattern(self) -> str:
        """The kind of region."""
        return self.facts.pattern


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked of `compile` or `plan`, checked."""

    target: Target = IDEAL
    objective: str = "offload"
    limits: Limits = field(default_factory=Limits)
    kernels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # kernel name -> options; those considered
    include: tuple[str, ...] | None = None  # globs over region names
    exclude: tuple[str, ...] = ()
    seed: int = 0
    mitigation: MitigationPlan = field(default_factory=MitigationPlan)


@dataclass(frozen=True, slots=True)
class RegionCosts:
    """Classical costs of a region (or of the whole model) for a forward pass of the example's batch."""

    flops: int
    bytes: int
    seconds: float
    complexity: str | None = None
    seconds_training: float | None = None  # forward, backward and the optimiser's step


@dataclass(frozen=True, slots=True)
class Decision:
    """What `select_partition` settled for one region."""

    chosen: Candidate | None  # None: kept classical
    reason: str


@dataclass(frozen=True, slots=True)
class PipelineState:
    """What the passes know so far. Each pass returns a copy with its own fields filled (`dataclasses.replace`)."""

    captured: CapturedModel
    request: Request
    matches: tuple[Match, ...] = ()  # of the evaluation graph, in graph order
    training: tuple[Match, ...] = ()  # of the training graph, where there is one
    total: RegionCosts | None = None  # the whole model
    nodes: Mapping[fx.Node, OperationCosts] = field(default_factory=dict)  # of the evaluation graph
    costs: Mapping[str, RegionCosts] = field(default_factory=dict)  # by region name
    candidates: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)


class Pass(abc.ABC):
    """One step of the pipeline."""

    def requires(self, state: PipelineState) -> str | None:
        """What is missing for the pass to run, or None."""
        return None

    @abc.abstractmethod
    def call(self, state: PipelineState) -> PipelineState:
        """The state, extended."""

    def ensures(self, state: PipelineState) -> str | None:
        """What the pass promised and the state lacks, or None."""
        return None


class Finder(Pass):
    """A pass that finds one kind of region."""

    @abc.abstractmethod
    def find(self, graph: fx.GraphModule, captured: CapturedModel, found: Sequence[Match]) -> tuple[Match, ...]:
        """The regions of this kind in one graph, given those that earlier finders found."""

    def call(self, state: PipelineState) -> PipelineState:
        """The state with this finder's regions of the evaluation graph."""
        new = self.find(state.captured.eval_graph, state.captured, state.matches)
        return replace(state, matches=(*state.matches, *new))

    def ensures(self, state: PipelineState) -> str | None:
        """Region names are unique."""
        twice = sorted(n for n, times in Counter(m.name for m in state.matches).items() if times > 1)
        return f"two regions are called {twice[0]}" if twice else None


def find_regions(finders: Sequence[Finder], graph: fx.GraphModule, captured: CapturedModel) -> tuple[Match, ...]:
    """What the finders find in a graph, in their order."""
    found: tuple[Match, ...] = ()
    for finder in finders:
        found = (*found, *finder.find(graph, captured, found))
    return found


def unique_name(stem: str, taken: Collection[str]) -> str:
    """`stem`, or `stem#2`, `stem#3`, … where it is taken."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}#{number}"
    return name


def run_passes(passes: Sequence[Pass], state: PipelineState) -> PipelineState:
    """Run passes in order, checking preconditions and promises.

    Raises:
        QCascadeError: A precondition does not hold or a promise was not kept; names the pass and the lack.
    """
    for step in passes:
        if lack := step.requires(state):
            raise QCascadeError(f"pass {type(step).__name__} cannot run: {lack}.")
        state = step.call(state)
        if lack := step.ensures(state):
            raise QCascadeError(f"pass {type(step).__name__} broke its promise: {lack}.")
    return state
