"""QCascade: compile PyTorch models into hybrids with quantum kernels, and say what each would cost."""

from qcascade import executors, kernels
from qcascade.compiler import compile, plan
from qcascade.distill import DistillReport, distill
from qcascade.errors import (
    BundleError,
    CaptureError,
    CircuitError,
    ExecutionError,
    PlanError,
    QCascadeError,
    TargetError,
)
from qcascade.hybrid import HybridModule
from qcascade.layer import QuantumLayer
from qcascade.plan import Limits as Limits
from qcascade.plan import PartitionPlan, Region
from qcascade.routing import RoutedCircuit, route
from qcascade.targets import Target, targets

__all__ = [
    "BundleError",
    "CaptureError",
    "CircuitError",
    "DistillReport",
    "ExecutionError",
    "HybridModule",
    "Limits",
    "PartitionPlan",
    "PlanError",
    "QCascadeError",
    "QuantumLayer",
    "Region",
    "RoutedCircuit",
    "Target",
    "TargetError",
    "compile",
    "distill",
    "executors",
    "kernels",
    "plan",
    "route",
    "targets",
]
__version__ = "0.1.0.dev0"
