"""The partition plan: what was found in a model, what it would cost, and what was decided.

Frozen dataclasses, free of graphs and tensors, so that a plan can be printed, compared, saved and replayed. Units are
in the field's name or its comment; a figure that is not known is None (null in JSON), never 0.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcascade.executors.mitigation import Plan as MitigationPlan
    from qcascade.facts import RegionFacts
    from qcascade.targets import Target

SCHEMA_VERSION = 1


class Verdict(enum.StrEnum):
    """What became of a region."""

    OFFLOADED = "offloaded"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an offloaded region may need at most, and what it must at least carry.

    Args:
        max_qubits: Widest circuit accepted.
        max_two_qubit_depth: Deepest circuit accepted, in layers of two-qubit gates, loading included.
        min_fidelity: Least predicted fidelity accepted, in [0, 1]. On a target without calibration nothing is known of
            fidelity, and a region whose fidelity is unknown does not meet this limit.
        min_flops: Regions of fewer forward FLOPs are kept classical.

    Example:
        >>> Limits(max_qubits=8).max_qubits
        8
    """

    max_qubits: int | None = None
    max_two_qubit_depth: int | None = None
    min_fidelity: float | None = None
    min_flops: int = 0


@dataclass(frozen=True, slots=True)
class Costs:
    """What one candidate costs for the example's batch. None: not known."""

    qubits: int | None = None  # widest circuit
    two_qubit_gates: int | None = None  # on the target without loading, the most of any circuit
    two_qubit_depth: int | None = None  # on the target, loading included, of the deepest circuit
    loading_two_qubit_gates: int | None = None  # on the target, the most of any circuit
    fidelity: float | None = None  # predicted, of the least faithful circuit, loading and readout included
    shots: int | None = None  # of a circuit, the most of any, for the kernel's stated precision
    circuits_forward: int | None = None
    circuits_backward: int | None = None  # by shift rules
    jobs_forward: int | None = None  # submissions of a forward pass
    jobs_backward: int | None = None
    circuit_seconds: float | None = None  # longest circuit on the target, readout included
    seconds_target: float | None = None  # a forward pass on the target, queueing left out
    seconds_target_training: float | None = None  # the same with its backward pass
    price_forward: float | None = None  # a forward pass on the target, in `price_currency`
    price_training: float | None = None  # the same with its backward pass
    price_currency: str | None = None
    seconds_simulated: float | None = None  # a forward pass simulated on this machine, classical rest included
    seconds_simulated_training: float | None = None  # the same with its backward pass and the optimiser's step
    bytes_to_device: int | None = None  # a forward pass
    bytes_from_device: int | None = None  # a forward pass
    bytes_to_device_training: int | None = None  # the same with its backward pass
    bytes_from_device_training: int | None = None
    break_even_shot_seconds: float | None = None  # a shot's time at which a forward pass would be as fast as the region
    break_even_two_qubit_error: float | None = None  # at which the least faithful circuit would reach a fidelity of 0.5
    break_even: str | None = None  # both in words


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to carry a region: a kernel with its options, its costs, or why it is out."""

    kernel: str
    options: Mapping[str, Any]
    costs: Costs
    refusal: str | None = None  # why the kernel cannot stand in for the region; costs are then unknown

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "kernel": self.kernel,
            "options": dict(self.options),
            **dataclasses.asdict(self.costs),
            "refusal": self.refusal,
        }


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the model that a quantum kernel could stand in for, and what was decided about it."""

    name: str
    module: str  # dotted path of the module that owns it
    pattern: str  # "attention", "embedding", "head" or "linear"
    verdict: Verdict
    reason: str  # one sentence with the deciding number
    complexity: str | None = None  # in sequence length n, e.g. "O(n²)"
    flops: int | None = None  # a forward pass of the example's batch
    bytes: int | None = None  # read and written by a forward pass
    seconds: float | None = None  # a forward pass on this machine, by the roofline
    seconds_training: float | None = None  # the same with its backward pass and the optimiser's step
    kernel: str | None = None  # the chosen one
    candidates: tuple[Candidate, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "name": self.name,
            "module": self.module,
            "pattern": self.pattern,
            "complexity": self.complexity,
            "flops": self.flops,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "seconds_training": self.seconds_training,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "kernel": self.kernel,
            "candidates": [c.to_dict() for c in self.candidates],
        }


@dataclass(frozen=True, slots=True)
class CaptureRecord:
    """How the model was captured."""

    method: str  # "export", "symbolic_trace" or "modules"
    notes: tuple[str, ...] = ()  # one visible line for every step down and every assumption


@dataclass(frozen=True, slots=True)
class Summary:
    """The plan in four numbers; FLOPs are a forward pass of the example's batch."""

    regions: int
    offloaded: int
    flops_total: int | None
    flops_offloaded: int | None


@dataclass(frozen=True, slots=True)
class GraphUnit:
    """A node of the model's graph as it is drawn: a region, or what one module computes beside regions."""

    label: str
    module: str  # dotted path; "" for the model itself
    kind: str  # "region", "input", "output" or "classical"
    operations: tuple[str, ...]  # names of its operators, each once, in the graph's order
    nodes: int  # of the traced graph
    flops: int | None  # a forward pass of the example's batch
    bytes: int | None
    seconds: float | None  # on this machine, by the roofline
    region: str | None = None  # its name in the plan
    inputs: tuple[int, ...] = ()  # places of the units that it reads; all come before it


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """What a plan was made from, as far as drawing it needs: no tensors and no graph. It is not part of the JSON."""

    target: Target
    seed: int
    mitigation: MitigationPlan
    facts: Mapping[str, RegionFacts]  # by region name
    units: tuple[
        GraphUnit, ...
    ]  # in an order of the dataflow; of a model captured module by module, one part after another
    whole: bool  # False: captured module by module, so that what runs between the parts is not seen


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """Every region of a model with its candidates, verdict and reason. `print(plan)` shows the report.

    `record` is what its drawings are made from; a plan that was read from a file has none.
    """

    model: str
    target: str
    objective: str
    capture: CaptureRecord
    summary: Summary
    regions: tuple[Region, ...] = field(default=())
    record: PlanRecord | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> Region:
        """The region called `name`."""
        for region in self.regions:
            if region.name == name:
                return region
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """The whole plan as a JSON-ready dictionary; what is unknown is None."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "target": self.target,
            "objective": self.objective,
            "capture": {"method": self.capture.method, "notes": list(self.capture.notes)},
            "summary": dataclasses.asdict(self.summary),
            "regions": [r.to_dict() for r in self.regions],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """The whole plan as JSON text (strict: no NaN or Infinity)."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """The whole plan as one page: graph, candidates, circuits, device and break-even; it loads nothing from elsewhere.

        Circuits are made again, and for a device looked up where they were routed for the plan.

        Example:
            >>> import torch, qcascade
            >>> page = qcascade.plan(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))).to_html()
            >>> page.startswith("<!DOCTYPE html>")
            True
        """
        from qcascade.report.html.plan import render_plan

        return render_plan(self)

    def __str__(self) -> str:
        from qcascade.report.text import render_text

        return render_text(self)
