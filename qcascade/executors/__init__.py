"""How circuits run: exactly by the engine, or by executors that sample; gradients on samples; mitigation.

Executors of devices are imported when they are first asked for: Aer and IBM's client take seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qcascade.executors.base import Estimate, Executor, Job, Run
from qcascade.executors.choose import make_executor
from qcascade.executors.mitigation import ReadoutInversion, ZeroNoiseExtrapolation
from qcascade.executors.sampled import gradient_circuits, measured, sampled
from qcascade.executors.shots import ShotsExecutor

if TYPE_CHECKING:
    from qcascade.executors.distributed import DaskExecutor, DistributedExecutor
    from qcascade.executors.noisy import NoisyExecutor
    from qcascade.executors.pytket_backend import PytketExecutor
    from qcascade.executors.runtime import RuntimeExecutor

__all__ = [
    "DaskExecutor",
    "DistributedExecutor",
    "Estimate",
    "Executor",
    "Job",
    "NoisyExecutor",
    "PytketExecutor",
    "ReadoutInversion",
    "Run",
    "RuntimeExecutor",
    "ShotsExecutor",
    "ZeroNoiseExtrapolation",
    "gradient_circuits",
    "make_executor",
    "measured",
    "sampled",
]
_LATER = {
    "DaskExecutor": "distributed",
    "DistributedExecutor": "distributed",
    "NoisyExecutor": "noisy",
    "PytketExecutor": "pytket_backend",
    "RuntimeExecutor": "runtime",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"qcascade.executors.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
