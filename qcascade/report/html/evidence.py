"""The distinct candidates of a plan, and the circuits behind each.

What comes in: a plan. What goes out: candidates that regions share, told apart by kernel, options and costs, those that
carry something first; and, of a plan that has its record, their circuits as counted and as compiled, made again from the
regions' facts (what was routed for the plan is found in memory or on disk).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from qcascade.circuits.template import CircuitTemplate
from qcascade.cost_models.device import device_compiled
from qcascade.cost_models.quantum import CircuitCosts, circuit_costs
from qcascade.kernels.base import KERNELS, known_workload
from qcascade.plan import Candidate, PartitionPlan, Region, Verdict
from qcascade.routing.compiled import CompiledTemplate


@dataclass(frozen=True, eq=False)
class Use:
    """One circuit of a candidate."""

    template: CircuitTemplate
    costs: CircuitCosts
    compiled: CompiledTemplate | None  # None: nothing to route, or too large


@dataclass(eq=False)
class Sheet:
    """A candidate that was not refused, and the regions that it stands for, like it was costed."""

    id: str
    candidate: Candidate
    plan: PartitionPlan = field(repr=False)
    regions: list[Region] = field(default_factory=list)

    @property
    def offloaded(self) -> list[Region]:
        """Those that it carries."""
        return [r for r in self.regions if r.verdict is Verdict.OFFLOADED and r.kernel == self.candidate.kernel]

    @property
    def title(self) -> str:
        """Kernel and options in a line."""
        options = ", ".join(f"{k}={v}" for k, v in self.candidate.options.items() if v is not None)
        return f"{self.candidate.kernel} ({options})" if options else self.candidate.kernel

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """Its circuits; none where the plan was read from a file."""
        record = self.plan.record
        if record is None or self.regions[0].name not in record.facts:
            return ()
        kernel, options = KERNELS.get(self.candidate.kernel), tuple(self.candidate.options.items())
        workload = known_workload(kernel, record.facts[self.regions[0].name], options, record.seed)
        return tuple(
            Use(
                use.template,
                circuit_costs(use, record.target, record.mitigation),
                device_compiled(use.template, record.target),
            )
            for use in workload.circuits
        )


def find_sheets(plan: PartitionPlan) -> tuple[list[Sheet], dict[tuple[str, int], Sheet]]:
    """The sheets, those that carry a region first, and which a region's candidate (name, place) is on."""
    found: dict[str, Sheet] = {}
    of: dict[tuple[str, int], Sheet] = {}
    for region in plan.regions:
        for place, candidate in enumerate(region.candidates):
            if candidate.refusal is not None:
                continue
            key = repr((candidate, region.pattern, region.seconds, region.seconds_training, region.flops))
            sheet = found.setdefault(key, Sheet("", candidate, plan))
            sheet.regions.append(region)
            of[region.name, place] = sheet
    sheets = sorted(found.values(), key=lambda sheet: not sheet.offloaded)
    for number, sheet in enumerate(sheets, 1):
        sheet.id = f"candidate-{number}"
    return sheets, of
