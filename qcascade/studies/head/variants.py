"""The re-uploading head with a module taken out, or with another number of encoders; with neither, it is the kernel itself."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pytket.circuit import Circuit, OpType
from torch import Tensor, nn

from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import lower
from qcascade.errors import ExecutionError
from qcascade.kernels import ReuploadingHead
from qcascade.kernels.amplitudes import load
from qcascade.studies.head.runs import ABLATIONS


class HeadVariant(ReuploadingHead):
    """A re-uploading head for ablations.

    Args:
        features: Width of what is loaded.
        classes: Number of logits.
        qubits: Q.
        uploads: N.
        blocks: M.
        offsets: C.
        encoders: E, each giving its first ⌈Q/E⌉ values; 0 is the kernel's.
        without: "encoder": a trained linear layer and tanh give the Q values instead; "reuploads": the encoders' values go straight to
            the linear layer; "entanglers": no CNOT anywhere; "training": the angles stay as they start.
        entangler: As in the kernel.

    Raises:
        ExecutionError: `without` is unknown, or so many encoders of so few qubits do not give Q values.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        qubits: int,
        uploads: int,
        blocks: int,
        offsets: int,
        encoders: int = 0,
        without: str = "",
        entangler: str = "source",
    ) -> None:
        super().__init__(
            features, classes, qubits=qubits, uploads=uploads, blocks=blocks, offsets=offsets, entangler=entangler
        )
        if without and without not in ABLATIONS:
            raise ExecutionError(f"without={without!r} is no module; choose one of {', '.join(ABLATIONS)}.")
        self.without, self.each = without, self._encoder.qubits
        if encoders:
            self.each = math.ceil(qubits / encoders)
            if self.each > self._encoder.qubits or (encoders - 1) * self.each >= qubits:
                raise ExecutionError(
                    f"encoders={encoders} of {self._encoder.qubits} qubits cannot share {qubits} values evenly; choose "
                    f"{math.ceil(qubits / self._encoder.qubits)} to {qubits}, so that each gives at least one."
                )
            self.encoder_angles = nn.Parameter(
                torch.empty(encoders, len(self._encoder.weights)).uniform_(-math.pi, math.pi)
            )
        if without == "encoder":
            self.project = nn.Linear(features, qubits)
            self.encoder_angles.requires_grad_(False)
        elif without == "reuploads":
            self.angles.requires_grad_(False)
        elif without == "training":
            self.angles.requires_grad_(False)
            self.encoder_angles.requires_grad_(False)
        elif without == "entanglers":
            self._encoder, self._reuploader = _unentangled(self._encoder), _unentangled(self._reuploader)
            self._encoder_program, self._reuploader_program = lower(self._encoder), lower(self._reuploader)

    def circuit_features(self, x: Tensor) -> Tensor:
        """What the linear layer reads, [B, Q]."""
        if self.without == "encoder":
            values = torch.tanh(self.project(x) / self.features**0.5)
        else:
            state = load(x, self._encoder.qubits)
            encoded = self._measure(
                self._encoder, self._encoder_program, weights=self.encoder_angles.to(x.dtype), amplitudes=state
            )
            values = encoded.transpose(0, 1)[:, :, : self.each].flatten(1)[:, : self.qubits]
        if self.without == "reuploads":
            return values
        weights = self.angles.to(x.dtype)
        return self._measure(self._reuploader, self._reuploader_program, data=math.pi * values, weights=weights)[0]

    def trained(self) -> int:
        """Parameters that are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _unentangled(template: CircuitTemplate) -> CircuitTemplate:
    """The same template without its CNOTs."""
    bare = Circuit(template.circuit.n_qubits)
    for command in template.circuit.get_commands():
        if command.op.type != OpType.CX:
            bare.add_gate(command.op, command.args)
    return replace(template, circuit=bare)
