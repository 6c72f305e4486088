"""Simulated costs: what a kernel takes on this machine, its circuits simulated exactly, its classical rest included.

The kernel itself is run on meta tensors (nothing is computed) under the same counter and roofline as the region it would
replace, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from qcascade.cost_models.base import COST_MODELS, Subject
from qcascade.cost_models.classical import OperationCosts, optimizer_costs, training_costs
from qcascade.cost_models.machine import Machine
from qcascade.facts import RegionFacts
from qcascade.kernels.base import QuantumKernel


@dataclass(frozen=True, slots=True)
class SimulationCosts:
    """A forward pass, and the same with its backward pass and the optimiser's step."""

    forward: OperationCosts
    training: OperationCosts


def simulation(subject: Subject) -> SimulationCosts:
    """Costs of a kernel simulated on this machine, for the example's batch."""
    return _simulation(
        subject.kernel, subject.facts, tuple(sorted(subject.options.items())), subject.machine, subject.seed
    )


@lru_cache(maxsize=256)
def _simulation(
    kernel: type[QuantumKernel], facts: RegionFacts, options: tuple[tuple[str, Any], ...], machine: Machine, seed: int
) -> SimulationCosts:
    made = kernel.blank(facts, dict(options), seed=seed).to("meta")
    with torch.device("meta"), torch.enable_grad():
        forward, backward = training_costs(lambda: made.rehearse(facts), machine)
    parameters = sum(p.numel() for p in made.parameters())
    return SimulationCosts(forward, forward + backward + optimizer_costs(parameters, machine))


@COST_MODELS.register("simulator")
def simulated_costs(subject: Subject) -> Mapping[str, Any]:
    """Seconds of a forward pass and of a forward with its backward pass."""
    costs = simulation(subject)
    return {"seconds_simulated": costs.forward.seconds, "seconds_simulated_training": costs.training.seconds}
