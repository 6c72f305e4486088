"""Re-uploading head: a classification head of two stages of circuits and one linear layer (Kim et al. 2025).

Stage one: E encoders, each the sentence embedding loaded as amplitudes, a PQC, and ⟨Z⟩ of every qubit; the first Q
values go on. Stage two: N times [RY(π·value) on Q qubits, PQC], a last PQC, ⟨Z⟩ of the measured qubits. Then one linear
layer. A PQC has M blocks of, for every offset c = 1..C and every i, CNOT(i → i + c mod Q) and RY on the target, after
RY on every qubit: Q(MC + 1) angles.

Source: Kim et al. 2025, re-uploading quantum head on a sentence transformer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pytket.circuit import Circuit
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.circuits.ansatze import angle_encoding, offset_entangler
from qcascade.circuits.observables import single_z
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.engine import lower
from qcascade.errors import ExecutionError, PlanError
from qcascade.facts import HeadFacts, RegionFacts
from qcascade.kernels.amplitudes import MAX_QUBITS, load, register, too_wide
from qcascade.kernels.base import KERNELS, CircuitUse, KernelWorkload, QuantumKernel, entangler_of


@KERNELS.register("reuploading_head")
class ReuploadingHead(QuantumKernel):
    """A head of encoders, a re-uploading circuit and a linear layer.

    Args:
        features: Width of the sentence embedding.
        classes: Number of logits.
        qubits: Width Q of the re-uploading circuit.
        uploads: Re-uploads N.
        blocks: Blocks M of a PQC.
        offsets: Largest CNOT offset C of a block.
        measured: Qubits measured at the end; all of them by default.
        entangler: Where two-qubit gates lie: "source" (as designed), "chain" or "cycle" (neighbours only, so that a device
            that has one needs no SWAP); None: "source", and in a plan what its target is best at.

    Raises:
        PlanError: An argument is out of range.

    Example:
        >>> head = ReuploadingHead(features=32, classes=2, qubits=4)
        >>> head(torch.randn(3, 32)).shape
        torch.Size([3, 2])
    """

    kernel_name = "reuploading_head"
    pattern = "head"
    warm = ("readout",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "qubits": 6,
        "uploads": 2,
        "blocks": 1,
        "offsets": 2,
        "measured": None,
        "entangler": None,
    }

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        qubits: int = 6,
        uploads: int = 2,
        blocks: int = 1,
        offsets: int = 2,
        measured: int | None = None,
        entangler: str | None = None,
    ) -> None:
        super().__init__()
        measured = qubits if measured is None else measured
        self.check({"qubits": qubits, "uploads": uploads, "blocks": blocks, "offsets": offsets, "measured": measured})
        self.features, self.classes, self.qubits, self.uploads = features, classes, qubits, uploads
        self.blocks, self.offsets, self.measured = blocks, offsets, measured
        self.entangler = pattern = entangler_of(entangler)
        self._encoder = encoder_template(features, blocks, offsets, pattern)
        self._reuploader = reuploading_template(qubits, uploads, blocks, offsets, measured, pattern)
        self._encoder_program, self._reuploader_program = lower(self._encoder), lower(self._reuploader)
        encoders = math.ceil(qubits / self._encoder.qubits)
        self.encoder_angles = nn.Parameter(torch.empty(encoders, len(self._encoder.weights)))  # radians
        self.angles = nn.Parameter(torch.empty(len(self._reuploader.weights)))  # radians
        self.readout = nn.Linear(measured, classes)
        for angles in (self.encoder_angles, self.angles):
            nn.init.uniform_(angles, -math.pi, math.pi)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Circuits that can be simulated, of at least one of everything."""
        qubits, uploads, blocks, offsets = (settings[name] for name in ("qubits", "uploads", "blocks", "offsets"))
        measured = qubits if settings["measured"] is None else settings["measured"]
        if not (
            2 <= qubits <= MAX_QUBITS
            and uploads >= 1
            and blocks >= 1
            and 1 <= offsets < qubits
            and 1 <= measured <= qubits
        ):
            raise PlanError(
                f"qubits={qubits}, uploads={uploads}, blocks={blocks}, offsets={offsets}, measured={measured}: qubits must be 2 to "
                f"{MAX_QUBITS}, uploads and blocks at least 1, offsets below qubits, measured at most qubits."
            )

    @classmethod
    def gates(cls, arguments: Mapping[str, Any]) -> int:
        """Two a qubit, block and offset of every PQC, and RY before it."""
        each = 2 + 2 * int(arguments["blocks"]) * int(arguments["offsets"])
        return each * (
            register(max(1, arguments["features"])) + (int(arguments["uploads"]) + 1) * int(arguments["qubits"])
        )

    def templates(self) -> Mapping[str, CircuitTemplate]:
        """The encoder (run with E sets of weights) and the re-uploading circuit."""
        return {"encoder": self._encoder, "reuploader": self._reuploader}

    def forward(self, x: Tensor) -> Tensor:
        """Logits [..., classes] of embeddings [..., features].

        Raises:
            ExecutionError: x has another width or holds no floats.
        """
        if x.shape[-1] != self.features or not x.is_floating_point():
            raise ExecutionError(
                f"reuploading_head takes floats [..., {self.features}], got {x.dtype} {list(x.shape)}."
            )
        logits: Tensor = self.readout(self.circuit_features(x.reshape(-1, self.features)).to(self.readout.weight.dtype))
        return logits.reshape(*x.shape[:-1], self.classes).to(x.dtype)

    def circuit_features(self, x: Tensor) -> Tensor:
        """⟨Z⟩ [B, measured] of embeddings [B, features]."""
        real = torch.float64 if x.dtype == torch.float64 else torch.float32
        state = load(x.to(real), self._encoder.qubits)
        encoded = self._measure(
            self._encoder, self._encoder_program, weights=self.encoder_angles.to(real), amplitudes=state
        )
        values = encoded.transpose(0, 1).flatten(1)[:, : self.qubits]  # [B, Q]
        weights = self.angles.to(real)
        return self._measure(self._reuploader, self._reuploader_program, data=math.pi * values, weights=weights)[0]

    @classmethod
    def refuse(cls, facts: RegionFacts, options: Mapping[str, Any]) -> str | None:
        """Embeddings that need more than 16 qubits to load are refused."""
        assert isinstance(facts, HeadFacts)
        cls.settings(options)
        return too_wide(facts.in_features)

    @classmethod
    def blank(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> Self:
        """Random angles and readout."""
        assert isinstance(facts, HeadFacts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(facts.in_features, facts.out_features, **cls.settings(options))

    def rehearse(self, facts: RegionFacts) -> Tensor:
        """One random embedding a row."""
        assert isinstance(facts, HeadFacts)
        return self(torch.randn(facts.rows, facts.in_features, requires_grad=torch.is_grad_enabled()))  # type: ignore[no-any-return]

    @classmethod
    def from_region(
        cls, facts: RegionFacts, weights: Mapping[str, Tensor], options: Mapping[str, Any], *, seed: int
    ) -> Self:
        """The linear layer is fitted by least squares to the region's logits on standard normal inputs.

        ⟨Z⟩ does not change when a real state changes its sign, so on centred inputs it is the mean logits that carry over;
        `qcascade.distill` on real inputs goes further.
        """
        assert isinstance(facts, HeadFacts)
        head = cls.blank(facts, options, seed=seed)
        inputs = torch.randn(1024, facts.in_features, generator=torch.Generator().manual_seed(seed))
        weight, bias = weights["weight"].detach(), weights.get("bias")
        head.to(device=weight.device, dtype=weight.dtype)
        inputs = inputs.to(weight)
        with torch.no_grad():
            wanted = F.linear(inputs, weight, bias).double()
            design = F.pad(head.circuit_features(inputs).double(), (0, 1), value=1.0)
            solution = torch.linalg.lstsq(design, wanted).solution
            head.readout.weight.copy_(solution[:-1].T)
            head.readout.bias.copy_(solution[-1])
        return head

    @classmethod
    def workload(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> KernelWorkload:
        """E encoder circuits and one re-uploading circuit for every row."""
        assert isinstance(facts, HeadFacts)
        s = cls.settings(options)
        measured = s["measured"] or s["qubits"]
        pattern = entangler_of(s["entangler"])
        encoder = encoder_template(facts.in_features, s["blocks"], s["offsets"], pattern)
        reuploader = reuploading_template(s["qubits"], s["uploads"], s["blocks"], s["offsets"], measured, pattern)
        encoders = math.ceil(s["qubits"] / encoder.qubits)
        uses = (
            CircuitUse(encoder, facts.rows * encoders, encoders, 0, facts.in_features, encoder.qubits),
            CircuitUse(reuploader, facts.rows, 1, s["qubits"], 0, measured),
        )
        return KernelWorkload(uses, "O(1)")


def encoder_template(features: int, blocks: int, offsets: int, entangler: str = "source") -> CircuitTemplate:
    """Amplitude encoding, then one PQC; ⟨Z⟩ of every qubit."""
    circuit = Circuit(register(features))
    weights = offset_entangler(circuit, blocks, offsets, "e", entangler=entangler)
    return CircuitTemplate(
        circuit,
        (),
        weights,
        amplitudes=True,
        real_amplitudes=True,
        measurement=Expectations(single_z(circuit.n_qubits)),
    )


def reuploading_template(
    qubits: int, uploads: int, blocks: int, offsets: int, measured: int, entangler: str = "source"
) -> CircuitTemplate:
    """N × [angle encoding, PQC] and a last PQC; ⟨Z⟩ of the first `measured` qubits."""
    circuit, data = Circuit(qubits), tuple(f"x_{i}" for i in range(qubits))
    weights: tuple[str, ...] = ()
    for upload in range(uploads):
        angle_encoding(circuit, data)
        weights += offset_entangler(circuit, blocks, offsets, f"w{upload}", entangler=entangler)
    weights += offset_entangler(circuit, blocks, offsets, f"w{uploads}", entangler=entangler)
    return CircuitTemplate(circuit, data, weights, measurement=Expectations(single_z(qubits)[:measured]))
