"""Simulated costs: what a kernel takes on this machine, its circuits simulated exactly, its classical rest included.

The kernel itself is run on fake tensors under the same counter and roofline as the region it would replace, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from qcascade.cost_models.base import COST_MODELS, Subject
from qcascade.cost_models.classical import OperationCosts, optimizer_costs, training_costs


@dataclass(frozen=True, slots=True)
class SimulationCosts:
    """A forward pass, and the same with its backward pass and the optimiser's step."""

    forward: OperationCosts
    training: OperationCosts


def simulation(subject: Subject) -> SimulationCosts:
    """Costs of a kernel simulated on this machine, for the example's batch."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.random.fork_rng(devices=[]), torch.enable_grad():
        kernel = subject.kernel.blank(subject.facts, subject.options, seed=subject.seed)
        forward, backward = training_costs(lambda: kernel.rehearse(subject.facts), subject.machine)
        parameters = sum(p.numel() for p in kernel.parameters())
    return SimulationCosts(forward, forward + backward + optimizer_costs(parameters, subject.machine))


@COST_MODELS.register("simulator")
def simulated_costs(subject: Subject) -> Mapping[str, Any]:
    """Seconds of a forward pass and of a forward with its backward pass."""
    costs = simulation(subject)
    return {"seconds_simulated": costs.forward.seconds, "seconds_simulated_training": costs.training.seconds}
