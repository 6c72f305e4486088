"""Transfer: bytes to and from the device, four for each real number.

Shifted circuits of a backward pass go out as angles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qcascade.cost_models.base import COST_MODELS, Subject
from qcascade.cost_models.quantum import subject_costs
from qcascade.kernels.base import KernelWorkload


@dataclass(frozen=True, slots=True)
class TransferCosts:
    """Bytes of a forward pass."""

    to_device: int
    from_device: int


def transfer(workload: KernelWorkload) -> TransferCosts:
    """Angles and amplitudes of every binding go out, weights once a set; measured values come back."""
    sent = received = 0
    for use in workload.circuits:
        reals = use.amplitudes_per_binding * (1 if use.template.real_amplitudes else 2)
        sent += use.bindings * (use.angles_per_binding + reals) + use.weight_sets * len(use.template.weights)
        received += use.bindings * use.values_per_binding
    return TransferCosts(4 * sent, 4 * received)


@COST_MODELS.register("transfer")
def transfer_costs(subject: Subject) -> Mapping[str, Any]:
    """Bytes to and from the device, of a forward pass and of a training step."""
    costs, to_device, from_device = transfer(subject.workload), 0, 0
    for use, counted in zip(subject.workload.circuits, subject_costs(subject), strict=True):
        shifted = 2 * counted.circuit.angles * use.bindings
        to_device += 4 * shifted * counted.circuit.angles
        from_device += 4 * shifted * use.values_per_binding
    return {
        "bytes_to_device": costs.to_device,
        "bytes_from_device": costs.from_device,
        "bytes_to_device_training": costs.to_device + to_device,
        "bytes_from_device_training": costs.from_device + from_device,
    }
