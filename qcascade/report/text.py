"""The partition report as text: the plan in one line, how it was captured, what is offloaded at what cost.

What is kept and why.
"""

from __future__ import annotations

from itertools import groupby

from qcascade.kernels.base import KERNELS
from qcascade.plan import Candidate, Costs, PartitionPlan, Region, Verdict
from qcascade.report.units import bytes_text, flops_text, number_text, seconds_text


def render_text(plan: PartitionPlan) -> str:
    """The report.

    Example:
        >>> from qcascade.plan import CaptureRecord, Summary
        >>> empty = PartitionPlan("Model", "ideal", "offload", CaptureRecord("export"), Summary(0, 0, 0, 0))
        >>> print(render_text(empty).splitlines()[0])
        0 regions found, 0 offloaded, 0.0 % of 0 FLOP carried by quantum kernels
    """
    lines = [
        headline(plan),
        f"model {plan.model} · target {plan.target} · objective {plan.objective} · captured by {plan.capture.method}",
    ]
    lines += [f"note: {note}" for note in plan.capture.notes]
    offloaded = [r for r in plan.regions if r.verdict is Verdict.OFFLOADED and not adds(r.kernel)]
    beside = [r for r in plan.regions if adds(r.kernel)]
    kept = [r for r in plan.regions if r.verdict is Verdict.KEPT]
    for title, regions in (("Offloaded", offloaded), ("Added beside", beside)):
        if regions:
            lines += ["", title]
        for region in regions:
            lines += _offloaded(region)
    if kept:
        lines += ["", "Kept classical"]
        for (pattern, reason), group in groupby(
            sorted(kept, key=lambda r: (r.pattern, r.reason)), key=lambda r: (r.pattern, r.reason)
        ):
            members = list(group)
            lines.append(f"  {_names(members)} ({pattern}, {flops_text(sum(r.flops or 0 for r in members))}): {reason}")
    return "\n".join([*lines, "", *basis(plan), hardware(plan)])


def basis(plan: PartitionPlan) -> tuple[str, ...]:
    """What the figures of offloaded regions are counted for, in sentences."""
    counted = (
        "Gates are as built, before routing; shots bring every measured value's standard error to 0.02."
        if plan.target == "ideal"
        else "Gates are counted after routing (? : not routed); shots bring every measured value's standard error to 0.02; "
        "seconds on the target leave queueing out."
    )
    return (
        "Costs are of one forward pass of the example's batch, seconds are predictions for this machine.",
        counted,
        "Gates, depth and shots are the most of any circuit of a kernel.",
    )


def hardware(plan: PartitionPlan) -> str:
    """What the plan knows of its target being faster, in one sentence."""
    timed = [
        (region.seconds, candidate.costs.seconds_target)
        for region in plan.regions
        for candidate in region.candidates
        if candidate.costs.seconds_target is not None and region.seconds is not None
    ]
    costed = [c.costs for region in plan.regions for c in region.candidates if c.refusal is None]
    if not costed:
        return f"No candidate was costed, so nothing is known of {plan.target} being faster at any of this."
    if not timed:
        routed = plan.target == "ideal" or any(costs.two_qubit_depth is not None for costs in costed)
        why = (
            f"target {plan.target} states no times"
            if routed
            else f"the circuits are too large to be routed for {plan.target}"
        )
        return f"No hardware is known here to be faster at any of this today: {why}; break-even says how long a shot may take."
    faster = sum(target < here for here, target in timed)
    if not faster:
        return (
            f"No hardware is known here to be faster at any of this today: of {_count(len(timed), 'candidate')} that {plan.target} "
            "is timed for, none runs faster than its region on this machine, even without queueing."
        )
    are = "is" if faster == 1 else "are"
    return (
        f"Of {_count(len(timed), 'candidate')}, {faster} {are} predicted to run faster on {plan.target} than on this machine, "
        "queueing left out."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def headline(plan: PartitionPlan) -> str:
    """The plan in one line."""
    s = plan.summary
    share = 100 * (s.flops_offloaded or 0) / s.flops_total if s.flops_total else 0.0
    beside = sum(adds(region.kernel) for region in plan.regions)
    added = f", {beside} with a kernel added beside" if beside else ""
    return (
        f"{s.regions} regions found, {s.offloaded - beside} offloaded{added}, "
        f"{share:.1f} % of {flops_text(s.flops_total)} carried by quantum kernels"
    )


def adds(kernel: str | None) -> bool:
    """Whether a kernel stands beside its region and carries nothing of it; one that is not installed here does not."""
    return kernel is not None and kernel in KERNELS.names() and KERNELS.get(kernel).adds


def _offloaded(region: Region) -> list[str]:
    candidate: Candidate = next(c for c in region.candidates if c.kernel == region.kernel)
    c = candidate.costs
    options = ", ".join(f"{k}={v}" for k, v in candidate.options.items() if v is not None)
    grows = f", {region.complexity}" if region.complexity else ""
    lines = [
        f"  {region.name} → {region.kernel} ({options})",
        f"    {region.pattern}{grows}, {flops_text(region.flops)}, {bytes_text(region.bytes)},"
        f" {seconds_text(region.seconds)}: {region.reason}",
        f"    {c.qubits} qubits, {_known(c.two_qubit_gates)} two-qubit gates + {_known(c.loading_two_qubit_gates)} loading,"
        f" depth {_known(c.two_qubit_depth)};"
        f" {c.circuits_forward} circuits forward, {c.circuits_backward} backward, {c.shots} shots each;"
        f" {bytes_text(c.bytes_to_device)} out, {bytes_text(c.bytes_from_device)} back",
    ]
    lines += _on_target(c)
    return [
        *lines,
        f"    simulated {seconds_text(c.seconds_simulated)} (a training step {seconds_text(c.seconds_simulated_training)} against"
        f" {seconds_text(region.seconds_training)}); break-even: {c.break_even}",
    ]


def _on_target(costs: Costs) -> list[str]:
    """What is known of running on the target, in a line; none where nothing is."""
    parts = []
    if costs.fidelity is not None:
        parts.append(f"fidelity {costs.fidelity:.3g}")
    if costs.seconds_target is not None:
        parts.append(
            f"{seconds_text(costs.circuit_seconds)} a circuit, {seconds_text(costs.seconds_target)} forward,"
            f" {seconds_text(costs.seconds_target_training)} a training step in"
            f" {(costs.jobs_forward or 0) + (costs.jobs_backward or 0)} jobs"
        )
    if costs.price_forward is not None:
        parts.append(
            f"{number_text(costs.price_forward)} {costs.price_currency} forward, {number_text(costs.price_training)} a training step"
        )
    return [f"    on the target: {'; '.join(parts)}"] if parts else []


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)


def _names(regions: list[Region]) -> str:
    names = [r.name for r in regions]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]}, … {names[-1]} ({len(names)} regions)"
