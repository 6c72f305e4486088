"""QCascade: compile PyTorch models into hybrids with quantum kernels, and say what each would cost."""

from typing import TYPE_CHECKING, Any

from qcascade import executors, kernels
from qcascade.compiler import compile, plan
from qcascade.dispatch import Policy
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
from qcascade.offload import Dynamic
from qcascade.plan import Limits as Limits
from qcascade.plan import PartitionPlan, Region
from qcascade.targets import Target, targets

if TYPE_CHECKING:
    from qcascade.bundle.bundle import Bundle, load
    from qcascade.bundle.export import export
    from qcascade.dispatch.telemetry import Telemetry
    from qcascade.executors.distributed import DaskExecutor
    from qcascade.routing import RoutedCircuit, route

__all__ = [
    "Bundle",
    "BundleError",
    "CaptureError",
    "CircuitError",
    "DaskExecutor",
    "DistillReport",
    "Dynamic",
    "ExecutionError",
    "HybridModule",
    "Limits",
    "PartitionPlan",
    "PlanError",
    "Policy",
    "QCascadeError",
    "QuantumLayer",
    "Region",
    "RoutedCircuit",
    "Target",
    "TargetError",
    "Telemetry",
    "compile",
    "distill",
    "executors",
    "export",
    "kernels",
    "load",
    "plan",
    "route",
    "targets",
]
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """Routing and bundles are imported when they are first asked for: Qiskit takes a second."""
    if name in ("RoutedCircuit", "route"):
        from qcascade import routing

        return getattr(routing, name)
    if name in ("Bundle", "load"):
        from qcascade.bundle import bundle

        return getattr(bundle, name)
    if name == "export":
        from qcascade.bundle.export import export

        return export
    if name == "DaskExecutor":
        return executors.DaskExecutor
    if name == "Telemetry":
        from qcascade.dispatch.telemetry import Telemetry

        return Telemetry
    raise AttributeError(f"module 'qcascade' has no attribute {name!r}")
