"""Random circuit embedding: a token's vector is read out of a small random circuit with trainable angles.

A circuit of q qubits has L layers of rotations about seeded random axes and a seeded random perfect matching of CZ.
Token t sets its angles θ_t, from a table [V, P] ("token") or as a sum of digit tables ("compositional"). Read out are
all ⟨σ_i⟩ and ⟨σ_iσ_j⟩ in the three global bases X, Y, Z: F = 3q + 3q(q−1)/2 features f_t; the embedding is LayerNorm(W
f_t + b), and 0 for padding.

Only the unique tokens of a batch are simulated; in evaluation the table of embeddings is computed once and kept until a
parameter changes. No amplitude is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from qcascade.circuits.ansatze import random_rotations
from qcascade.circuits.observables import one_and_two_body
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.engine import lower, watched
from qcascade.errors import ExecutionError, PlanError
from qcascade.facts import EmbeddingFacts, RegionFacts
from qcascade.kernels.base import KERNELS, CircuitUse, KernelWorkload, QuantumKernel, entangler_of

_WARM_SPREAD = 0.1  # radians of the first principal component's deviation: where features are about linear in angles
_CHUNK = 4096  # states simulated at a time when the whole table is evaluated


@KERNELS.register("random_circuit_embedding")
class RandomCircuitEmbedding(QuantumKernel):
    """An embedding whose table holds circuit angles.

    Args:
        vocabulary: Number of tokens V.
        features: Width d of the embedding.
        qubits: Width q of the circuit, 2 to 12.
        layers: Layers L.
        rotations: Rotations per qubit and layer; P = L·q·rotations angles a token.
        angles: "token" (a table [V, P]) or "compositional" (a sum of one table per digit of the token's number).
        base: Of the digits, for "compositional".
        spread: Standard deviation of the tokens' starting angles about their common start, in radians. Far apart, a model learns
            faster at first; 0.1 gave rare tokens better angles where these learn five times as fast as the rest.
        angle_noise: Standard deviation of noise added to the angles in training, in radians; a regulariser.
        entangler: Where two-qubit gates lie: "source" (as designed), "chain" or "cycle" (neighbours only, so that a device
            that has one needs no SWAP); None: "source", and in a plan what its target is best at.
        padding_index: Token whose embedding is 0.
        seed: Of the axes, matchings and starting angles.

    Raises:
        PlanError: An argument is out of range.

    Example:
        >>> embedding = RandomCircuitEmbedding(vocabulary=100, features=16, qubits=4)
        >>> embedding(torch.tensor([[1, 2, 2]])).shape
        torch.Size([1, 3, 16])
    """

    kernel_name = "random_circuit_embedding"
    pattern = "embedding"
    warm = ("angles", "readout", "norm")
    defaults: ClassVar[Mapping[str, Any]] = {
        "qubits": 8,
        "layers": 4,
        "rotations": 3,
        "angles": "token",
        "base": 32,
        "spread": 0.5,
        "angle_noise": 0.0,
        "entangler": None,
    }

    def __init__(
        self,
        vocabulary: int,
        features: int,
        *,
        qubits: int = 8,
        layers: int = 4,
        rotations: int = 3,
        angles: str = "token",
        base: int = 32,
        spread: float = 0.5,
        angle_noise: float = 0.0,
        entangler: str | None = None,
        padding_index: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        given = {"qubits": qubits, "layers": layers, "rotations": rotations, "base": base, "angles": angles}
        self.check(given)
        if vocabulary < 1:
            raise PlanError(f"vocabulary={vocabulary} must be at least 1.")
        self.vocabulary, self.features, self.qubits, self.padding_index = vocabulary, features, qubits, padding_index
        self.layers, self.rotations, self.seed, self.entangler = layers, rotations, seed, entangler_of(entangler)
        self._template = embedding_template(qubits, layers, rotations, seed, self.entangler)
        self._program = lower(self._template)
        self._paulis = one_and_two_body(qubits)
        width = len(self._template.data)
        self.angle_kind, self.base, self.spread, self.angle_noise = angles, base, spread, angle_noise
        self.digits = 1 if angles == "token" else max(1, math.ceil(math.log(vocabulary, base)))
        rows = vocabulary if angles == "token" else self.digits * base
        self.angles = nn.Parameter(torch.empty(rows, width))  # radians
        self.readout = nn.Linear(len(self._paulis), features)
        self.norm = nn.LayerNorm(features)
        self._table: tuple[tuple[Tensor, ...], Tensor] | None = None  # parameters it was made of, embeddings
        self.reset_parameters(seed)

    def reset_parameters(self, seed: int = 0) -> None:
        """All tokens start near one random set of angles, `spread` apart, so that rare tokens start almost alike.

        The readout is scaled for features of random states, whose variance is 1/(2^q + 1); its bias is what LayerNorm
        keeps of the common part.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            common = torch.empty(self.angles.shape[1]).uniform_(-math.pi, math.pi, generator=generator)
            noise = torch.randn(self.angles.shape, generator=generator)
            self.angles.copy_((common + self.spread * noise) / self.digits)
            scale = math.sqrt((2**self.qubits + 1) / self.readout.in_features)
            self.readout.weight.normal_(0, scale, generator=generator)
            self.readout.bias.zero_()
        self.norm.reset_parameters()

    def arguments(self) -> Mapping[str, Any]:
        """See `QuantumKernel.arguments`; the attribute `angles` is the table."""
        names = (
            "vocabulary",
            "features",
            "qubits",
            "layers",
            "rotations",
            "base",
            "spread",
            "angle_noise",
            "entangler",
        )
        kept = {name: getattr(self, name) for name in names}
        return {**kept, "angles": self.angle_kind, "padding_index": self.padding_index, "seed": self.seed}

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """2 to 12 qubits, at least one layer and rotation, a known kind of angles."""
        s = settings
        if not (2 <= s["qubits"] <= 12 and s["layers"] >= 1 and s["rotations"] >= 1 and s["base"] >= 2):
            raise PlanError(
                f"qubits={s['qubits']}, layers={s['layers']}, rotations={s['rotations']}, base={s['base']}: qubits must be 2 to 12, "
                "layers and rotations at least 1, base at least 2."
            )
        if s["angles"] not in ("token", "compositional"):
            raise PlanError(f"angles={s['angles']!r} is unknown; choose 'token' or 'compositional'.")

    @classmethod
    def gates(cls, arguments: Mapping[str, Any]) -> int:
        """Rotations, and half a CZ, a qubit and layer."""
        return int(arguments["layers"]) * int(arguments["qubits"]) * (int(arguments["rotations"]) + 1)

    def templates(self) -> Mapping[str, CircuitTemplate]:
        """The one circuit; its observables need three measurement settings."""
        return {"token": self._template}

    def forward(self, ids: Tensor) -> Tensor:
        """Embed.

        Args:
            ids: Integers of any shape [...], in 0 … V − 1.

        Returns:
            [..., d].

        Raises:
            ExecutionError: ids are not integers.
        """
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ExecutionError(f"random_circuit_embedding takes integer token ids, got {ids.dtype}.")
        if watched():  # how many different tokens there are is not known then: each is simulated
            return self.embed(ids.reshape(-1)).reshape(*ids.shape, self.features)
        if self.training or torch.is_grad_enabled() or self.executor is not None:  # samples are not kept
            tokens, where = ids.unique(return_inverse=True)
            return self.embed(tokens)[where]
        return self.table()[ids]

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings [T, d] of tokens [T], simulated."""
        vectors: Tensor = self.norm(self.readout(self.circuit_features(tokens).to(self.readout.weight.dtype)))
        if self.padding_index is not None:
            vectors = vectors * (tokens != self.padding_index).unsqueeze(-1)
        return vectors

    def circuit_features(self, tokens: Tensor) -> Tensor:
        """Expectation values [T, F] of tokens [T]."""
        angles = self.token_angles(tokens)
        if self.training and self.angle_noise:
            angles = angles + self.angle_noise * torch.randn_like(angles)
        return self._features_at(_simulated(angles))

    def _features_at(self, angles: Tensor) -> Tensor:
        """Expectation values [..., F] at angles [..., P]."""
        rows = angles.reshape(-1, angles.shape[-1])
        return self._measure(self._template, self._program, data=rows)[0].reshape(*angles.shape[:-1], len(self._paulis))

    def token_angles(self, tokens: Tensor) -> Tensor:
        """Angles [T, P] of tokens [T], radians."""
        if self.angle_kind == "token":
            return nn.functional.embedding(tokens, self.angles)
        rows = [tokens // self.base**k % self.base + k * self.base for k in range(self.digits)]
        return nn.functional.embedding(torch.stack(rows, -1), self.angles).sum(-2)

    def table(self) -> Tensor:
        """All embeddings [V, d], kept until a parameter changes.

        Values are compared: fused optimizers and writes to `.data` leave no trace in a parameter's version.
        """
        # by name: replicas of nn.DataParallel have no parameters
        weights = (self.angles, self.readout.weight, self.readout.bias, self.norm.weight, self.norm.bias)
        now = tuple(w.detach() for w in weights)
        if self._table is None or not all(_same(a, b) for a, b in zip(self._table[0], now, strict=True)):
            tokens = torch.arange(self.vocabulary, device=self.angles.device)
            with torch.no_grad(), _without_autocast(self.angles.device):  # plain calls read it too
                table = torch.cat([self.embed(chunk) for chunk in tokens.split(_CHUNK)])
            self._table = (tuple(p.clone() for p in now), table)
        return self._table[1]

    def evaluated(self) -> nn.Module:
        """A plain embedding that holds the table."""
        made: nn.Module = nn.Embedding.from_pretrained(self.table())
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # a cache is not carried along

    @classmethod
    def refuse(cls, facts: RegionFacts, options: Mapping[str, Any]) -> str | None:
        """A tied table and one smaller than the circuit's own angles are refused."""
        assert isinstance(facts, EmbeddingFacts)
        settings = cls.settings(options)
        if facts.tied_to is not None:
            return f"the table is tied to {facts.tied_to}, which would lose its weights"
        qubits = settings["qubits"]
        width = settings["layers"] * qubits * settings["rotations"]
        readout = (3 * qubits + 3 * qubits * (qubits - 1) // 2) * facts.features
        rows = facts.vocabulary
        if settings["angles"] == "compositional":
            rows = settings["base"] * max(1, math.ceil(math.log(facts.vocabulary, settings["base"])))
        if facts.vocabulary * facts.features < rows * width + readout:
            return (
                f"the table has {facts.vocabulary * facts.features} entries, fewer than the {rows * width + readout} parameters "
                "of the circuits and their readout"
            )
        return None

    @classmethod
    def blank(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> Self:
        """Random angles about one common start."""
        assert isinstance(facts, EmbeddingFacts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(
                facts.vocabulary, facts.features, padding_index=facts.padding_index, seed=seed, **cls.settings(options)
            )

    def rehearse(self, facts: RegionFacts) -> Tensor:
        """As many tokens as the example has, all different as far as the vocabulary goes."""
        assert isinstance(facts, EmbeddingFacts)
        places = torch.arange(facts.batch * facts.sequence_length)
        tokens = torch.arange(min(len(places), facts.vocabulary))
        return self.embed(tokens)[places % len(tokens)]

    @classmethod
    def from_region(
        cls, facts: RegionFacts, weights: Mapping[str, Tensor], options: Mapping[str, Any], *, seed: int
    ) -> Self:
        """Tokens' angles start along the principal components of the region's table.

        The readout is fitted to the table by least squares.

        Small differences of angles show linearly in the features, so that about as many components survive as there are
        angles.
        """
        assert isinstance(facts, EmbeddingFacts)
        kernel = cls.blank(facts, options, seed=seed)
        table = weights["weight"].detach()
        kernel.to(device=table.device, dtype=table.dtype)
        with torch.no_grad():
            wanted = table.double()
            centred = wanted - wanted.mean(0)
            if kernel.angle_kind == "token":
                kernel.angles.copy_(kernel._principal_angles(centred))
            tokens = torch.arange(facts.vocabulary, device=table.device)
            features = torch.cat([kernel.circuit_features(chunk) for chunk in tokens.split(_CHUNK)]).double()
            centre = features.mean(0)
            design = features - centre
            gram = design.T @ design
            gram.diagonal().add_(1e-8 * gram.trace() / gram.shape[0])
            solution = torch.linalg.solve(gram, design.T @ centred)
            kernel.readout.weight.copy_(solution.T)
            kernel.readout.bias.copy_(wanted.mean(0) - solution.T @ centre)
            _fit_norm(kernel, design @ solution + wanted.mean(0), wanted)
        return kernel

    def _principal_angles(self, centred: Tensor) -> Tensor:
        """Angles [V, P] about the common start: a centred table's principal components along the directions that show most.

        The directions are the right singular vectors of the features' Jacobian at the common start.
        """
        start = _simulated(self.angles.detach()).mean(0)
        with torch.enable_grad():
            jacobian = torch.autograd.functional.jacobian(self._features_at, start)
        directions = torch.linalg.svd(jacobian, full_matrices=False).Vh
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        scores = centred @ vectors.flip(-1)[:, : len(directions)]
        scores = scores / scores.std(0)[:1].clamp_min(1e-30)
        angles: Tensor = start + _WARM_SPREAD * scores.to(start.dtype) @ directions[: scores.shape[1]]
        return angles

    @classmethod
    def workload(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> KernelWorkload:
        """One binding for every token of the example.

        Each counted once where the batch is larger than the vocabulary.
        """
        assert isinstance(facts, EmbeddingFacts)
        settings = cls.settings(options)
        template = embedding_template(
            settings["qubits"], settings["layers"], settings["rotations"], seed, entangler_of(settings["entangler"])
        )
        tokens = min(facts.batch * facts.sequence_length, facts.vocabulary)
        measured = len(one_and_two_body(settings["qubits"]))
        return KernelWorkload((CircuitUse(template, tokens, 0, len(template.data), 0, measured),), "O(n)")


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def _simulated(angles: Tensor) -> Tensor:
    """In a precision that circuits are simulated in."""
    return angles if angles.dtype in (torch.float32, torch.float64) else angles.float()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def embedding_template(
    qubits: int, layers: int, rotations: int, seed: int, entangler: str = "source"
) -> CircuitTemplate:
    """The random circuit with its angles as data, all one- and two-body same-axis Pauli strings measured."""
    circuit, angles = random_rotations(qubits, layers, rotations, seed, entangler)
    return CircuitTemplate(circuit, data=angles, weights=(), measurement=Expectations(one_and_two_body(qubits)))


def _fit_norm(kernel: RandomCircuitEmbedding, before: Tensor, wanted: Tensor) -> None:
    """LayerNorm's scale and shift by least squares, feature by feature, towards the table."""
    normal = nn.functional.layer_norm(before, before.shape[-1:])
    mean, target = normal.mean(0), wanted.mean(0)
    scale = ((normal - mean) * (wanted - target)).sum(0) / (normal - mean).square().sum(0).clamp_min(1e-12)
    kernel.norm.weight.copy_(scale)
    kernel.norm.bias.copy_(target - scale * mean)
