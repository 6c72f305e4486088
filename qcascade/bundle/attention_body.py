"""Attention pooling arranged for a runtime of real tensors: few, large matrix products, and no more of a register than is used.

What comes in: the kernel. What goes out: a module over the same parameters that computes the same in evaluation mode,
simulated exactly. Amplitudes are kept as [S, high, B, low], position i = high · 2^l + low, so that rotations of the low
qubits and of the high qubits are one matrix product a set each, without transposing. Of the high part, only the rows that
hold the n positions are loaded, and only these are computed by the last rotations.

Refused (`applies`): circuits with other than rotations about Y, or about Z, and diagonals; registers whose high part
would be wider than `HIGH` qubits. The kernel's own forward serves there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from qcascade.bundle.circuit_body import CircuitBody, Pair, Step, each, kronecker, steps_of
from qcascade.bundle.recorded import Recorder
from qcascade.bundle.wide_rows import spread
from qcascade.circuits.template import Probabilities
from qcascade.engine.program import DiagonalLayer, LocalLayer
from qcascade.kernels.attention import AmplitudeAttentionPooling

LOW = 5
HIGH = 5


class AttentionBody(AmplitudeAttentionPooling):
    """The kernel's forward in other words.

    Example:
        >>> kernel = AmplitudeAttentionPooling(features=8, heads=2, max_length=40).eval()
        >>> x = torch.randn(3, 21, 8)
        >>> torch.allclose(AttentionBody.of(kernel)(x), kernel(x), atol=1e-6)
        True
    """

    recorder: Recorder  # of what angles alone decide, where torch exports this

    @classmethod
    def of(cls, kernel: AmplitudeAttentionPooling) -> Self:
        """The body over a kernel's own tensors."""
        made = cls.__new__(cls)
        made.__dict__.update(kernel.__dict__, recorder=Recorder())
        return made

    @staticmethod
    def applies(kernel: AmplitudeAttentionPooling) -> bool:
        """Whether this form computes what the kernel does."""
        steps, _ = steps_of(kernel._program, Probabilities())
        return kernel.qubits <= LOW + HIGH and all(
            isinstance(step, DiagonalLayer)
            or (isinstance(step, LocalLayer) and all(r.axis == "Y" for turns in step.rotations for r in turns))
            for step in steps
        )

    @property
    def low(self) -> int:
        """Qubits of the low part; all where the register is small."""
        return self.qubits if self.qubits <= LOW else min(LOW, self.qubits - 2)

    @property
    def telling_length(self) -> int:
        """A length for torch to export with that needs several rows of the high part, but not all."""
        return min(self.max_length, 3 << self.low)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As the kernel's."""
        valid = self._valid(x, mask)
        sets = self.heads * self.slots
        scores, phases, mix = self._projections(x).split(sets, -1)
        chance = self._chances(scores.permute(2, 0, 1), phases.permute(2, 0, 1), valid)
        beta = mix.unflatten(-1, (self.heads, self.slots)).softmax(-1)
        if self.local is not None:
            return self._projected_first(x, chance.unflatten(1, (self.heads, self.slots)), beta, valid)
        pooled = (chance @ x).unflatten(1, (self.heads, self.slots)).transpose(0, 1).flatten(1, 2)  # [H, BR, d]
        context = pooled @ self.value.weight.unflatten(0, (self.heads, self.head_dim)).transpose(-1, -2)
        out = self.output.weight.T.unflatten(0, (self.heads, self.head_dim))  # [H, e, d]
        projected = context @ out
        if self.value.bias is not None:  # both biases, before mixing: a head's β sum to 1
            biases = self.value.bias.unflatten(0, (self.heads, 1, self.head_dim)) @ out
            projected = projected + (biases + self.output.bias / self.heads)
        projected = projected.unflatten(1, (-1, self.slots)).transpose(0, 1).flatten(1, 2)  # [B, HR, d]
        y: Tensor = beta.flatten(2) @ projected
        return y

    def _projections(self, x: Tensor) -> Tensor:
        """Scores, phases and mixing logits [B, n, 3 HR], in one product."""
        weight = torch.cat((self.score / math.sqrt(self.head_dim), self.phase, self.mix)).T
        more = spread(self.features)
        if more:
            x, weight = F.pad(x, (0, more)), F.pad(weight, (0, 0, 0, more))
        return x @ weight

    def _chances(self, scores: Tensor, phases: Tensor, valid: Tensor | None) -> Tensor:
        """P [B, HR, n] of scores and phases [HR, B, n]."""
        batch, length = scores.shape[1:]
        if valid is not None:
            scores = scores.masked_fill(~valid, -torch.inf)
        radii = scores.softmax(-1).sqrt()
        chance = self._measured(Pair(radii * phases.cos(), radii * phases.sin()), batch, length)
        if valid is not None:
            chance = chance * valid.unsqueeze(1)
        return chance / chance.sum(-1, keepdim=True).clamp_min(torch.finfo(chance.dtype).tiny)

    def _measured(self, loaded: Pair, batch: int, length: int) -> Tensor:
        """Probabilities [B, S, n] of the first n outcomes, of amplitudes [S, B, n]."""
        low, high = 2**self.low, 2 ** (self.qubits - self.low)
        rows = (length + low - 1) // low if high > 1 else 1
        steps, _ = steps_of(self._program, Probabilities())
        factors = iter(self.recorder.call(lambda angles: self._factors(steps, angles), self.angles))
        state = each(loaded, lambda t: F.pad(t, (0, rows * low - length)).unflatten(2, (rows, low)).transpose(1, 2))
        turning = [step for step in steps if isinstance(step, LocalLayer)]
        for step in steps:
            if isinstance(step, DiagonalLayer):
                turn = Pair(next(factors), next(factors))
                state = state.times(each(turn, lambda t: t[:, : state.real.shape[1]]))  # noqa: B023
                continue
            small, wide = next(factors), next(factors) if high > 1 else None
            if wide is not None and step is turning[0]:
                wide = wide[:, :, :rows]
            if wide is not None and step is turning[-1]:
                wide = wide[:, :rows]
            state = each(state, lambda t: _turned(t, small, wide, step is not turning[0]))  # noqa: B023
        return state.squared().permute(2, 0, 1, 3).flatten(2)[..., :length]

    def _factors(self, steps: Sequence[Step], angles: Tensor) -> list[Tensor]:
        """Of every step what angles alone decide.

        A diagonal's cosines and sines [S, high, 1, low]; rotations' matrices of the low qubits [S, low, low], for products
        from the right, and of the high qubits [S, high, high], if there are any.
        """
        sets, low, split = angles.shape[0], 2**self.low, self.qubits - self.low
        body = CircuitBody(self._program, steps, angles.new_zeros(1, 1, 0), angles)
        found: list[Tensor] = []
        for step in steps:
            if isinstance(step, DiagonalLayer):
                turn = each(body.turn(step), lambda t: t.reshape(sets, 2**split, 1, low))
                found += turn.parts()
                continue
            assert isinstance(step, LocalLayer)
            gates = [body.gate(rotations) for rotations in step.rotations]
            found.append(kronecker(gates[split:]).real[:, 0].transpose(-1, -2))
            if split:
                found.append(kronecker(gates[:split]).real[:, 0])
        return found


def _turned(state: Tensor, small: Tensor, wide: Tensor | None, wide_first: bool) -> Tensor:
    """[S, high, B, low] under the low qubits' matrix [S, low, low] and the high qubits' [S, high after, high before]."""

    def high(t: Tensor) -> Tensor:
        return t if wide is None else (wide @ t.flatten(2)).unflatten(2, t.shape[2:])

    state = high(state) if wide_first else state
    state = (state.flatten(1, 2) @ small).unflatten(1, state.shape[1:3])
    return state if wide_first else high(state)
