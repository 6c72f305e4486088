"""How circuits run: exactly by the engine, or by executors that sample; gradients on samples; mitigation."""

from qcascade.executors.base import Estimate, Executor, Job, Run
from qcascade.executors.choose import make_executor
from qcascade.executors.mitigation import ReadoutInversion, ZeroNoiseExtrapolation
from qcascade.executors.noisy import NoisyExecutor
from qcascade.executors.pytket_backend import PytketExecutor
from qcascade.executors.runtime import RuntimeExecutor
from qcascade.executors.sampled import gradient_circuits, measured, sampled
from qcascade.executors.shots import ShotsExecutor

__all__ = [
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
