"""What a run of the study is: plain settings, equal to those of a finished run where it is done already."""

from __future__ import annotations

import math
from dataclasses import dataclass

ABLATIONS = ("encoder", "reuploads", "entanglers", "training")
CLASSICAL = ("logistic", "svm", "mlp", "random-features")


@dataclass(frozen=True, slots=True)
class QuantumRun:
    """A re-uploading head, trained and scored.

    Attributes:
        seed: Of the angles, the batches' order and the part of train that is used.
        embeddings: "frozen" or "tuned".
        inputs: What the circuit loads, see `inputs.prepare`.
        qubits: Q of the re-uploading circuit.
        uploads: N.
        blocks: M of a PQC.
        offsets: C, the largest CNOT offset.
        encoders: E; 0 is the definition's, as few as give Q values. With E given, each gives ⌈Q/E⌉.
        without: A module that is taken out, of `ABLATIONS`, or none.
        entangler: "source", or "chain" for devices.
        rate: Peak learning rate.
        start: Angles start uniformly in ± this, radians; π is the definition's.
        warm: The linear layer starts as the least-squares fit to the labels (±1) on the circuits as they start.
        epochs: Passes over the part of train.
        batch: Sentences a step.
        texts: Most sentences of train used; 0 is all of the seed's part.
        share: The seed's part of train.
        digest: Of the folder of texts, so that other data are another run; "" only in a shape, which no embeddings belong to.
    """

    seed: int
    embeddings: str = "frozen"
    inputs: str = "standard"
    qubits: int = 6
    uploads: int = 1
    blocks: int = 4
    offsets: int = 2
    encoders: int = 0
    without: str = ""
    entangler: str = "source"
    rate: float = 0.03
    start: float = 0.3
    warm: bool = False
    epochs: int = 8
    batch: int = 64
    texts: int = 0
    share: float = 0.9
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ClassicalRun:
    """A classical classifier, fitted and scored.

    Attributes:
        seed: Of its weights or features, and of the part of train.
        embeddings: "frozen" or "tuned".
        method: One of `CLASSICAL`.
        strength: C of logistic regression and SVM; the peak learning rate of the MLP; C of the regression on random features.
        width: Principal components that the MLP reads (0: all features); the random features' 1000·γ·d.
        parameters: Most trained parameters of the MLP and of random features.
        epochs: Of the MLP.
        share: The seed's part of train.
        digest: Of the folder of texts.
    """

    seed: int
    embeddings: str
    method: str
    strength: float
    width: int = 0
    parameters: int = 0
    epochs: int = 20
    share: float = 0.9
    digest: str = ""


@dataclass(frozen=True, slots=True)
class SampledRun:
    """A head trained exactly, then evaluated on samples.

    Attributes:
        head: How it was trained.
        way: "exact", "shots", or a device's name: its calibrated noise, circuits compiled for it.
        shots: For each circuit.
        mitigated: Readout inversion and zero-noise extrapolation.
        subset: Test sentences evaluated (0: all), the same for all ways of a seed.
    """

    head: QuantumRun
    way: str
    shots: int = 0
    mitigated: bool = False
    subset: int = 0


DEFINITION = QuantumRun(seed=0, inputs="raw", start=math.pi)  # everything that the paper's definition fixes
