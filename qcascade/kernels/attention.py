"""Amplitude attention pooling: self-attention replaced by R pooled contexts a head, their weights mixed by a circuit.

For head h and slot r of R, positions i < n of a register of q = ceil(log2 max_length) qubits, mask m:

    s_i = w_hr·x_i/√d_h, φ_i = u_hr·x_i,  amplitudes a_i = m_i e^{s_i/2} / √(Σ m_j e^{s_j}),  |ψ⟩ = Σ a_i e^{iφ_i}|i⟩
    P_i = |⟨i|U(θ_hr)ψ⟩|², masked and renormalised
    c_hr = Σ_i P_i v_i^h,  β_ihr = softmax_r(b_hr·x_i),  y_ih = Σ_r β_ihr c_hr [+ depth-wise convolution of v],  then
    W_O

At θ = 0 this is masked softmax pooling, whatever φ. Time is O(n log n) in sequence length. Without the local path the
sums are reordered exactly, so that neither W_V nor W_O meets all positions: values are projected after pooling and
outputs before mixing.

Source: QCascade's design notes, after the cascaded paradigm of Nie (2026); U(θ)'s layers are RY, RZ and controlled
    phases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.circuits.ansatze import position_mixer
from qcascade.circuits.template import CircuitTemplate, Probabilities
from qcascade.engine import lower, unitary_columns, watched
from qcascade.errors import ExecutionError, PlanError
from qcascade.facts import AttentionFacts, RegionFacts
from qcascade.kernels.base import KERNELS, CircuitUse, KernelWorkload, QuantumKernel, entangler_of

MAX_QUBITS = 14
EXCLUDES = -1e3  # an additive mask of this or less leaves a key out: e^-1000 is 0 beside any key that counts


@KERNELS.register("amplitude_attention_pooling")
class AmplitudeAttentionPooling(QuantumKernel):
    """Pooled attention whose pooling weights are a circuit's outcome probabilities.

    Args:
        features: Width d of input and output.
        heads: Number of heads H.
        max_length: Longest sequence; fixes the register at ceil(log2 max_length) qubits.
        head_dim: Width of a head; features // heads by default.
        slots: Contexts R a head.
        layers: Layers L of U(θ).
        local_width: Width of the depth-wise convolution on the values, odd; 0 leaves it out.
        entangler: Where two-qubit gates lie: "source" (as designed), "chain" or "cycle" (neighbours only, so that a device
            that has one needs no SWAP); None: "source", and in a plan what its target is best at.
        dropout: Probability of dropping a mixing weight β in training.
        bias: Whether the value and output projections have biases.

    Raises:
        PlanError: An argument is out of range.

    Example:
        >>> kernel = AmplitudeAttentionPooling(features=8, heads=2, max_length=16)
        >>> kernel(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    kernel_name = "amplitude_attention_pooling"
    pattern = "attention"
    warm = ("value", "output")
    defaults: ClassVar[Mapping[str, Any]] = {
        "slots": 8,
        "layers": 2,
        "local_width": 0,
        "max_length": None,
        "entangler": None,
    }

    def __init__(
        self,
        features: int,
        heads: int,
        max_length: int,
        *,
        head_dim: int | None = None,
        slots: int = 8,
        layers: int = 2,
        local_width: int = 0,
        entangler: str | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.check({"slots": slots, "layers": layers, "local_width": local_width, "max_length": max_length})
        if heads < 1:
            raise PlanError(f"heads={heads} must be at least 1.")
        if head_dim is None and features % heads:
            raise PlanError(f"features={features} is not a multiple of heads={heads}; give head_dim.")
        self.features, self.heads, self.slots, self.layers = features, heads, slots, layers
        self.head_dim = features // heads if head_dim is None else head_dim
        self.max_length, self.local_width, self.dropout = max_length, local_width, dropout
        self.qubits = max(1, math.ceil(math.log2(max_length)))
        self.bias, self.entangler = bias, entangler_of(entangler)
        width, sets = heads * self.head_dim, heads * slots
        self._template = mixer_template(self.qubits, layers, self.entangler)
        self._program = lower(self._template)
        self.score = nn.Parameter(torch.empty(sets, features))  # w
        self.phase = nn.Parameter(torch.empty(sets, features))  # u
        self.mix = nn.Parameter(torch.empty(sets, features))  # b
        self.angles = nn.Parameter(torch.zeros(sets, len(self._template.weights)))  # θ, radians
        self.value = nn.Linear(features, width, bias=bias)
        self.output = nn.Linear(width, features, bias=bias)
        self.local = nn.Parameter(torch.zeros(width, 1, local_width)) if local_width else None
        self.last_masked_mass: Tensor | None = None  # mean probability that fell on masked positions in the last call
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random scores, phases and mixing weights; θ = 0, so that the kernel starts as masked softmax pooling."""
        for weight in (self.score, self.phase, self.mix):
            nn.init.normal_(weight, std=self.features**-0.5)
        nn.init.zeros_(self.angles)
        if self.local is not None:
            nn.init.normal_(self.local, std=self.local_width**-0.5)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Slots and lengths of at least 1, a local path of odd width."""
        slots, layers, longest = settings["slots"], settings["layers"], settings["max_length"]
        if slots < 1 or layers < 0 or (longest is not None and longest < 1):
            raise PlanError(
                f"slots={slots}, layers={layers}, max_length={longest}: slots and max_length must be at least 1 and layers at least 0."
            )
        width = settings["local_width"]
        if width < 0 or (width and width % 2 == 0):
            raise PlanError(f"local_width={width} must be odd, or 0 for no local path.")

    @classmethod
    def gates(cls, arguments: Mapping[str, Any]) -> int:
        """Three a qubit and layer."""
        return 3 * int(arguments["layers"]) * int(arguments["max_length"]).bit_length()

    def templates(self) -> Mapping[str, CircuitTemplate]:
        """The one circuit: U(θ) on loaded amplitudes, every qubit measured."""
        return {"mixer": self._template}

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: [B, n, d], n ≤ max_length.
            mask: None, or which positions count: boolean (True counts) or additive float (0 counts, -1000 and less does
                not), of shape [B, n] or broadcastable [B, heads, n, n] with equal rows. Where none counts, all do, as in
                a softmax of scores that are all lowered alike.

        Returns:
            [B, n, d].

        Raises:
            ExecutionError: x is wider, longer or of other rank than the kernel was built for, or the mask is no choice of keys
                (`key_mask`).
        """
        self._check(x)
        valid = self._valid(x, mask)
        chance = self.pooling_probabilities(x, valid)  # [B, H, R, n]
        beta = torch.einsum("bnd,sd->bns", x, self.mix.to(x.dtype)).unflatten(-1, (self.heads, self.slots)).softmax(-1)
        beta = F.dropout(beta, self.dropout, self.training)
        return (
            self._pooled_first(x, chance, beta) if self.local is None else self._projected_first(x, chance, beta, valid)
        )

    def _valid(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """Which positions of [B, n, d] count, boolean [B, n]; all of an example's where its mask leaves none."""
        if mask is None:
            return None
        if self.heads > 1 and mask.shape[0] == x.shape[0] * self.heads:
            mask = mask.unflatten(0, (x.shape[0], self.heads))
        valid = key_mask(mask)
        return valid | ~valid.any(-1, keepdim=True)

    def pooling_probabilities(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """P [B, H, R, n] of inputs [B, n, d] under a boolean mask [B, n]."""
        batch, length, _ = x.shape
        weight = torch.cat((self.score / math.sqrt(self.head_dim), self.phase))
        projected = torch.einsum("bnd,sd->sbn", x, weight.to(x.dtype))
        scores, phases = (projected if projected.dtype == torch.float64 else projected.float()).chunk(2)
        if valid is not None:
            scores = scores.masked_fill(~valid, -torch.inf)
        amplitudes = torch.polar((scores.log_softmax(-1) / 2).exp(), phases)
        angles = self.angles.to(scores.dtype)
        size = 2**self.qubits
        if batch > length and self.executor is None:  # cheaper through the leading n × n block of U
            block = unitary_columns(self._program, angles, length)[:, :length]
            chance = (amplitudes @ block.transpose(-1, -2)).abs().square()
        else:
            loaded = F.pad(amplitudes, (0, size - length))
            chance = self._measure(self._template, self._program, weights=angles, amplitudes=loaded)[..., :length]
        if valid is not None:
            chance = chance * valid
        mass = chance.sum(-1, keepdim=True)
        self.last_masked_mass = 1 - mass.detach().mean()
        chance = chance / mass.clamp_min(torch.finfo(chance.dtype).tiny)
        shares: Tensor = chance.unflatten(0, (self.heads, self.slots)).permute(2, 0, 1, 3).to(x.dtype)
        return shares

    def _pooled_first(self, x: Tensor, chance: Tensor, beta: Tensor) -> Tensor:
        """Pool inputs, then project: O(n·H·R·d) instead of O(n·d²)."""
        pooled = chance.flatten(1, 2) @ x  # [B, HR, d]
        pooled = pooled.unflatten(1, (self.heads, self.slots))
        value = self.value.weight.unflatten(0, (self.heads, self.head_dim))
        context = torch.einsum("bhrd,hed->bhre", pooled, value.to(x.dtype))
        if self.value.bias is not None:
            context = context + self.value.bias.to(x.dtype).unflatten(0, (self.heads, 1, self.head_dim))
        out = self.output.weight.to(x.dtype).unflatten(1, (self.heads, self.head_dim))
        projected = torch.einsum("bhre,dhe->bhrd", context, out).flatten(1, 2)  # [B, HR, d]
        y = beta.flatten(2) @ projected
        return y if self.output.bias is None else y + self.output.bias.to(x.dtype)

    def _projected_first(self, x: Tensor, chance: Tensor, beta: Tensor, valid: Tensor | None) -> Tensor:
        """Project all values, since the local path needs each of them."""
        assert self.local is not None
        value = self.value(x)
        if valid is not None:
            value = value * valid.unsqueeze(-1)
        heads = value.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)  # [B, H, n, e]
        mixed = beta.transpose(1, 2) @ (chance @ heads)  # [B, H, n, e]
        y = mixed.transpose(1, 2).flatten(2)
        near = F.conv1d(
            value.transpose(1, 2), self.local.to(x.dtype), padding=self.local_width // 2, groups=value.shape[-1]
        )
        out: Tensor = self.output(y + near.transpose(1, 2))
        return out

    def _check(self, x: Tensor) -> None:
        if x.dim() != 3 or x.shape[-1] != self.features or not x.is_floating_point():
            raise ExecutionError(
                f"amplitude_attention_pooling takes floats [batch, n, {self.features}], got {x.dtype} {list(x.shape)}."
            )
        if x.shape[1] > self.max_length:
            raise ExecutionError(
                f"the sequence has {x.shape[1]} positions; this kernel was built for at most {self.max_length}. "
                "Compile again with a larger max_length, or truncate."
            )

    @classmethod
    def refuse(cls, facts: RegionFacts, options: Mapping[str, Any]) -> str | None:
        """Causal attention, rotary positions (positions would be lost) and registers beyond 14 qubits are refused."""
        assert isinstance(facts, AttentionFacts)
        if facts.causal:
            return "causal attention: pooling over all positions would let a position see later ones"
        if facts.rotary:
            return "rotary positions enter only the scores that pooling replaces, so positions would be lost"
        length = _length(facts, cls.settings(options))
        if length > 2**MAX_QUBITS:
            return f"a sequence of {length} needs {math.ceil(math.log2(length))} qubits; at most {MAX_QUBITS} are simulated"
        return None

    @classmethod
    def blank(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> Self:
        """Random scores; max_length is the option's, else the model's, else the example's length."""
        assert isinstance(facts, AttentionFacts)
        settings = cls.settings(options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(
                facts.features,
                facts.heads,
                _length(facts, settings),
                head_dim=facts.head_dim,
                slots=settings["slots"],
                layers=settings["layers"],
                local_width=settings["local_width"],
                entangler=settings["entangler"],
                dropout=facts.dropout,
            )

    def rehearse(self, facts: RegionFacts) -> Tensor:
        """Random inputs without a mask."""
        assert isinstance(facts, AttentionFacts)
        x = torch.randn(facts.batch, facts.sequence_length, facts.features, requires_grad=torch.is_grad_enabled())
        return self(x)  # type: ignore[no-any-return]

    @classmethod
    def from_region(
        cls, facts: RegionFacts, weights: Mapping[str, Tensor], options: Mapping[str, Any], *, seed: int
    ) -> Self:
        """Values and output projection are copied, the local path starts at zero; scores, phases and mixing at random."""
        assert isinstance(facts, AttentionFacts)
        kernel = cls.blank(facts, options, seed=seed)
        kernel.to(device=weights["value.weight"].device, dtype=weights["value.weight"].dtype)
        with torch.no_grad():
            if kernel.local is not None:
                kernel.local.zero_()
            for name, module in (("value", kernel.value), ("output", kernel.output)):
                module.weight.copy_(weights[f"{name}.weight"])
                if (bias := weights.get(f"{name}.bias")) is not None:
                    module.bias.copy_(bias)
                else:
                    module.bias.zero_()
        return kernel

    @classmethod
    def workload(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> KernelWorkload:
        """H·R circuits an example; n amplitudes in, n probabilities out of each."""
        assert isinstance(facts, AttentionFacts)
        settings = cls.settings(options)
        sets, length = facts.heads * settings["slots"], facts.sequence_length
        qubits = max(1, math.ceil(math.log2(_length(facts, settings))))
        template = mixer_template(qubits, settings["layers"], entangler_of(settings["entangler"]))
        use = CircuitUse(template, facts.batch * sets, sets, 0, length, length)
        return KernelWorkload((use,), "O(n log n)")


def mixer_template(qubits: int, layers: int, entangler: str = "source") -> CircuitTemplate:
    """U(θ) as a template: amplitudes loaded, weights θ, every qubit measured."""
    circuit, weights = position_mixer(qubits, layers, entangler)
    return CircuitTemplate(circuit, data=(), weights=weights, amplitudes=True, measurement=Probabilities())


def key_mask(mask: Tensor) -> Tensor:
    """Which keys count, boolean [B, n], of a mask as attention takes it: [B, n], [B, 1|n, n] or [B, 1|H, 1|n, n], rows equal.

    Raises:
        ExecutionError: It differs between queries or heads, or holds a bias. Values are not looked at while torch compiles,
            exports or transforms.
    """
    first = mask
    while first.dim() > 2:
        first = first[:, 0]
    first = counted(first)
    if not watched() and not mask.is_meta:
        _check_mask(mask, first)
    return first


def counted(mask: Tensor) -> Tensor:
    """Where a mask lets a key count, as booleans of its shape."""
    if mask.dtype == torch.bool:
        return mask
    return mask > EXCLUDES if mask.is_floating_point() else mask != 0


def _check_mask(mask: Tensor, first: Tensor) -> None:
    for dim in range(1, mask.dim() - 1):
        if mask.stride(dim) == 0:  # expanded: alike by construction
            mask = mask.narrow(dim, 0, 1)
    keep, wrong = counted(mask), None
    if mask.is_floating_point() and bool((keep & (mask != 0)).any()):
        wrong = f"holds a bias (values above {EXCLUDES:g} other than 0)"
    elif keep.numel() > first.numel() and bool((keep != first[:, *(None,) * (keep.dim() - 2)]).any()):
        wrong = "differs from query to query or from head to head"
    if wrong is not None:
        raise ExecutionError(
            f"the attention mask {wrong}; pooling can only leave keys out, the same ones for every query and head. Compile with "
            "example_inputs that hold such a mask, so that this attention is kept, or exclude it."
        )


def _length(facts: AttentionFacts, settings: Mapping[str, Any]) -> int:
    return int(settings["max_length"] or facts.max_length or facts.sequence_length)
