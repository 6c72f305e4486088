"""Cost models: each answers one question about a region or a kernel, in stated units.

Registered like kernels and targets.
"""

from qcascade.cost_models.base import COST_MODELS, CandidateCosts, Subject
from qcascade.cost_models.classical import OperationCosts, count
from qcascade.cost_models.device import DeviceCircuit, device_circuit
from qcascade.cost_models.hardware import hardware_costs
from qcascade.cost_models.loading import LoadingCosts
from qcascade.cost_models.machine import Machine, this_machine
from qcascade.cost_models.quantum import CircuitCosts
from qcascade.cost_models.simulator import SimulationCosts
from qcascade.cost_models.transfer import TransferCosts

__all__ = [
    "COST_MODELS",
    "CandidateCosts",
    "CircuitCosts",
    "DeviceCircuit",
    "LoadingCosts",
    "Machine",
    "OperationCosts",
    "SimulationCosts",
    "Subject",
    "TransferCosts",
    "count",
    "device_circuit",
    "hardware_costs",
    "this_machine",
]
