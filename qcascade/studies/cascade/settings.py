"""What one training run of the cascaded study is; equal settings are one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qcascade.errors import ExecutionError
from qcascade.studies.cascade.encoder import Size
from qcascade.studies.training import Protocol

ATTENTION, EMBEDDING = "amplitude_attention_pooling", "random_circuit_embedding"
KINDS = {  # what a run trains, and the kernels in it
    "classical": (),
    "hybrid": (ATTENTION, EMBEDDING),
    "without attention kernel": (EMBEDDING,),
    "without embedding kernel": (ATTENTION,),
}
_OPTIONS = {  # of `Kernels`, by what they are of
    ATTENTION: ("slots", "mixer_layers", "local_width", "mixer_rate"),
    EMBEDDING: ("qubits", "circuit_layers", "spread", "angle_rate"),
}


_OF_TRAINING = ("mixer_rate", "spread", "angle_rate")  # change neither a step's time nor its circuits
EXECUTORS = ("statevector", "shots")


def options_of(kind: str) -> tuple[str, ...]:
    """Names of the options of `Kernels` that mean anything to a kind.

    Example:
        >>> options_of("without embedding kernel")
        ('slots', 'mixer_layers', 'local_width', 'mixer_rate')
    """
    return tuple(name for kernel in KINDS[kind] for name in _OPTIONS[kernel])


@dataclass(frozen=True, slots=True)
class Kernels:
    """Options of the hybrid's kernels.

    Attributes:
        slots: Contexts a head of the attention kernel.
        mixer_layers: Layers of its circuit.
        local_width: Width of its local path on the values; 0: none.
        mixer_rate: Learning rate of the circuit's angles, as a multiple of the rest's; 0 leaves it the identity, and the kernel
            softmax pooling.
        qubits: Of the embedding's circuit.
        circuit_layers: Of the same.
        spread: Standard deviation of its starting angles, in radians.
        angle_rate: Learning rate of its angles, as a multiple of the rest's.
    """

    slots: int = 8
    mixer_layers: int = 2
    local_width: int = 0
    mixer_rate: float = 1.0
    qubits: int = 8
    circuit_layers: int = 4
    spread: float = 0.1
    angle_rate: float = 5.0

    def options(self, kind: str, length: int) -> dict[str, dict[str, object]]:
        """As `qcascade.compile` takes them."""
        given: dict[str, dict[str, object]] = {
            ATTENTION: {
                "slots": self.slots,
                "layers": self.mixer_layers,
                "local_width": self.local_width,
                "max_length": length,
            },
            EMBEDDING: {"qubits": self.qubits, "layers": self.circuit_layers, "spread": self.spread},
        }
        return {name: given[name] for name in KINDS[kind]}

    @staticmethod
    def of_one_step(settings: Mapping[str, Any]) -> dict[str, Any]:
        """A record's options without those that matter to training alone."""
        return {name: value for name, value in settings.items() if name not in _OF_TRAINING}


@dataclass(frozen=True, slots=True)
class Run:
    """One model trained once.

    Attributes:
        data: Name of the folder.
        digest: Of its files, so that other data under the same name is another run.
        kind: One of `KINDS`.
        word_dropout: Share of words replaced by the unknown one in training.
        executor: How circuits run: "statevector" (exact), or "shots" with as many shots.
        device: What it is trained on: "cpu", "cuda" …, without a number.
        folds: 0 tests the folder's test texts; more is cross-validation, whose fold is named by the seed (`split_by_fold`).
    """

    data: str
    digest: str
    kind: str
    size: Size = field(default_factory=Size)
    protocol: Protocol = field(default_factory=Protocol)
    kernels: Kernels | None = None  # None for "classical", which has none
    dropout: float = 0.2
    word_dropout: float = 0.0
    executor: str = "statevector"
    shots: int | None = None
    device: str = "cpu"
    folds: int = 0

    @staticmethod
    def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
        """A record's settings without options of kernels that its kind has no use for."""
        found = dict(settings)
        if found.get("kernels") is not None and found.get("kind") in KINDS:
            own = options_of(found["kind"])
            found["kernels"] = {name: value for name, value in found["kernels"].items() if name in own}
        return found

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ExecutionError(f"kind={self.kind!r} is unknown; choose one of {', '.join(KINDS)}.")
        if (self.kernels is None) != (self.kind == "classical"):
            raise ExecutionError(
                f"kind={self.kind!r} with kernels={self.kernels}: all kinds but 'classical' have kernels."
            )
        if self.executor not in EXECUTORS:
            raise ExecutionError(f"executor={self.executor!r} is unknown; choose {' or '.join(EXECUTORS)}.")
        if (self.shots is not None) != (self.executor == "shots"):
            raise ExecutionError(
                f"executor={self.executor!r} with shots={self.shots}: shots are of executor 'shots', and it needs them."
            )
        if self.folds < 0 or self.folds == 1:
            raise ExecutionError(f"folds={self.folds}: give at least 2, or 0 for the folder's own split.")
        if not (0 <= self.dropout < 1 and 0 <= self.word_dropout < 1):
            raise ExecutionError(f"dropout={self.dropout}, word_dropout={self.word_dropout}: both must be in [0, 1).")
