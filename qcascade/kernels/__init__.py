"""The quantum kernels: nn.Modules that own circuits and can stand in for parts of a model, or be used alone."""

from qcascade.kernels.adapter import AmplitudeAdapter
from qcascade.kernels.attention import AmplitudeAttentionPooling
from qcascade.kernels.base import KERNELS, CircuitUse, KernelWorkload, QuantumKernel
from qcascade.kernels.embedding import RandomCircuitEmbedding
from qcascade.kernels.head import ReuploadingHead

__all__ = [
    "KERNELS",
    "AmplitudeAdapter",
    "AmplitudeAttentionPooling",
    "CircuitUse",
    "KernelWorkload",
    "QuantumKernel",
    "RandomCircuitEmbedding",
    "ReuploadingHead",
]
