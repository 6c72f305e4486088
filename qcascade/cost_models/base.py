"""What a cost model of candidates is: from a kernel, its options and a region's facts to some fields of `Costs`.

Models fill disjoint fields; a field that none fills stays None. A package adds a model under the entry point group
``qcascade.cost_models``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from qcascade.cost_models.machine import Machine
from qcascade.errors import PlanError
from qcascade.executors.mitigation import Plan as MitigationPlan
from qcascade.facts import RegionFacts
from qcascade.kernels.base import KernelWorkload, QuantumKernel
from qcascade.registry import Registry
from qcascade.targets import Target


@dataclass(frozen=True, slots=True)
class Subject:
    """What is costed: a kernel with its options in place of a region, on a target, beside this machine."""

    kernel: type[QuantumKernel]
    options: Mapping[str, Any]
    facts: RegionFacts
    workload: KernelWorkload
    region_seconds: float  # a forward pass of the region it would replace, predicted
    target: Target
    machine: Machine
    seed: int
    mitigation: MitigationPlan = field(default_factory=MitigationPlan)


class CandidateCosts(Protocol):
    """A cost model: returns fields of `qcascade.plan.Costs` by name."""

    def __call__(self, subject: Subject) -> Mapping[str, Any]:
        """The fields this model knows."""
        ...


COST_MODELS: Registry[CandidateCosts] = Registry("cost model", "qcascade.cost_models", PlanError)
