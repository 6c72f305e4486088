"""Amplitude adapter: a quantum low-rank correction beside a frozen linear projection (Roh et al. 2025).

The input h is padded and normalised into q = ceil(log2 d) qubits; layers of RY, RZ → CNOT ring → RY; ⟨Z_j⟩ → W_up, zero
at the start, so that the adapted projection starts as the original:

    y = W₀h + b + α · ‖h‖/√d · W_up ⟨Z⟩(h/‖h‖)

An adapter carries nothing away from the classical part, so it is considered only where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from qcascade.circuits.ansatze import ring_ansatz
from qcascade.circuits.observables import single_z
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.engine import lower
from qcascade.errors import ExecutionError, PlanError
from qcascade.facts import LinearFacts, RegionFacts
from qcascade.kernels.amplitudes import load, register, too_wide
from qcascade.kernels.base import KERNELS, CircuitUse, KernelWorkload, QuantumKernel, entangler_of


@KERNELS.register("amplitude_adapter")
class AmplitudeAdapter(QuantumKernel):
    """A trainable correction to a frozen projection.

    Args:
        in_features: Width d of the projection's input.
        out_features: Width of its output.
        layers: Layers of the circuit.
        alpha: Scale α of the correction.
        entangler: Where two-qubit gates lie: "source" (as designed), "chain" or "cycle" (neighbours only, so that a device
            that has one needs no SWAP); None: "source", and in a plan what its target is best at.

    Raises:
        PlanError: An argument is out of range.

    Example:
        >>> adapter = AmplitudeAdapter(16, 8)
        >>> x, y = torch.randn(3, 16), torch.randn(3, 8)
        >>> torch.equal(adapter(x, y), y)
        True
    """

    kernel_name = "amplitude_adapter"
    pattern = "linear"
    adds = True
    on_request = True
    defaults: ClassVar[Mapping[str, Any]] = {"layers": 1, "alpha": 1.0, "entangler": None}

    def __init__(
        self, in_features: int, out_features: int, *, layers: int = 1, alpha: float = 1.0, entangler: str | None = None
    ) -> None:
        super().__init__()
        self.check({"layers": layers})
        if (wide := too_wide(in_features)) is not None:
            raise PlanError(f"in_features={in_features}: {wide}.")
        self.in_features, self.out_features, self.alpha = in_features, out_features, alpha
        self.layers, self.entangler = layers, entangler_of(entangler)
        self._template = adapter_template(in_features, layers, self.entangler)
        self._program = lower(self._template)
        self.angles = nn.Parameter(torch.empty(len(self._template.weights)))  # radians
        self.up = nn.Linear(self._template.qubits, out_features, bias=False)
        nn.init.uniform_(self.angles, -math.pi, math.pi)
        nn.init.zeros_(self.up.weight)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """At least one layer."""
        if settings["layers"] < 1:
            raise PlanError(f"layers={settings['layers']} must be at least 1.")

    @classmethod
    def gates(cls, arguments: Mapping[str, Any]) -> int:
        """Four a qubit and layer."""
        return 4 * int(arguments["layers"]) * register(max(1, arguments["in_features"]))

    def templates(self) -> Mapping[str, CircuitTemplate]:
        """The one circuit, on loaded amplitudes."""
        return {"adapter": self._template}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The projection's output y [..., out] corrected for its input x [..., in].

        Raises:
            ExecutionError: x or y has another width.
        """
        if x.shape[-1] != self.in_features or y.shape[-1] != self.out_features:
            raise ExecutionError(
                f"amplitude_adapter takes [..., {self.in_features}] and [..., {self.out_features}], "
                f"got {list(x.shape)} and {list(y.shape)}."
            )
        rows = x.reshape(-1, self.in_features)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        readings = self.circuit_features(rows) * (rows.norm(dim=-1, keepdim=True) / math.sqrt(self.in_features))
        change = self.up(readings.to(self.up.weight.dtype)).reshape(y.shape)
        corrected: Tensor = y + self.alpha * change.to(y.dtype)
        return corrected

    def circuit_features(self, x: Tensor) -> Tensor:
        """⟨Z⟩ [B, q] of inputs [B, d]; their length does not matter."""
        state = load(x, self._template.qubits)
        return self._measure(self._template, self._program, weights=self.angles.to(x.dtype), amplitudes=state)[0]

    @classmethod
    def refuse(cls, facts: RegionFacts, options: Mapping[str, Any]) -> str | None:
        """Inputs that need more than 16 qubits are refused."""
        assert isinstance(facts, LinearFacts)
        cls.settings(options)
        return too_wide(facts.in_features)

    @classmethod
    def blank(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> Self:
        """Random angles; W_up is zero."""
        assert isinstance(facts, LinearFacts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(facts.in_features, facts.out_features, **cls.settings(options))

    def rehearse(self, facts: RegionFacts) -> Tensor:
        """Random inputs and outputs of the projection."""
        assert isinstance(facts, LinearFacts)
        x = torch.randn(facts.rows, facts.in_features, requires_grad=torch.is_grad_enabled())
        return self(x, torch.randn(facts.rows, facts.out_features))  # type: ignore[no-any-return]

    @classmethod
    def from_region(
        cls, facts: RegionFacts, weights: Mapping[str, Tensor], options: Mapping[str, Any], *, seed: int
    ) -> Self:
        """W_up is zero, so the adapted projection starts as the original."""
        assert isinstance(facts, LinearFacts)
        adapter = cls.blank(facts, options, seed=seed)
        return adapter.to(device=weights["weight"].device, dtype=weights["weight"].dtype)

    @classmethod
    def workload(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> KernelWorkload:
        """One circuit a row."""
        assert isinstance(facts, LinearFacts)
        settings = cls.settings(options)
        template = adapter_template(facts.in_features, settings["layers"], entangler_of(settings["entangler"]))
        use = CircuitUse(template, facts.rows, 1, 0, facts.in_features, template.qubits)
        return KernelWorkload((use,), "O(n)")


def adapter_template(in_features: int, layers: int, entangler: str = "source") -> CircuitTemplate:
    """Amplitude encoding, then the ring ansatz; ⟨Z⟩ of every qubit."""
    circuit, weights = ring_ansatz(register(in_features), layers, entangler)
    return CircuitTemplate(
        circuit,
        (),
        weights,
        amplitudes=True,
        real_amplitudes=True,
        measurement=Expectations(single_z(circuit.n_qubits)),
    )
